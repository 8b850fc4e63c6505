"""Policies that are shown a goal: the pairs that they learn from, the features that they see, and what they learn."""

import pytest
import torch
from square_world import write_episodes

from policy_eval.policies.clone import CloneConfig, check_clone, read_demonstrations
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig, make_policy
from policy_eval.policies.goal_pictures import write_goals
from policy_eval.policies.hindsight import FRAMES, Pairs, draw_pairs, hindsight_loss
from worldmodel.cli import main
from worldmodel.data import open_episodes

LOOKS = {"views": ("top",), "size": (16, 16), "action_dim": 2, "state_dim": 2}


def goal_policy(goals: int = 2, **settings) -> ClonedPolicy:
    torch.manual_seed(0)
    policy = make_policy(PolicyConfig(**LOOKS, goals=goals, **settings)).eval()
    policy.goals.copy_(pictures(goals, seed=1))
    return policy


def pictures(number: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 1, 16, 16, 3), dtype=torch.uint8, generator=generator)


def test_a_goal_is_a_later_frame_of_the_same_episode():
    """Episodes of 3, 1 and 20 frames lie at 0, 3 and 4; the second has no later frame."""
    lengths, seen = (3, 1, 20), set()
    for seed in range(20):
        pairs = draw_pairs(lengths, 2 * FRAMES, torch.Generator().manual_seed(seed))
        start, goal = pairs.rows[pairs.start], pairs.rows[pairs.goal]
        episodes = torch.tensor([0] * 3 + [1] + [2] * 20)
        assert bool((goal > start).all()) and torch.equal(episodes[start], episodes[goal])
        seen |= set(zip(start.tolist(), goal.tolist(), strict=True))
    assert {(0, 1), (0, 2), (1, 2)} <= seen and len(seen) > 150
    assert max(goal for _, goal in seen) == 23


def test_episodes_without_a_later_frame_are_refused_or_left_out():
    with pytest.raises(ValueError, match="the longest of 2 episodes has 1 frames to learn from, 2 are needed"):
        draw_pairs((1, 0), FRAMES, torch.Generator())
    assert draw_pairs((0, 2), FRAMES, torch.Generator()).rows.tolist() == [0, 1]


def test_each_frame_is_paired_with_every_later_one_of_its_draw():
    pairs = draw_pairs((30,), 3 * FRAMES, torch.Generator().manual_seed(0))
    assert len(pairs.rows) == 3 * FRAMES and len(pairs.start) == 3 * FRAMES * (FRAMES - 1) // 2
    assert torch.equal(pairs.start // FRAMES, pairs.goal // FRAMES)


def test_the_goal_is_the_mean_of_the_keypoints_of_its_pictures():
    policy, states = goal_policy(), torch.ones(3, 2)
    frames = pictures(3)
    looked, goal = policy.look(frames), policy.look(policy.goals).mean(0)
    expected = torch.cat([looked, states, goal.expand(3, -1), looked - goal], 1)
    torch.testing.assert_close(policy.features(frames, states), expected)
    assert policy.num_features == expected.shape[1]


def test_a_policy_learns_to_go_where_the_goal_is():
    """The goal lies left or right of the frame, and so does the demonstrated plan."""
    torch.manual_seed(0)
    policy = goal_policy(1, width=16)
    looked = torch.zeros(4, policy.look(pictures(1)).shape[1])
    looked[1, 0], looked[3, 0] = 1.0, -1.0
    plans = torch.tensor([[1.0, 0.0], [9.0, 9.0], [-1.0, 0.0], [9.0, 9.0]])[:, None]  # those of goals are not learned
    pairs = Pairs(torch.arange(4), torch.tensor([0, 2]), torch.tensor([1, 3]))
    optimizer = torch.optim.Adam(policy.head.parameters(), lr=1e-2)
    for _ in range(60):
        loss = hindsight_loss(policy, looked, torch.zeros(4, 2), plans, pairs, torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    features = policy.join(looked[[0, 0]], torch.zeros(2, 2), looked[[1, 3]])
    torch.testing.assert_close(policy.plans(features)[:, 0, 0], torch.tensor([1.0, -1.0]), atol=0.1, rtol=0)


def test_goals_are_saved_with_the_policy(tmp_path):
    policy = goal_policy(3, head="flow", chunk=2)
    policy.save(tmp_path / "policy", dtype=torch.float32)
    loaded = ClonedPolicy.load(tmp_path / "policy")
    assert loaded.config.goals == 3 and torch.equal(loaded.goals, policy.goals)
    frames, states = pictures(2, seed=3), torch.zeros(2, 2)
    torch.testing.assert_close(loaded(frames, states), policy(frames, states))


def test_failures_are_read_to_their_end_when_there_is_a_goal(tmp_path):
    data = open_episodes(write_episodes(tmp_path / "data", 4, failures=1))
    rows = read_demonstrations(CloneConfig(tmp_path, tmp_path, goals=tmp_path), data, ("top",))
    assert rows.lengths == tuple(length - 1 for length in data.lengths) and rows.episodes == 4


def test_an_option_that_reads_successes_is_refused(tmp_path):
    data = open_episodes(write_episodes(tmp_path / "data", 2))
    with pytest.raises(ValueError, match="--longest 3 does not go with --goals"):
        check_clone(CloneConfig(tmp_path, tmp_path, goals=tmp_path, longest=3), data)


def test_the_command_clones_a_policy_with_a_goal(tmp_path):
    data = write_episodes(tmp_path / "data", 4)
    frames = open_episodes(data).read(0, 0, 8).frames
    write_goals(tmp_path / "goals", ("top", "wrist"), frames[-2:])
    call = ["clone", "--data", str(data), "--out", str(tmp_path / "policy"), "--steps", "3", "--views", "top"]
    assert main([*call, "--goals", str(tmp_path / "goals"), "--batch", "16"]) == 0
    policy = ClonedPolicy.load(tmp_path / "policy")
    assert torch.equal(policy.goals, frames[-2:, :1]) and policy.config.views == ("top",)
