"""What an update is made of: who is good, who takes part, which noise and which actions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30
from tiny import random_clip, tiny_world

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from rl_posttrain.posttraining.branches import draw_branches
from rl_posttrain.posttraining.config import PosttrainConfig, check_cells
from rl_posttrain.posttraining.train import judge, measure_spread, next_batch, policies
from rl_posttrain.posttraining.updates import RecordedBatch, UpdateWeights
from rl_posttrain.rewards.executability import Executability, Limits, penalty
from rl_posttrain.rewards.mix import RewardMix
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip, EpisodeCache, open_episodes


def config(out: Path = Path("out"), **settings) -> PosttrainConfig:
    small = {"groups": 2, "candidates": 3, "context": 2, "prefix": 3, "branch": 3, "num_steps": 2}
    return PosttrainConfig(world=Path("world"), data=LEROBOT_V30, out=out, **{**small, **settings})


@pytest.fixture(scope="module")
def source():
    return EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))


def scored(values: list[float]) -> tuple[RewardMix, Rollout]:
    """A reward that gives the candidates these values, and a rollout for it."""
    frames = torch.zeros(len(values), 2, 1, 8, 8, 3, dtype=torch.uint8)
    mix = RewardMix({"fidelity": lambda rollout: torch.tensor(values)}, {"fidelity": 1.0}, None)
    return mix, Rollout(Clip(frames), Clip(frames))


def test_the_best_candidate_of_a_group_is_good_and_the_worst_is_bad():
    """Rewards 1, 2, 3 standardise to -1.22, 0, 1.22, which are clipped at 1; equal ones to 0."""
    mix, rollout = scored([1.0, 2.0, 3.0, 5.0, 5.0, 5.0])
    good, kept, row = judge(config(keep=1), mix, rollout, 3)
    assert good.tolist() == [[0.0, 0.5, 1.0], [0.5, 0.5, 0.5]]
    assert kept[0].tolist() == [True, False, True] and kept.sum(1).tolist() == [2, 2]
    assert row["reward"] == row["reward.fidelity"] == pytest.approx(21 / 6)
    assert row["spread"] == pytest.approx((2 / 3) ** 0.5 / 2)
    assert row["zero_variance"] == 0.5
    wide, everyone, _ = judge(config(advantage_limit=2.0), mix, rollout, 3)
    torch.testing.assert_close(wide[0, 2], torch.tensor((1.5**0.5 / 2 + 1) / 2), atol=1e-3, rtol=0)
    assert everyone.all()


def test_rewards_with_weights_decide_together():
    """The second reward ranks the other way round and counts three times as much."""
    mix, rollout = scored([1.0, 2.0, 3.0])
    other = lambda rollout: torch.tensor([3.0, 2.0, 1.0])  # noqa: E731
    both = RewardMix({**mix.rewards, "other": other}, {"fidelity": 1.0, "other": 3.0}, None)
    assert judge(config(), both, rollout, 3)[0].tolist() == [[1.0, 0.5, 0.0]]
    unrewarded = replace(both, weights={"fidelity": 1.0, "other": 0.0})
    assert judge(config(), unrewarded, rollout, 3)[0].tolist() == [[0.0, 0.5, 1.0]]


def test_an_update_is_drawn_from_its_seed_and_step(source):
    world, (mix, _) = tiny_world(), scored([1.0, 2.0, 3.0] * 2)
    batch, row = next_batch(config(), world, source, range(2), mix, 0)
    same, _ = next_batch(config(), world, source, range(2), mix, 0)
    later, _ = next_batch(config(), world, source, range(2), mix, 1)
    other, _ = next_batch(config(seed=1), world, source, range(2), mix, 0)
    assert torch.equal(batch.branches.sample, same.branches.sample)
    for another in (later, other):
        assert not torch.equal(batch.noise, another.noise)
        assert not torch.equal(batch.branches.clip.frames[:, 0], another.branches.clip.frames[:, 0])
    assert batch.branches.sample.shape[:3] == (2, 3, 3)
    assert batch.good.tolist() == [[0.0, 0.5, 1.0]] * 2
    assert set(batch.tau.unique().tolist()) <= {0.0, 0.5} and batch.num_steps == 2
    assert batch.branches.clip.frames.shape[1] == 2 + row["prefix"] + 3
    cold, _ = next_batch(config(temperature=0.5), world, source, range(2), mix, 0)
    torch.testing.assert_close(cold.noise, 0.5 * batch.noise)
    torch.testing.assert_close(cold.state_noise, 0.5 * batch.state_noise)


def test_prefixes_have_every_length_up_to_the_largest(source):
    """Stretches have 2 frames of context, a prefix of 0 to 3 and 3 of branch."""
    mix, _ = scored([1.0] * 2)
    lengths = set()
    for step in range(16):
        batch, _ = next_batch(config(objective="teacher-forced"), tiny_world(), source, range(2), mix, step)
        lengths.add(batch.clip.frames.shape[1])
    assert lengths == {5, 6, 7, 8}


def test_controls_draw_one_candidate_or_none(source):
    mix, _ = scored([1.0] * 2)
    batch, _ = next_batch(config(objective="self-rollout"), tiny_world(), source, range(2), mix, 0)
    assert batch.branches.sample.shape[:2] == (2, 1)
    batch, row = next_batch(config(objective="teacher-forced"), tiny_world(), source, range(2), mix, 0)
    assert isinstance(batch, RecordedBatch) and row == {}


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("nft", UpdateWeights(1.0, 0.0, 0.5, 0.25)),
        ("self-rollout", UpdateWeights(0.0, 1.0, 0.5, 0.25)),
        ("combined", UpdateWeights(1.0, 2.0, 0.5, 0.25)),
        ("teacher-forced", UpdateWeights(0.0, 0.0, 0.5, 0.25)),
    ],
)
def test_an_objective_is_its_terms(objective, expected):
    assert config(objective=objective, kl_weight=0.5, beta=0.25, supervision=2.0).update_weights == expected


def test_executability_is_in_units_of_the_base_models_rollouts(source, tmp_path):
    torch.manual_seed(0)
    dynamics = InverseDynamics(InverseDynamicsConfig(("top", "wrist"), (16, 24), 2, {0: 0, 1: 1}, keypoints=4, width=8))
    dynamics.std.fill_(1e4)
    limits = Limits.of([torch.randn(9, 2, generator=torch.Generator().manual_seed(0))], displacement=True)
    seen = []
    mix, _ = scored([0.0] * 6)
    reward = Executability(dynamics, limits, typical=1.0)
    look = {"fidelity": lambda rollout: seen.append(rollout) or torch.arange(6.0)}
    mix = replace(mix, rewards={**look, "executability": reward}, weights={"fidelity": 1.0, "executability": 1.0})
    found = measure_spread(config(tmp_path), tiny_world(), source, range(2), mix)
    excess = penalty(dynamics.decode(seen[0].imagined), limits)
    assert found.rewards["executability"].typical == pytest.approx(excess.median().item())
    assert found.rewards["executability"].typical != 1.0 and found.weights == mix.weights
    spread = json.loads((tmp_path / "spread.json").read_text())["fidelity"]
    # 0, 1, 2 and 3, 4, 5: deviation of each is the root of 2 / 3, their means are 1 and 4
    assert spread == {"within": pytest.approx((2 / 3) ** 0.5), "between": pytest.approx(1.5)}
    supervised = config(tmp_path / "none", objective="self-rollout")
    assert measure_spread(supervised, tiny_world(), source, range(2), mix) is mix


def test_without_noise_candidates_repeat_the_dream_under_the_recorded_actions():
    """Two frames of context, two of prefix under actions 1 and 2, two of branch under actions 3 and 4."""
    world = tiny_world()
    world.config = replace(world.config, temperature=0.0)
    clip = random_clip(world, frames=6)
    settings = {"context": 2, "prefix": 2, "candidates": 2, "num_steps": 2, "temperature": 0.0}
    branches, rollout = draw_branches(world, clip, seeds=[5, 9], **settings)
    dream = world.rollout(clip.head(2), clip.actions[:, 1:])
    for candidate in range(2):
        shown = rollout.imagined.frames[candidate::2]
        assert (shown.int() - dream.frames[:, 1:].int()).abs().max() <= 1
        torch.testing.assert_close(rollout.imagined.states[candidate::2], dream.states[:, 1:], atol=1e-3, rtol=1e-3)
    assert torch.equal(rollout.reference.frames[::2], clip.frames[:, 3:])
    assert torch.equal(rollout.reference.states[::2], clip.states[:, 3:])
    assert torch.equal(branches.actions, clip.actions[:, 3:])
    assert torch.equal(branches.truth, world.codec.encode(clip.frames)[:, 4:])
    assert torch.equal(branches.truth_states, clip.states[:, 4:])


def test_the_recorded_successes_go_with_the_recorded_frames():
    """Two frames of context and two of prefix: the branch begins at frame 3, and its first action is the fourth."""
    world = tiny_world()
    clip = random_clip(world, frames=6)
    clip = replace(clip, successes=torch.tensor([[True, True, True, False, True], [False] * 5]))
    settings = {"context": 2, "prefix": 2, "candidates": 2, "num_steps": 1, "temperature": 1.0}
    _, rollout = draw_branches(world, clip, seeds=[5, 9], **settings)
    assert rollout.reference.successes.tolist() == [[False, True]] * 2 + [[False, False]] * 2
    assert rollout.imagined.successes is None


@pytest.mark.parametrize("cell", [0, 5, 32])
def test_cells_have_to_fill_the_frames(cell):
    """Frames of 16 x 24 pixels; the latents are pixels."""
    check_cells(8, tiny_world())
    with pytest.raises(ValueError, match=f"--cell {cell}: cells have to fill frames of 16 x 24 pixels and fit latents"):
        check_cells(cell, tiny_world())


def test_the_past_of_a_branch_is_its_window_and_the_first_frame():
    """The window has 4 frames, the current one among them; frame 0 is pinned."""
    world = tiny_world()
    clip = random_clip(world, frames=9)
    settings = {"context": 6, "prefix": 1, "candidates": 2, "num_steps": 1, "temperature": 1.0}
    branches, _ = draw_branches(world, clip, seeds=[5, 9], **settings)
    assert branches.index.tolist() == [0, 3, 4, 5, 6]
    seen = world.codec.encode(clip.frames)[:, [0, 3, 4, 5]]
    assert torch.equal(branches.past, seen)
    assert torch.equal(branches.past_states, clip.states[:, [0, 3, 4, 5]])
    assert torch.equal(branches.past_actions, clip.actions[:, [0, 3, 4, 5]])


def test_the_old_policy_begins_as_the_trained_one():
    base = tiny_world()
    world, old = policies(config(), base)
    pairs = zip(base.parameters(), world.parameters(), old.parameters(), strict=True)
    assert all(torch.equal(a, b) and torch.equal(a, c) and b is not c and a is not b for a, b, c in pairs)
