"""The loss of branches by hand: a tiny world that has learnt nothing predicts the current frame and no displacement."""

from dataclasses import replace

import pytest
import torch
from tiny import random_clip, tiny_world

from rl_posttrain.posttraining.branches import draw_branches
from rl_posttrain.posttraining.updates import (
    BranchBatch,
    Update,
    UpdateWeights,
    branch_loss,
    contrast,
    drawn_frames,
    shares_of,
)
from worldmodel.training.loss import LossConfig
from worldmodel.world_model import WorldModel

LOSS = LossConfig(state_weight=0.05, ramp_floor=0.4)
BY = 0.5
"""By how much brighter the new policy predicts."""
CONTRAST = UpdateWeights(contrast=1.0, supervision=0.0, kl=0.0, beta=1.0)


def brighter(by: float) -> WorldModel:
    """Predicts that every pixel gets brighter by `by`, on the scale [-1, 1], and every state larger by `by / 2`.

    States count in deviations of 0.25: the predicted displacement is `2 by` of them.
    """
    world = tiny_world(random=False)
    torch.nn.init.constant_(world.dit.head.last.bias, by)
    torch.nn.init.constant_(world.dit.state_out.bias, 2 * by)
    world.conditioner.displacement_scale.fill_(0.25)
    return world


def batch(good: list[float], *, kept=(True, True), tau: float = 0.0) -> BranchBatch:
    """One start with two candidates of two frames, which are brighter by 1 and have moved by 2 deviations.

    The recorded frames are brighter by 0.25 and have not moved.
    """
    world = tiny_world(random=False)
    clip = random_clip(world, batch=1, frames=5)
    settings = {"context": 2, "prefix": 1, "candidates": 2, "num_steps": 1, "temperature": 1.0}
    branches, _ = draw_branches(world, clip, seeds=[1], **settings)
    current, states = branches.current, branches.current_states
    branches = replace(
        branches,
        sample=current + 1.0,
        sample_states=states + 0.5,
        truth=current[:, 0] + 0.25,
        truth_states=states[:, 0],
    )
    shape = (1, 2, 2)
    return BranchBatch(
        branches,
        torch.tensor([good]),
        torch.tensor([kept]),
        torch.full(shape, tau),
        torch.zeros(*shape, 2, *world.latent_shape),
        torch.zeros(*shape, 2),
        2,
    )


def test_the_reference_pulls_back_by_the_squared_distance():
    world, drawn = brighter(BY), batch([1.0, 1.0])
    weights = replace(CONTRAST, contrast=0.0, kl=3.0)
    loss, parts = branch_loss(world, world, brighter(0.1), drawn, weights, LOSS)
    expected = (BY - 0.1) ** 2 + 0.05 * (2 * BY - 2 * 0.1) ** 2
    assert loss.item() == pytest.approx(3 * expected, rel=1e-4) and set(parts) == {"kl"}


@pytest.mark.parametrize(("good", "beta"), [(1.0, 1.0), (0.0, 1.0), (0.25, 0.5)])
def test_the_contrast_is_that_of_frames_and_states(good, beta):
    """The old policy predicts the current frame, the new one half more, the samples are 1 more and moved by 2."""
    drawn = batch([good, good])
    loss, parts = branch_loss(brighter(BY), brighter(0.0), None, drawn, replace(CONTRAST, beta=beta), LOSS)
    towards, away = (beta * BY - 1) ** 2, (-beta * BY - 1) ** 2
    expected = good * towards + (1 - good) * away
    towards, away = (beta * 2 * BY - 2) ** 2, (-beta * 2 * BY - 2) ** 2
    expected += 0.05 * (good * towards + (1 - good) * away)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert parts["gap"].item() == pytest.approx(BY, rel=1e-4)


def test_a_map_moves_only_the_cell_that_it_names():
    """The right half of the second camera's second frame: good in candidate 0, bad in candidate 1; 0.5 moves nothing.

    At the first update both policies predict the same.
    """
    drawn, good = batch([0.5, 0.5]), torch.full((1, 2, 2, 2, 1, 2), 0.5)
    good[0, :, 1, 1, 0, 1] = torch.tensor([1.0, 0.0])
    frames = drawn_frames(brighter(0.0), drawn, LOSS)
    predicted = tuple(torch.zeros_like(x).requires_grad_() for x in frames.clean)
    before = tuple(torch.zeros_like(x) for x in frames.clean)
    contrast(predicted, before, replace(drawn, good=good), frames, 1.0, 0.0).backward()
    moved = (predicted[0].grad * frames.clean[0]).unflatten(1, (2, 2))[0]  # k m v c h w; below 0: towards the sample
    half = moved.shape[-1] // 2
    better, worse = moved[:, 1, 1, ..., half:]
    assert (better <= 0).all() and better.sum() < 0 < worse.sum() and (worse >= 0).all()
    moved[:, 1, 1, ..., half:] = 0
    assert (moved == 0).all()


