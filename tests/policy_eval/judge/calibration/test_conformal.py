"""Two thresholds between which a judge is unsure, and what they promise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from square_world import SquareEnv, square_policy
from tiny import tiny_world

from policy_eval.judge.calibration.calibrate import CalibrateConfig, calibrate_judge, counts
from policy_eval.judge.calibration.conformal import Band, conformal_band, needed_rollouts
from policy_eval.judge.calibration.page import meaning
from policy_eval.judge.calibration.scores import recorded_scores
from policy_eval.judge.goals.judge import GoalJudge, GoalShape
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.policy import CallablePolicy
from policy_eval.real_rollouts import record_rollouts
from worldmodel.data import open_episodes
from worldmodel.dreams.verdict import scored_verdict


def held(scores, outcomes):
    return np.array(scores), np.array(outcomes, np.float64)


@pytest.mark.parametrize(("error", "needed"), [(0.1, 9), (0.2, 4), (0.25, 3), (0.05, 19)])
def test_so_few_rollouts_are_enough(error, needed):
    scores, outcomes = held([0.1] * needed + [0.9] * needed, [0] * needed + [1] * needed)
    assert needed_rollouts(error) == needed
    conformal_band(scores, outcomes, 0.5, error)
    for kept in (slice(1, None), slice(None, -1)):
        with pytest.raises(ValueError, match=f"data: --error {error:g} takes at least {needed} failures and {needed}"):
            conformal_band(scores[kept], outcomes[kept], 0.5, error, "data")


@pytest.mark.parametrize("error", [0.0, 0.5, -0.1])
def test_an_error_out_of_range_is_refused(error):
    with pytest.raises(ValueError, match=r"--error is above 0 and below 0\.5"):
        conformal_band(*held([0.1, 0.9], [0, 1]), 0.5, error)


@pytest.mark.parametrize(("before", "threshold"), [(0.5, 0.5), (0.1, 0.3), (0.95, 0.7)])
def test_one_threshold_is_enough_where_the_classes_are_apart(before, threshold):
    """Of four failures one may be above, of four successes one below: at an error of 0.2 none may."""
    scores, outcomes = held([0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 1.0], [0] * 4 + [1] * 4)
    band = conformal_band(scores, outcomes, before, 0.2)
    assert band.doubt is None and band.threshold == pytest.approx(threshold)
    assert band.verdicts(scores).tolist() == outcomes.tolist()


def test_between_overlapping_classes_it_is_unsure():
    """With an error of 0.2 and four of each class, no failure lies above the first threshold, no success below the
    second."""
    scores, outcomes = held([0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9], [0] * 4 + [1] * 4)
    band = conformal_band(scores, outcomes, 0.5, 0.2)
    assert band == Band(0.6, 0.4)
    assert np.array_equal(band.verdicts(scores), [0, 0, 0, np.nan, np.nan, 1, 1, 1], equal_nan=True)
    assert counts(band.verdicts(scores), outcomes) == {"false_successes": 0, "false_failures": 0, "unsure": 2}
    assert counts(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == {
        "false_successes": 1,
        "false_failures": 1,
        "unsure": 0,
    }


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_both_classes_keep_the_promise_whatever_the_share_of_successes(share):
    """Averaged over 400 calibrations on 40 rollouts, each tried on 400 new ones of another share of successes."""
    generator = np.random.default_rng(0)

    def drawn(number, successes):
        outcomes = (generator.random(number) < successes).astype(np.float64)
        outcomes[:24] = np.arange(24) % 2
        scores = 1 / (1 + np.exp(-(2 * outcomes - 1 + generator.normal(size=number))))
        return scores, outcomes

    wrong = np.zeros((400, 2))
    for row in wrong:
        band = conformal_band(*drawn(40, 0.5), 0.5, 0.1)
        scores, outcomes = drawn(400, share)
        found, number = counts(band.verdicts(scores), outcomes), int(outcomes.sum())
        row[:] = found["false_successes"] / (400 - number), found["false_failures"] / number
    assert (wrong.mean(0) < 0.1).all() and (wrong.mean(0) > 0.04).all()


def test_a_judge_says_that_it_is_unsure():
    scores = torch.tensor([0.1, 0.4, 0.6, 0.7])
    verdict = scored_verdict(scores, scores, 0.6, 0.4)
    assert verdict.successes.tolist() == [False, False, False, True]
    assert verdict.unsure.tolist() == [False, True, True, False]
    assert scored_verdict(scores, scores, 0.6, None).unsure is None


@pytest.mark.parametrize("kind", ["learned", "goals"])
def test_both_thresholds_are_saved(tmp_path, kind):
    shape, goals = (("top",), (16, 16)), torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)
    made = {
        "learned": lambda: LearnedJudge(JudgeShape(*shape, width=8), threshold=0.7, doubt=0.2),
        "goals": lambda: GoalJudge(GoalShape(*shape, width=8), goals, threshold=0.7, doubt=0.2),
    }[kind]()
    made.save(tmp_path)
    again = type(made).load(tmp_path)
    assert (again.threshold, again.doubt) == (0.7, 0.2)
    if kind == "goals":
        assert again.with_goals(goals).doubt == 0.2


class NamedSquare(SquareEnv):
    """As in test_calibrate.py."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    stops_on_success = True


