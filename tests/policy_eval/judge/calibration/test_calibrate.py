"""A judge's threshold, set so that dreams succeed as often as reality did."""

import json
import math
import runpy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from places import BENCHMARKS
from rank_set import write_rank_set
from square_world import SquareEnv, square_policy, write_episodes
from tiny import tiny_world

from policy_eval.judge.calibration.calibrate import CalibrateConfig, calibrate_judge, chosen_actors, rows_of
from policy_eval.judge.calibration.scores import Dreamer, Dreaming, Listener, dreamt_scores, real_successes
from policy_eval.judge.calibration.threshold import matching_threshold, new_threshold
from policy_eval.judge.goals.judge import GoalJudge, GoalShape
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.find import find_policies
from policy_eval.policies.policy import CallablePolicy
from policy_eval.real_rollouts import record_rollouts
from worldmodel.data import open_episodes
from worldmodel.data.lerobot.read import recorded_policies
from worldmodel.data.options import ColumnOptions
from worldmodel.envs import make_env
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_rank_set(tmp_path_factory.mktemp("calibration"), policies=2, episodes=5)


@pytest.fixture(scope="module")
def rollouts(made, tmp_path_factory):
    """Five short rollouts of both policies."""
    policies = {name: ClonedPolicy.load(folder) for name, folder in find_policies((made.policies,)).items()}
    return record_rollouts(
        policies, make_env("pusht-position"), tmp_path_factory.mktemp("rollouts"), episodes=5, horizon=4, seed=9
    )


@pytest.fixture
def config(made, rollouts, tmp_path):
    few = {"horizon": 3, "num_envs": 2, "num_steps": 1}
    return CalibrateConfig(
        made.judge, rollouts, tmp_path / "out", world=str(made.world), policies=(made.policies,), **few
    )


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.95), (0.25, 0.8), (0.5, 0.6), (0.75, 0.4), (1.0, 0.15)])
def test_the_wanted_share_of_scores_exceeds_the_threshold(share, expected):
    scores = np.array([0.5, 0.9, 0.3, 0.7])
    threshold = matching_threshold(scores, share)
    assert threshold == pytest.approx(expected)
    assert (scores > threshold).mean() == share


def test_a_success_counts_within_the_horizon_only(tmp_path):
    """Squares that begin at x = 0, 4 and 5 reach 10 with the fifth and the third action."""
    source = open_episodes(write_episodes(tmp_path, 3))
    first = [float(source.read(episode, 0, 1).states[0, 0]) for episode in range(3)]
    needed = [math.ceil((10 - x) / 2) for x in first]
    assert len(set(needed)) > 1
    for horizon in (min(needed) - 1, min(needed), max(needed)):
        expected = [float(steps <= horizon) for steps in needed]
        assert real_successes(source, [0, 1, 2], horizon).tolist() == expected
        assert real_successes(source, [2, 0], horizon).tolist() == [expected[2], expected[0]]


@pytest.mark.parametrize("succeed", [0, 2, 5])
def test_as_many_dreams_succeed_as_rollouts(succeed):
    scores = np.array([0.1, 0.7, 0.3, 0.9, 0.2])
    real = np.array([1.0] * succeed + [0.0] * (5 - succeed))
    threshold, _ = new_threshold(scores, real, 0.5, always=True)
    assert (scores > threshold).sum() == succeed


@pytest.mark.parametrize(("dreamed", "moves"), [([1, 1, 1, 1, 0], True), ([1, 0, 0, 0, 0], False)])
def test_a_difference_by_chance_moves_nothing(dreamed, moves):
    """No rollout succeeds; of the dreams four in five, which is no chance, or one, which may be."""
    scores = np.array([0.6 if success else 0.1 * i for i, success in enumerate(dreamed)])
    threshold, (low, high) = new_threshold(scores, np.zeros(5), 0.5, always=False)
    assert (threshold != 0.5) == moves
    assert (low > 0) == moves and high > 0
    assert new_threshold(scores, 1 - np.zeros(5), 0.5, always=True)[1][1] <= 0


