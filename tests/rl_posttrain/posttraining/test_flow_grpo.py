"""Flow-GRPO: likelihoods by hand, the random step between two, and a toy distribution."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30
from tiny import random_clip, tiny_world
from torch.distributions import Normal

from rl_posttrain.posttraining.branches import draw_branches
from rl_posttrain.posttraining.config import PosttrainConfig, check
from rl_posttrain.posttraining.flow_grpo import log_ratio, policy_loss, restepped
from rl_posttrain.posttraining.train import next_batch
from rl_posttrain.posttraining.updates import Update, UpdateWeights, drawn_frames, policy_gradient
from rl_posttrain.rewards.advantages import group_advantages
from rl_posttrain.rewards.mix import RewardMix
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.training.loss import LossConfig

LOSS = LossConfig(state_weight=0.05)
WEIGHTS = UpdateWeights(contrast=0.0, supervision=0.0, kl=0.0, beta=1.0, policy=1.0)


def drawn(world, *, candidates=2, temperature=1.0):
    clip = random_clip(world, batch=2, frames=4)
    settings = {"context": 2, "prefix": 1, "candidates": candidates, "num_steps": 2, "temperature": temperature}
    return draw_branches(world, clip, seeds=[1, 2], **settings)


def test_the_ratio_is_that_of_two_gaussians_without_its_mean():
    generator = torch.Generator().manual_seed(0)
    new, old, noise = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    between = 0.5 * old + 0.5 * noise
    expected = Normal(0.5 * new, 0.5).log_prob(between) - Normal(0.5 * old, 0.5).log_prob(between)
    torch.testing.assert_close(log_ratio(new, old, noise), expected + (new - old) ** 2 / 2)


@pytest.mark.parametrize(
    ("advantage", "logarithm", "loss"), [(1.0, 0.0, -1.0), (1.0, 0.5, -1.1), (-1.0, 0.5, 1.6487), (-1.0, -0.5, 0.9)]
)
def test_a_ratio_counts_up_to_its_limit(advantage, logarithm, loss):
    """What would make a good candidate even more likely than the limit, or a bad one less, earns no more."""
    found = policy_loss(torch.tensor([logarithm]), torch.tensor([advantage]), limit=0.1)
    assert found.item() == pytest.approx(loss, abs=1e-4)


def test_without_noise_the_step_between_is_the_samplers_own():
    world = tiny_world()
    world.config = replace(world.config, temperature=0.0)
    branches, rollout = drawn(world, temperature=0.0)
    silent = torch.zeros(2, 2, 1, 2, *world.latent_shape)
    found = restepped(world, branches, rollout, silent)
    assert (found.imagined.frames.int() - rollout.imagined.frames.int()).abs().max() <= 1
    torch.testing.assert_close(found.imagined.states, rollout.imagined.states, atol=0.02, rtol=0)
    assert found.reference is rollout.reference
    loud = restepped(world, branches, rollout, torch.randn_like(silent))
    assert torch.equal(loud.imagined.frames[:, 0], rollout.imagined.frames[:, 0])
    assert not torch.equal(loud.imagined.frames[0, 1], loud.imagined.frames[1, 1])


def batch_of(world, good):
    """Two starts of two candidates of one frame, with their noise."""
    config = PosttrainConfig(
        "world", LEROBOT_V30, Path("out"), objective="flow-grpo", groups=2, candidates=2, context=2, prefix=2, branch=1
    )
    seen = []
    look = {"fidelity": lambda rollout: seen.append(rollout) or torch.arange(4.0)}
    source = EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))
    mix = RewardMix(look, {"fidelity": 1.0}, None)
    batch, _ = next_batch(config, world, source, range(2), mix, 0)
    return batch if good is None else replace(batch, good=good), seen[0]


def test_rewards_see_the_frames_that_the_noise_of_the_update_made():
    world = tiny_world()
    batch, seen = batch_of(world, None)
    expected = restepped(world, batch.branches, seen, batch.noise)
    assert torch.equal(seen.imagined.frames, expected.imagined.frames)
    assert torch.equal(seen.imagined.states, expected.imagined.states)
    assert batch.good.round(decimals=3).tolist() == [[0.0, 1.0]] * 2


def test_good_noise_becomes_more_likely_in_its_cell_only():
    """The first candidate of the first start is good in the left half of the second camera, the second one bad."""
    world = tiny_world()
    good = torch.full((2, 2, 1, 2, 1, 2), 0.5)
    good[0, :, 0, 1, 0, 0] = torch.tensor([1.0, 0.0])
    batch, _ = batch_of(world, good)
    frames = drawn_frames(world, batch, LOSS)
    before = torch.zeros_like(frames.clean[0])
    after = before.clone().requires_grad_()
    policy_gradient(after, before, batch, frames.pixels).backward()
    towards = -after.grad * batch.noise[:, :, 0]  # above 0: towards the noise
    left = towards[0, :, 1, ..., :12]
    assert left[0].sum() > 0 > left[1].sum() and (left[0] >= 0).all() and (left[1] <= 0).all()
    left.zero_()
    assert towards.abs().max() == 0


def test_the_loss_pulls_the_new_policy_and_not_the_old_one():
    world, old = tiny_world(), tiny_world()
    batch, _ = batch_of(old, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    loss, parts = Update(world, old, None, WEIGHTS, LOSS)(batch)
    assert set(parts) == {"policy"} and loss.item() == pytest.approx(0, abs=1e-6)  # ratios of 1, advantages 1, -1, 0, 0
    loss.backward()
    assert world.dit.head.last.bias.grad.abs().max() > 0 and old.dit.head.last.bias.grad is None
    kept = replace(batch, kept=torch.tensor([[True, False], [False, False]]))
    assert Update(world, old, None, WEIGHTS, LOSS)(kept)[0].item() == pytest.approx(-1, abs=1e-4)


def test_white_and_black_pixels_can_be_left_out():
    world = tiny_world()
    batch, _ = batch_of(world, None)
    truth = batch.branches.truth.clamp(-0.9, 0.9)
    truth[0, 0, 1, 2, :8] = 1.0  # the blue of the upper half of the second camera
    truth[1, 0, 0, 0, :, :4] = -1.0
    batch = replace(batch, branches=replace(batch.branches, truth=truth))
    every, inner = (drawn_frames(world, batch, LOSS, inner=flag).pixels for flag in (False, True))
    left_out = (inner == 0) & (every > 0)
    expected = torch.zeros_like(left_out)
    expected[0, :, 1, :, :8], expected[1, :, 0, :, :, :4] = True, True
    expected &= every > 0  # padding weighs nothing anyway
    assert torch.equal(left_out, expected) and torch.equal(inner[~expected], every[~expected])


def test_candidates_have_to_be_single_frames_of_two_steps():
    source = EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))
    config = PosttrainConfig("world", LEROBOT_V30, Path("out"), objective="flow-grpo", validation_horizon=4)
    assert config.contrastive
    assert config.update_weights == UpdateWeights(0.0, 0.0, 0.0, 1.0, policy=1.0)
    assert replace(config, inner=True).update_weights.inner
    for wrong in ({"branch": 4}, {"branch": 1, "num_steps": 4}):
        with pytest.raises(ValueError, match=r"--objective flow-grpo: .*so it needs --branch 1 --num-steps 2, got"):
            check(replace(config, **wrong), tiny_world(), source, range(1))
    check(replace(config, branch=1), tiny_world(), source, range(1))


def test_the_reward_rises_on_a_toy_distribution():
    """The first step predicts `mean`, the second one nothing more; the reward is the closeness to a hidden point."""
    generator = torch.Generator().manual_seed(2)
    hidden, mean = torch.tensor([1.0, -0.5]), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([mean], lr=0.05)
    curve = []
    for _ in range(150):
        old = mean.detach().clone()
        noise = torch.randn(4, 8, 2, generator=generator)
        rewards = -(0.5 * old + 0.5 * noise - hidden).norm(dim=-1)
        curve.append(rewards.mean().item())
        advantages = group_advantages(rewards).clamp(-1, 1)[..., None].expand_as(noise)
        optimizer.zero_grad()
        policy_loss(log_ratio(mean.expand_as(noise), old.expand_as(noise), noise), advantages).mean().backward()
        optimizer.step()
    assert sum(curve[-10:]) > sum(curve[:10]) + 4
    assert (0.5 * mean.detach() - hidden).norm() < 0.4
