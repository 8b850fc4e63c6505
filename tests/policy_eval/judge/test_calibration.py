"""A judge's threshold, set so that dreams succeed as often as reality did."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from places import ROOT
from rank_set import write_rank_set

from policy_eval.judge import calibration
from policy_eval.judge.calibration import CalibrateConfig, calibrate_judge, matching_threshold, real_successes
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.find import find_policies
from policy_eval.real_rollouts import record_rollouts
from worldmodel.data import open_episodes
from worldmodel.data.clip import Clip
from worldmodel.data.lerobot.read import recorded_policies
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env


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
    return CalibrateConfig(
        str(made.world), made.judge, (made.policies,), rollouts, tmp_path / "out", horizon=3, num_envs=2, num_steps=1
    )


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.95), (0.25, 0.8), (0.5, 0.6), (0.75, 0.4), (1.0, 0.15)])
def test_the_wanted_share_of_scores_exceeds_the_threshold(share, expected):
    scores = np.array([0.5, 0.9, 0.3, 0.7])
    threshold = matching_threshold(scores, share)
    assert threshold == pytest.approx(expected)
    assert (scores > threshold).mean() == share


def test_a_success_counts_within_the_horizon_only(made, monkeypatch):
    source = open_episodes(made.starts)
    recorded = type(source).read

    def read(self, episode: int, start: int, stop: int) -> Clip:
        clip = recorded(self, episode, start, stop)
        clip.successes[:] = False
        if episode:
            clip.successes[episode + 2] = True  # by the fourth action, the fifth, ...
        return clip

    monkeypatch.setattr(type(source), "read", read)
    assert real_successes(source, [0, 1, 2], horizon=4).tolist() == [0, 1, 0]
    assert real_successes(source, [0, 1, 2], horizon=5).tolist() == [0, 1, 1]


@pytest.mark.parametrize("succeed", [0, 2, 5])
def test_as_many_dreams_succeed_as_rollouts(config, monkeypatch, succeed):
    real = np.array([1.0] * succeed + [0.0] * (5 - succeed))
    monkeypatch.setattr(calibration, "real_successes", lambda *_: real)
    found = calibrate_judge(replace(config, always=True))
    assert found["dreamt"] == found["real"] == succeed / 5
    assert found["threshold_before"] == LearnedJudge.load(config.judge).threshold == 0.5
    assert LearnedJudge.load(config.out).threshold == found["threshold"]
    assert json.loads((config.out / "calibration.json").read_text()) == found


@pytest.mark.parametrize(("dreamt", "moves"), [([1, 1, 1, 1, 0], True), ([1, 0, 0, 0, 0], False)])
def test_a_difference_by_chance_moves_nothing(config, monkeypatch, dreamt, moves):
    """No rollout succeeds; of the dreams four in five, which is no chance, or one, which may be."""
    scores = np.array([0.6 if success else 0.1 * i for i, success in enumerate(dreamt)])
    monkeypatch.setattr(calibration, "real_successes", lambda *_: np.zeros(5))
    monkeypatch.setattr(calibration, "dreamt_scores", lambda *_: scores)
    found = calibrate_judge(config)
    assert found["dreamt_before"] == sum(dreamt) / 5
    assert (found["threshold"] != 0.5) == moves
    low, high = found["difference_before"]
    assert (low > 0) == moves and high > 0


def test_every_dream_is_listened_to_apart(config, monkeypatch):
    """The same scores come out however many dreams run side by side."""
    heard = []
    match = calibration.matching_threshold
    monkeypatch.setattr(calibration, "matching_threshold", lambda s, r: heard.append(s) or match(s, r))
    calibrate_judge(config)
    calibrate_judge(replace(config, num_envs=3))
    assert len(set(heard[0].tolist())) == 5
    np.testing.assert_allclose(heard[0], heard[1], atol=1e-3)


@pytest.mark.parametrize(("episodes", "skip"), [(0, 0), (6, 0), (3, 3), (3, -1)])
def test_too_few_rollouts_are_refused(config, episodes, skip):
    said = f"has 5 rollouts, --episodes is {episodes}, --skip is {skip}"
    with pytest.raises(ValueError, match=said):
        calibrate_judge(replace(config, episodes=episodes, skip=skip))


def test_each_policy_dreams_from_its_own_rollouts(config, made, monkeypatch):
    """Whose they are is read from the data, whatever the order of the policies is now."""
    asked = []
    monkeypatch.setattr(calibration, "Starts", lambda source, rows: asked.append(rows) or Starts(source, rows))
    calibrate_judge(replace(config, policies=(made.policies / "policy-1", made.policies / "policy-0")))
    assert asked == [[1, 3], [0, 2, 4]]
    calibrate_judge(replace(config, skip=3))
    assert asked[2:] == [[4], [3]], "policies by name again, known rollouts left out"


def test_rollouts_of_others_are_left_out_and_counted(config, made):
    found = calibrate_judge(replace(config, policies=(made.policies / "policy-1",)))
    assert (found["episodes"], found["by_others"]) == (2, 3)


def test_a_policy_without_rollouts_is_refused(config, made):
    with pytest.raises(ValueError, match=r"no rollouts by \['policy-1'\].*by \['policy-0'\]"):
        calibrate_judge(replace(config, episodes=1))
    with pytest.raises(ValueError, match=r"by \['None'\]"):
        calibrate_judge(replace(config, data=made.starts))


def test_what_graded_policies_do_is_recorded_by_name(made, tmp_path):
    """`benchmarks/rollouts.py` plays on for the whole horizon of the task."""
    out = tmp_path / "recorded"
    command = [
        sys.executable,
        "benchmarks/rollouts.py",
        "--task",
        "pusht-position",
        "--policies",
        str(made.policies),
        "--episodes",
        "3",
        "--out",
        str(out),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert recorded_policies(out) == ("policy-0", "policy-1", "policy-0")
    source = open_episodes(out)
    assert set(source.lengths) == {60}
    assert [source.reset_seed(e) for e in range(3)] == [7_700_000, 7_700_001, 7_700_002]