def test_the_highest_score_of_every_stream_is_remembered(made):
    judge = LearnedJudge.load(made.judge)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (3, 2, 2, 64, 64, 3), dtype=torch.uint8, generator=generator)
    listener = Listener(judge)
    verdicts = [listener(Observation(each, None)) for each in frames]
    scores, rewards = judge.predict(frames.flatten(0, 1))
    np.testing.assert_allclose(listener.highest, scores.unflatten(0, (3, 2)).amax(0), atol=1e-5)
    torch.testing.assert_close(torch.stack([v.rewards for v in verdicts]), rewards.unflatten(0, (3, 2)))
    assert not any(v.successes.any() for v in verdicts)


def test_what_is_found_is_written_and_the_judge_has_the_new_threshold(config):
    """No rollout of three steps succeeds."""
    found = calibrate_judge(replace(config, always=True))
    assert found["dreamed"] == found["real"] == 0
    assert found["threshold_before"] == LearnedJudge.load(config.judge).threshold == 0.5
    assert LearnedJudge.load(config.out).threshold == found["threshold"] > 0.5
    assert json.loads((config.out / "calibration.json").read_text()) == found


def test_a_judge_of_goals_is_calibrated_as_well(config, made):
    known = LearnedJudge.load(made.judge).shape
    goals = torch.zeros(2, len(known.views), *known.size, 3, dtype=torch.uint8)
    GoalJudge(GoalShape(known.views, known.size, width=8), goals, threshold=0.2).save(config.out.parent / "goals")
    found = calibrate_judge(replace(config, judge=config.out.parent / "goals", always=True))
    again = GoalJudge.load(config.out)
    assert again.threshold == found["threshold"] != 0.2 and torch.equal(again.goals, goals)


def test_every_dream_is_listened_to_apart(config, made):
    """The same scores come out however many dreams run side by side."""
    world, judge = WorldModel.load(config.world), LearnedJudge.load(config.judge)
    policies = {name: ClonedPolicy.load(folder) for name, folder in find_policies((made.policies,)).items()}
    source = open_episodes(config.data, size=tuple(world.size), views=world.views)
    parts = world, judge, policies, source, {"policy-0": [0, 2, 4], "policy-1": [1, 3]}
    log = config.out.parent / "log"
    pairs, threes = (Dreamer(Dreaming(number, 3, 1, 0, log), *parts) for number in (2, 3))
    assert pairs.parts == [("policy-0", 0), ("policy-0", 2), ("policy-1", 0)]
    together = [(number, pairs.scores(part)) for number, part in enumerate(pairs.parts)]
    two, three = dreamt_scores(pairs, together), dreamt_scores(threes, enumerate(map(threes.scores, threes.parts)))
    assert len(set(two.tolist())) == 5
    np.testing.assert_allclose(two, three, atol=1e-3)
    assert (dreamt_scores(pairs, reversed(together)) == two).all()


@pytest.mark.slow
def test_processes_share_the_dreams(config):
    alone = calibrate_judge(replace(config, always=True))
    assert calibrate_judge(replace(config, always=True, overwrite=True, workers=2)) == alone


