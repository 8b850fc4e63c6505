"""Post-training: the loss, the old policy, guards, and the windows of an evaluation."""

import pytest
import torch
from places import LEROBOT_V30
from tiny import random_clip, tiny_world

from rl_posttrain.posttraining.branches import draw_branches
from rl_posttrain.posttraining.guards import (
    held_back,
    high_frequency,
    motion_energy_ratio,
    read_held_out,
    sharpness_ratio,
)
from rl_posttrain.posttraining.train import follow
from rl_posttrain.posttraining.updates import BranchBatch, UpdateWeights, branch_loss
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.training.loss import LossConfig

DATA = LEROBOT_V30
LOSS = LossConfig()


def batch_of(world, *, good, candidates=2, branch=2, num_steps=2, seed=0) -> BranchBatch:
    clip = random_clip(world, batch=2, frames=3 + branch)
    branches, _ = draw_branches(
        world, clip, context=2, prefix=1, candidates=candidates, num_steps=num_steps, temperature=1.0, seeds=[1, 2]
    )
    generator = torch.Generator().manual_seed(seed)
    shape = (2, candidates, branch)
    tau = torch.randint(num_steps, shape, generator=generator) / num_steps
    return BranchBatch(
        branches,
        torch.full(shape[:2], good),
        torch.ones(shape[:2]).bool(),
        tau,
        torch.randn(*shape, 2, 3, 16, 24, generator=generator),
        torch.randn(*shape, 2, generator=generator),
        num_steps,
    )


def gradient(world, old, batch, weights, reference=None) -> torch.Tensor:
    world.zero_grad()
    loss, parts = branch_loss(world, old, reference, batch, weights, LOSS)
    loss.backward()
    grads = [p.grad.flatten() for p in world.parameters() if p.grad is not None]
    return torch.cat(grads), parts


def test_one_half_is_silent_and_good_is_the_opposite_of_bad():
    world, old = tiny_world(), tiny_world()
    weights = UpdateWeights(contrast=1.0, supervision=0.0, kl=0.0, beta=0.5)
    silent, parts = gradient(world, old, batch_of(old, good=0.5), weights)
    better, _ = gradient(world, old, batch_of(old, good=1.0), weights)
    worse, _ = gradient(world, old, batch_of(old, good=0.0), weights)
    assert parts["gap"] == 0
    assert silent.norm() < 1e-5 * better.norm()
    torch.testing.assert_close(better, -worse, atol=1e-5, rtol=1e-3)


def test_a_step_on_good_candidates_moves_towards_them():
    world, old = tiny_world(), tiny_world()
    batch = batch_of(old, good=1.0)
    weights = UpdateWeights(contrast=1.0, supervision=0.0, kl=0.0, beta=1.0)
    optimizer = torch.optim.AdamW(world.parameters(), lr=1e-4)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        loss, parts = branch_loss(world, old, None, batch, weights, LOSS)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.97 * values[0], values
    assert parts["gap"] > 0


def test_supervision_and_the_reference_pull_where_they_should():
    world, old = tiny_world(), tiny_world()
    batch = batch_of(old, good=0.5, candidates=1)
    weights = UpdateWeights(contrast=0.0, supervision=1.0, kl=0.0, beta=1.0)
    found, parts = gradient(world, old, batch, weights)
    assert found.norm() > 0
    assert set(parts) == {"supervision"}
    with torch.no_grad():
        for parameter in world.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    weights = UpdateWeights(contrast=0.0, supervision=0.0, kl=1.0, beta=1.0)
    _, apart = gradient(world, old, batch, weights, reference=old)
    _, same = gradient(old, old, batch, weights, reference=old)
    assert apart["kl"] > 0
    assert same["kl"] == 0


def test_the_old_policy_follows_by_its_decay():
    world, old = tiny_world(), tiny_world(random=False)
    before = old.dit.condition_embedding.detach().clone()
    follow(old, world, 0.75)
    expected = 0.75 * before + 0.25 * world.dit.condition_embedding.detach()
    torch.testing.assert_close(old.dit.condition_embedding.detach(), expected)
    follow(old, world, 0.0)
    assert torch.equal(old.dit.condition_embedding, world.dit.condition_embedding)


def rollout_of(imagined, reference):
    from rl_posttrain.rewards.reward import Rollout
    from worldmodel.data import Clip

    return Rollout(Clip(imagined), Clip(reference))


def test_sharpness_and_motion_by_hand():
    frames = torch.zeros(1, 3, 1, 8, 8, 3, dtype=torch.uint8)
    frames[:, 1, :, 4, 4] = 255
    # one white pixel: -4 at the centre and 1 at four neighbours of the 6 x 6 inner pixels
    expected = (16 + 4) / 36 / 3
    assert high_frequency(frames).item() == pytest.approx(expected)
    half = (frames.float() * 0.5).to(torch.uint8)
    assert sharpness_ratio(rollout_of(half, frames)).item() == pytest.approx(0.25, abs=0.01)
    assert motion_energy_ratio(rollout_of(half, frames)).item() == pytest.approx(0.5, abs=0.01)
    still = torch.zeros_like(frames)
    assert motion_energy_ratio(rollout_of(frames, still)).isnan().all()


def test_what_is_held_back():
    scores = {"error.agent": torch.tensor([1.0, torch.nan]), "error.block": torch.tensor([3.0, 5.0])}
    scores |= {"state_error": torch.tensor([9.0, 9.0])}
    name, values = held_back(scores, ("fidelity",))
    assert (name, values.tolist()) == ("object error", [2.0, 5.0])
    unknown = {"error.agent": torch.tensor([torch.nan, torch.nan]), "state_error": torch.tensor([8.0, 9.0])}
    name, values = held_back(unknown, ("fidelity",))
    assert (name, values.tolist()) == ("state error", [8.0, 9.0])
    shape = unknown | {"sharpness": torch.tensor([0.8, 1.0]), "motion": torch.tensor([1.1, 0.5])}
    name, values = held_back(shape, ("fidelity", "state"))
    assert (name, values.tolist()) == ("distortion", pytest.approx([0.3, 0.5]))


def test_windows_of_held_out_episodes():
    world = tiny_world()
    source = EpisodeCache(open_episodes(DATA, (16, 24)))
    length = min(source.lengths)
    held_out = read_held_out(world, source, [0, 1], horizon=4, starts=2)
    assert held_out.episodes == (0, 0, 1, 1)
    assert held_out.horizon == 4
    with pytest.raises(ValueError, match="episode 0 has"):
        read_held_out(world, source, [0], horizon=10 * length, starts=1)