def test_a_state_has_the_mean_of_its_frame():
    """Cells of 0 and 1 in the first frame and of 1 in the second; a number is that of both frames."""
    good = torch.tensor([0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 2, 1, 1, 2)
    latents, states = shares_of(good, 2, (2, 4))
    assert states.tolist() == [0.5, 1.0] and latents.shape == (2, 1, 1, 2, 4)
    assert latents[0, 0, 0].tolist() == [[0.0, 0.0, 1.0, 1.0]] * 2
    latents, states = shares_of(torch.tensor([[0.25]]), 2, (2, 4))
    assert states.tolist() == [0.25, 0.25] and (latents == 0.25).all()
    assert shares_of(good, 2, (2, 1))[0].flatten().tolist() == [0.5, 0.5, 1.0, 1.0]  # cells finer than the latents


@pytest.mark.parametrize(("good", "beta"), [(1.0, 1.0), (0.25, 0.5)])
def test_a_map_of_equal_cells_is_one_number(good, beta):
    weights, one = replace(CONTRAST, beta=beta), batch([good, good])
    same = replace(one, good=torch.full((1, 2, 1, 2, 1, 1), good))
    losses = [branch_loss(brighter(BY), brighter(0.0), None, each, weights, LOSS)[0].item() for each in (one, same)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_candidate_that_takes_no_part_counts_nothing():
    """Of the two the first is all good and the second all bad."""
    for kept, expected in (((True, False), (BY - 1) ** 2), ((False, True), (BY + 1) ** 2)):
        drawn = batch([1.0, 0.0], kept=kept)
        loss, _ = branch_loss(brighter(BY), brighter(0.0), None, drawn, CONTRAST, replace(LOSS, state_weight=0.0))
        assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_supervision_regresses_to_the_recorded_frames(tau):
    """They are brighter by 0.25, and weigh 0.9 tau + 0.4 at the noise level tau."""
    weights = UpdateWeights(contrast=0.0, supervision=2.0, kl=0.0, beta=1.0)
    loss, parts = branch_loss(brighter(BY), brighter(0.0), None, batch([1.0, 0.0], tau=tau), weights, LOSS)
    assert set(parts) == {"supervision"}
    expected = (BY - 0.25) ** 2 + 0.05 * (2 * BY) ** 2
    assert loss.item() == pytest.approx(2 * (0.9 * tau + 0.4) * expected, rel=1e-4)


def test_cameras_weigh_as_in_pretraining():
    """Only the second camera counts, twice, and only in it the samples are off."""
    world, drawn = brighter(0.0), batch([1.0, 1.0])
    sample = drawn.branches.current.clone()
    sample[:, :, :, 1] += 1.0
    branches = replace(drawn.branches, sample=sample, sample_states=drawn.branches.current_states)
    for weight, expected in (([1.0, 1.0], 0.5), ([0.0, 2.0], 1.0), ([2.0, 0.0], 0.0)):
        world.view_weight.copy_(torch.tensor(weight))
        loss, _ = branch_loss(world, brighter(0.0), None, replace(drawn, branches=branches), CONTRAST, LOSS)
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_the_step_size_is_that_of_the_sampler():
    """With 1 / 2 and with 1 / 4 the network is told something else."""
    world, old = tiny_world(), tiny_world(random=False)
    two, four = (replace(batch([1.0, 1.0], tau=0.5), num_steps=steps) for steps in (2, 4))
    losses = [branch_loss(world, old, None, each, CONTRAST, LOSS)[0].item() for each in (two, four)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)
    again = branch_loss(world, old, None, replace(four, num_steps=2), CONTRAST, LOSS)[0].item()
    assert again == losses[0]


def test_old_policy_and_reference_get_no_gradient():
    world, old, reference = brighter(BY), brighter(0.0), brighter(0.1)
    weights = UpdateWeights(contrast=1.0, supervision=1.0, kl=1.0, beta=1.0)
    update = Update(world, old, reference, weights, LOSS)
    drawn = batch([1.0, 0.0])
    loss, parts = update(drawn)
    expected, again = branch_loss(world, old, reference, drawn, weights, LOSS)
    assert loss.item() == expected.item() and parts.keys() == again.keys()
    swapped, _ = branch_loss(world, reference, old, drawn, weights, LOSS)
    assert loss.item() != pytest.approx(swapped.item(), rel=1e-3)
    assert {id(p) for p in update.parameters()} == {id(p) for p in world.parameters()}
    loss.backward()
    assert world.dit.head.last.bias.grad.abs().max() > 0
    assert all(p.grad is None for each in (old, reference) for p in each.parameters())