@pytest.fixture
def config(tmp_path):
    """Six rollouts of a policy that reaches the goal and of one that stays where it is."""
    speeds = {"a": 2.0, "b": 0.0}
    policies = {
        name: CallablePolicy(lambda seen, x=x: seen["observation.state"] + torch.tensor([x, 0.0]))
        for name, x in speeds.items()
    }
    data = record_rollouts(
        policies, NamedSquare(), tmp_path / "squares", episodes=6, horizon=8, seed=1, name="mine:Square", play_on=True
    )
    for name in speeds:
        square_policy().save(tmp_path / "policies" / name)
    tiny_world(size=(16, 16)).save(tmp_path / "world")
    LearnedJudge(JudgeShape(("top", "wrist"), (16, 16), width=8)).save(tmp_path / "judge")
    return CalibrateConfig(tmp_path / "judge", data, tmp_path / "out", 8, error=0.3)


def test_real_frames_are_enough_for_an_error(config):
    found = calibrate_judge(config)
    judge = LearnedJudge.load(config.out)
    assert found["frames"] == "recorded" and (found["failures"], found["successes"]) == (3, 3)
    assert (found["threshold"], found["doubt"]) == (judge.threshold, judge.doubt)
    assert json.loads((config.out / "calibration.json").read_text()) == found
    assert "data:image/png" in (config.out / "report.html").read_text()


def test_every_frame_but_the_first_counts_up_to_the_horizon(config):
    """In one of the rollouts the first frame has the highest score."""
    source, judge = open_episodes(config.data), LearnedJudge.load(config.judge)
    seen = [judge.score(source.read(e, 0, 4).frames).numpy() for e in range(6)]
    scores = recorded_scores(judge, source, range(6), 2, config.out.parent / "log")
    turned = recorded_scores(LearnedJudge.load(config.judge), source, [5, 0], 2, config.out.parent / "log")
    np.testing.assert_allclose(scores, [each[1:3].max() for each in seen], atol=1e-5)
    np.testing.assert_allclose(turned, scores[[5, 0]], atol=1e-5)
    assert max(each[0] - each[1:3].max() for each in seen) > 1e-4


def test_dreams_are_calibrated_on_as_well(config):
    folder = config.out.parent
    policies = tuple(folder / "policies" / name for name in "ab")
    found = calibrate_judge(replace(config, world=folder / "world", policies=policies, num_steps=1, num_envs=3))
    assert found["frames"] == "dreamed" and found["failures"] + found["successes"] == 6


def test_options_that_contradict_each_other_are_refused(config):
    for change, said in (
        ({"error": None}, "needs --world and --policies, or --error"),
        ({"world": config.judge}, "--world is given and --policies is not"),
        ({"policies": (config.judge,)}, "--policies is given and --world is not"),
        ({"always": True}, "--always goes with one threshold, --error 0.3 sets two"),
        ({"error": 0.1}, "--error 0.1 takes at least 9 failures and 9 successes, there are 3 and 3"),
    ):
        with pytest.raises(ValueError, match=said):
            calibrate_judge(replace(config, **change))


def test_the_promise_in_words():
    none = {"false_successes": 0, "false_failures": 0, "unsure": 0}
    found = {"error": 0.1, "episodes": 20, "failures": 10, "successes": 10, "frames": "dreamed"}
    found |= {"threshold": 0.6, "doubt": 0.4, "now": none | {"unsure": 5}, "before": none | {"false_successes": 3}}
    first, second, third = meaning(found)
    assert "at most 10% of the failures a success" in first and "dreams from their starts" in first
    assert second.startswith("It decides 15 of these 20 rollouts (75%)") and "Before, 3 and 0 were wrong." in second
    assert "above 0.6." in third and "at least 0.4 and none" in third
    assert "never unsure" in meaning(found | {"doubt": None})[2]
