"""Branches of a stream: candidates share the past, and the parallel pass agrees with streaming."""

import pytest
import torch
from tiny import random_clip, tiny_world

from rl_posttrain.posttraining.branches import branch_visibility, draw_branches, encode_branches


def drawn(world, *, context=2, prefix=1, candidates=3, branch=2, num_steps=2, temperature=1.0):
    clip = random_clip(world, batch=2, frames=context + prefix + branch)
    return clip, *draw_branches(
        world,
        clip,
        context=context,
        prefix=prefix,
        candidates=candidates,
        num_steps=num_steps,
        temperature=temperature,
        seeds=[5, 9],
    )


def test_visibility_by_hand():
    found = branch_visibility(torch.tensor([0, 3, 4]), candidates=2, length=2, window=2)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 0, 0, 0, 1, 1],
    ]
    # past 0 and 3, then frames 4 and 5 of either candidate
    assert found.visible.int().tolist() == expected
    assert found.distance[3].tolist() == [5, 2, 1, 0, 1, 0]


def test_shapes_and_shared_past():
    world = tiny_world()
    clip, branches, rollout = drawn(world)
    assert branches.sample.shape == (2, 3, 2, 2, 3, 16, 24)
    assert branches.past.shape[1] == 2
    assert torch.equal(branches.index, torch.tensor([0, 1, 2]))
    assert (branches.current[:, 0, 0] == branches.current[:, 2, 0]).all()
    assert torch.equal(branches.current[:, :, 1], branches.sample[:, :, 0])
    assert not torch.equal(branches.sample[:, 0], branches.sample[:, 1])
    assert rollout.imagined.frames.shape == (6, 3, 2, 16, 24, 3)
    assert torch.equal(rollout.reference.frames[3], clip.frames[1, 2:])
    assert torch.equal(rollout.imagined.actions[0], clip.actions[0, 2:])
    assert not torch.equal(rollout.imagined.frames[0, 0], clip.frames[0, 2])
    with pytest.raises(ValueError, match="clip of 3 frames"):
        draw_branches(
            world, clip.head(3), context=2, prefix=1, candidates=1, num_steps=1, temperature=1.0, seeds=[0, 1]
        )


def test_candidates_differ_by_their_temperature():
    spread = {}
    for temperature in (0.0, 0.5, 1.0):
        _, branches, _ = drawn(tiny_world(), temperature=temperature)
        spread[temperature] = branches.sample[:, :, 0].std(dim=1).mean()
    assert spread[0.0] == 0 < spread[0.5] < spread[1.0]


@pytest.mark.parametrize("injection", ["token", "cross"])
def test_the_parallel_pass_predicts_what_the_stream_predicted(injection):
    """With one step from noise at tau = 0 nothing is random: predictions must be the samples."""
    world = tiny_world(injection=injection)
    _, branches, _ = drawn(world, num_steps=1)
    encoded = encode_branches(world, branches)
    shape = (2, 6)
    noise = (torch.randn(*shape, 2, 3, 16, 24), torch.randn(*shape, 2))
    tau, size = torch.zeros(shape), torch.ones(shape)
    latent, state = world.predict(encoded, noise, tau, size)
    sample = branches.sample.flatten(1, 2)
    torch.testing.assert_close(world.bound(latent), sample, atol=0.03, rtol=0.03)
    moved = (branches.sample_states - branches.current_states).flatten(1, 2)
    torch.testing.assert_close(state * world.conditioner.displacement_scale, moved, atol=0.03, rtol=0.03)