class NamedSquare(SquareEnv):
    """It can be stepped on after a success, as the environments of this package can."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    stops_on_success = True


@pytest.fixture
def squares(tmp_path):
    """Five rollouts of two policies that push a square to the right, which takes 3 to 5 steps."""
    right = CallablePolicy(lambda seen: seen["observation.state"] + torch.tensor([2.0, 0.0]))
    data = record_rollouts(
        {"a": right, "b": right}, NamedSquare(), tmp_path / "squares", episodes=5, horizon=8, seed=1, name="mine:Square"
    )
    for name in "ab":
        square_policy().save(tmp_path / "policies" / name)
    tiny_world(size=(16, 16), stride=2).save(tmp_path / "world")
    LearnedJudge(JudgeShape(("top", "wrist"), (16, 16), width=8)).save(tmp_path / "judge")
    few = {"horizon": 3, "num_envs": 5, "num_steps": 1}
    policies = tuple(tmp_path / "policies" / name for name in "ab")
    out, world = tmp_path / "out", tmp_path / "world"
    return CalibrateConfig(tmp_path / "judge", data, out, world=world, policies=policies, **few)


def test_the_horizon_counts_actions_that_are_held_over_the_stride(squares):
    """Within 3 steps not all rollouts succeed, within 3 times 2 they do."""
    source = open_episodes(squares.data)
    assert real_successes(source, range(5), 3).mean() < 1
    assert calibrate_judge(squares)["real"] == 1


def test_broken_rollouts_are_left_out_and_the_others_keep_their_actors(squares):
    """Without the first one, b acted in the first that is left."""
    file = squares.data / "data" / "chunk-000" / "file-000.parquet"
    rows = pq.read_table(file)
    place = rows.column_names.index("action")
    actions = [[math.nan, math.nan], *rows["action"].to_pylist()[1:]]
    pq.write_table(rows.set_column(place, "action", pa.array(actions, rows.schema.field("action").type)), file)
    with pytest.raises(ValueError, match=r"episode 0 of 5 is broken.*--skip-broken leaves them out"):
        calibrate_judge(squares)
    kept = replace(squares, columns=ColumnOptions(skip_broken=True))
    found = calibrate_judge(replace(kept, policies=squares.policies[1:], episodes=1))
    assert (found["episodes"], found["by_others"]) == (1, 0)
    with pytest.raises(ValueError, match="has 4 rollouts, --episodes is 5, --skip is 0"):
        calibrate_judge(replace(kept, episodes=5, overwrite=True))
    with pytest.raises(ValueError, match="no_such_column"):
        calibrate_judge(replace(squares, columns=ColumnOptions(True, ("no_such_column",)), overwrite=True))


ACTORS = ("policy-0", "policy-1", "policy-0", "policy-1", "policy-0")


@pytest.mark.parametrize(("episodes", "skip"), [(0, 0), (6, 0), (3, 3), (3, -1)])
def test_too_few_rollouts_are_refused(config, episodes, skip):
    said = f"data: has 5 rollouts, --episodes is {episodes}, --skip is {skip}"
    with pytest.raises(ValueError, match=said):
        chosen_actors(replace(config, episodes=episodes, skip=skip), "data", ACTORS)


def test_known_rollouts_are_left_out_from_the_front(config):
    assert chosen_actors(config, "data", ACTORS) == dict(enumerate(ACTORS))
    assert chosen_actors(replace(config, episodes=4, skip=3), "data", ACTORS) == {3: "policy-1"}
    assert list(chosen_actors(replace(config, episodes="2:4,0"), "data", ACTORS)) == [2, 3, 0]
    with pytest.raises(ValueError, match="--skip 1 goes with a number of rollouts, --episodes is 0:2"):
        chosen_actors(replace(config, episodes="0:2", skip=1), "data", ACTORS)


def test_each_policy_dreams_from_its_own_rollouts(rollouts):
    """Whose they are is read from the data, whatever the order of the policies is now."""
    assert recorded_policies(rollouts) == ACTORS
    assert rows_of("data", dict(enumerate(ACTORS)), ["policy-1", "policy-0"]) == {
        "policy-1": [1, 3],
        "policy-0": [0, 2, 4],
    }


def test_rollouts_of_others_are_left_out_and_counted(config, made):
    found = calibrate_judge(replace(config, policies=(made.policies / "policy-1",)))
    assert (found["episodes"], found["by_others"]) == (2, 3)


def test_a_policy_without_rollouts_is_refused(config, made):
    with pytest.raises(ValueError, match=r"no rollouts by \['policy-1'\].*by \['policy-0'\]"):
        calibrate_judge(replace(config, episodes=1))
    with pytest.raises(ValueError, match=r"by \['None'\]"):
        calibrate_judge(replace(config, data=made.starts))


def test_what_graded_policies_do_is_recorded_by_name(made, tmp_path, monkeypatch):
    """`benchmarks/rollouts.py` plays on for the whole horizon of the task."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script, out = runpy.run_path(str(BENCHMARKS / "rollouts.py")), tmp_path / "recorded"
    script["main"](script["RolloutsConfig"]("pusht-position", out, policies=(made.policies,), episodes=3))
    assert recorded_policies(out) == ("policy-0", "policy-1", "policy-0")
    source = open_episodes(out)
    assert set(source.lengths) == {60}
    assert [source.reset_seed(e) for e in range(3)] == [7_700_000, 7_700_001, 7_700_002]
