"""Adaptation by hindsight: what learns, which policy is kept, and that a stopped run goes on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from square_world import SquareEnv, square_policy, write_episodes

from policy_eval.policies.cloned import ClonedPolicy, make_policy
from policy_eval.real_rollouts import roll_out
from rl_posttrain.adaptation.adapt import adapt, environment, first_seed, fit_head, rollout_rows, try_both
from rl_posttrain.adaptation.config import AdaptConfig, check_numbers
from rl_posttrain.adaptation.page import meaning
from worldmodel.cli import main
from worldmodel.data import open_episodes

SQUARE = "square_world:SquareEnv"


def goal_policy(**settings) -> ClonedPolicy:
    torch.manual_seed(0)
    return make_policy(replace(square_policy().config, goals=1, **settings)).eval()


def config(folder: Path, **settings) -> AdaptConfig:
    defaults = {"episodes": 2, "rounds": 2, "horizon": 4, "steps": 3, "device": "cpu"}
    return AdaptConfig(**{"policy": folder / "clone", "real": SQUARE, "out": folder / "out"} | defaults | settings)


def going(*displacement: float) -> ClonedPolicy:
    """A policy that always goes the same way."""
    policy = square_policy()
    policy.head[-1].weight.data.zero_()
    policy.head[-1].bias.data.zero_()
    policy.action_mean.copy_(torch.tensor(displacement))
    return policy


def test_only_the_head_learns_and_it_learns_what_was_done(tmp_path):
    """Every action goes 2 to the right, whatever the goal is."""
    policy = goal_policy()
    before = {name: each.clone() for name, each in policy.state_dict().items()}
    rows = rollout_rows(policy, open_episodes(write_episodes(tmp_path / "data", 3)))
    assert rows.frames.shape[1:] == (1, 16, 16, 3) and rows.episodes == 3
    fit_head(policy, rows, config(tmp_path, steps=60, learning_rate=1e-2))
    changed = {name.split(".")[0] for name, each in policy.state_dict().items() if not torch.equal(each, before[name])}
    assert changed == {"head"}
    planned = policy.commands(policy(rows.frames, rows.states), torch.zeros_like(rows.states))[:, 0].mean(0)
    torch.testing.assert_close(planned, torch.tensor([2.0, 0.0]), atol=0.3, rtol=0)


@pytest.mark.parametrize(("clone", "adapted", "kept"), [(-2, 2, "adapted"), (2, -2, "clone"), (-2, -2, "clone")])
def test_the_policy_that_succeeds_more_often_is_kept(tmp_path, clone, adapted, kept):
    """To go right is to succeed."""
    found = try_both(config(tmp_path, trials=3, horizon=6), SquareEnv(), going(clone, 0), going(adapted, 0))
    assert found["kept"] == kept
    rates = found["trials"]["clone"], found["trials"]["adapted"]
    assert rates == (float(clone > 0), float(adapted > 0)) and found["trials"]["difference"] == rates[1] - rates[0]


def test_rounds_trials_and_seeds_never_share_a_start(tmp_path):
    firsts = [first_seed(config(tmp_path, seed=seed), part) for seed in range(3) for part in range(3)]
    assert len({first // 100_000 for first in firsts}) == len(firsts) and min(firsts) == 100_000_000


def test_a_stopped_adaptation_goes_on_with_the_rollouts_that_were_made(tmp_path, capsys):
    goal_policy().save(tmp_path / "clone", dtype=torch.float32)
    asked = config(tmp_path, trials=2, steps=20, learning_rate=1e-2)
    report = adapt(asked)
    folders = sorted((tmp_path / "out/rollouts").iterdir())
    assert [len(open_episodes(folder)) for folder in folders] == [1, 1]
    assert [each["episodes"] for each in report["rounds"]] == [1, 2] and report["kept"] == "clone"
    assert json.loads((tmp_path / "out/adaptation.json").read_text())["rounds"] == report["rounds"]
    first_round, second_round = (open_episodes(folder).read(0, 0, 4).actions[:3] for folder in folders)
    by_clone = [roll_out(goal_policy(), SquareEnv(), first_seed(asked, part), 4).actions[:3] for part in (0, 1)]
    torch.testing.assert_close(first_round, torch.from_numpy(by_clone[0]), atol=1e-4, rtol=0)
    assert (second_round - torch.from_numpy(by_clone[1])).abs().max() > 0.01  # the adapted policy made it
    made = [folder.stat().st_mtime_ns for folder in folders]
    again = adapt(asked)
    assert again["rounds"] == report["rounds"] and [folder.stat().st_mtime_ns for folder in folders] == made
    assert "the old policy is kept" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings: steps"):
        adapt(replace(asked, steps=4))


def test_a_policy_that_is_shown_no_goal_is_refused(tmp_path):
    square_policy().save(tmp_path / "clone")
    with pytest.raises(ValueError, match="is shown no goal"):
        adapt(config(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_shift_that_the_environment_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="you asked for shift"):
        environment(config(tmp_path, shift="turned-actions"), goal_policy())


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    goal_policy().save(tmp_path / "clone")
    call = ["adapt", "--policy", str(tmp_path / "clone"), "--real", SQUARE, "--out", str(tmp_path / "clone")]
    assert main(call) == 2
    assert "is not an adaptation; choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"episodes": 5, "rounds": 2}, "episodes is a multiple of rounds, got 5 and 2"),
        ({"horizon": 1}, "horizon is at least 2, got 1"),
        ({"learning_rate": 0.0}, "--learning-rate is above 0"),
    ],
)
def test_numbers_are_checked(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        check_numbers(config(tmp_path, **settings))


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.1, 0.5, "is better"), (-0.5, -0.1, "is worse"), (-0.1, 0.5, "cannot be told")]
)
def test_the_words_follow_the_interval(low, high, said):
    trials = {"n": 9, "clone": 0.2, "adapted": 0.4, "low": low, "high": high, "difference": 0.2}
    report = {"rounds": [{"episodes": 20}], "seconds": 60.0, "trials": trials, "kept": "adapted"}
    assert said in meaning(report)[1]
    assert "was not measured" in meaning(report | {"trials": None})[1]
