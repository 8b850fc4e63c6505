"""Ranking policies and an environment of somebody else."""

import json
import sys
from pathlib import Path

import pytest
import torch
from mine import ENV, POLICIES, write_module
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from worldmodel.cli import main


@pytest.fixture
def ranking(tmp_path, monkeypatch) -> tuple[str, str, list[str]]:
    """Names of the environment and of the module of policies, and the arguments that are always the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    square, policies = f"{write_module(tmp_path, ENV)}:Square", write_module(tmp_path, POLICIES)
    assert main(["record", square, "--out", "starts", "--episodes", "3", "--seed", "1", "--workers", "1"]) == 0
    tiny_world(views=("top",), size=(16, 16), relative_to={}, state_dim=0).save(Path("world"))
    torch.manual_seed(1)
    LearnedJudge(JudgeShape(("top",), (16, 16), width=8), threshold=0.5).save(Path("judge"))
    flags = ["rank", "--world", "world", "--judge", "judge", "--data", "starts", "--out", "out", "--episodes", "3"]
    flags += ["--horizon", "6", "--num-envs", "2", "--num-steps", "1", "--videos", "1", "--device", "cpu"]
    return square, policies, flags


@pytest.mark.slow
def test_policies_by_name_are_tried_in_a_foreign_environment(ranking, capsys):
    square, policies, flags = ranking
    flags += ["--policies", f"{policies}:right", f"{policies}:Left", "--real", square, "--workers", "1"]
    assert main(flags) == 0
    report = json.loads(Path("out/ranking.json").read_text())
    real = {policy["name"]: policy["real"]["score"] for policy in report["policies"]}
    assert real == {"right": 1.0, "Left": 0.0}  # at most 5 steps of 2 pixels to x = 10
    assert report["settings"]["policies"]["Left"] == f"{policies}:Left"
    assert {row["seed"] for row in report["trials"]} == {100000, 100001, 100002}
    capsys.readouterr()
    assert main(flags) == 0  # nothing has changed: what is there is kept
    with Path(f"{policies}.py").open("a") as file:
        file.write("# another line\n")
    assert main(flags) == 2
    assert "made with policy" in capsys.readouterr().err
    Path(f"{policies}.py").write_text(POLICIES)
    with Path(f"{square.partition(':')[0]}.py").open("a") as file:
        file.write("# another line\n")
    assert main(flags) == 2
    assert "made with real_source" in capsys.readouterr().err


def test_a_table_stands_for_an_environment_that_shows_pictures_of_another_size(ranking, capsys):
    square, policies, flags = ranking
    tiny_world(views=("top",), size=(32, 32), relative_to={}, state_dim=0).save(Path("large"))
    LearnedJudge(JudgeShape(("top",), (32, 32), width=8), threshold=0.5).save(Path("large-judge"))
    flags += ["--world", "large", "--judge", "large-judge", "--policies", f"{policies}:right", "--workers", "1"]
    Path("real.csv").write_text("policy,start,success\nright,100000,1\nright,100001,1\nright,100002,1\n")
    assert main([*flags, "--real", square]) == 2
    assert "top is (32, 32, 3), the simulator's (16, 16, 3)" in capsys.readouterr().err
    assert main([*flags, "--real", "real.csv"]) == 0


def test_a_policy_that_fails_for_real_is_ranked_last_and_not_filmed(ranking):
    """It loses its way after the second step, in the dream and for real."""
    square, policies, flags = ranking
    text = (
        POLICIES
        + """

class Lost(Left):
    def reset(self, seeds):
        super().reset(seeds)
        self.steps = 0

    def act(self, observation):
        self.steps += 1
        return super().act(observation) * (float("nan") if self.steps > 2 else 1)
"""
    )
    Path(f"{policies}.py").write_text(text)
    flags += ["--policies", f"{policies}:right", f"{policies}:Lost", "--real", square, "--workers", "1"]
    assert main(flags) == 0
    report = json.loads(Path("out/ranking.json").read_text())
    assert {policy["name"]: policy["real"]["score"] for policy in report["policies"]} == {"right": 1.0, "Lost": 0.0}
    lost = [fault for fault in report["faults"] if fault["place"] == "real"]
    assert [fault["policy"] for fault in lost] == ["Lost"] * 3 and "are not finite" in lost[0]["reason"]
    assert not list(Path("out").glob("*Lost*.mp4"))


@pytest.mark.slow
def test_processes_find_policies_and_environment(ranking):
    square, policies, flags = ranking
    flags += ["--policies", f"{policies}:right", f"{policies}:Left", "--real", square, "--workers", "2"]
    assert main(flags) == 0
    report = json.loads(Path("out/ranking.json").read_text())
    assert {policy["name"]: policy["real"]["score"] for policy in report["policies"]} == {"right": 1.0, "Left": 0.0}


@pytest.mark.parametrize(
    ("policy", "real", "message"),
    [
        ("nowhere:right", "SQUARE", "policy nowhere:right: there is no module nowhere"),
        ("POLICIES:rigth", "SQUARE", "has no 'rigth'; did you mean 'right'?"),
        ("POLICIES:Deaf", "SQUARE", "a policy has reset and act; an object of the class Deaf has no reset"),
        ("POLICIES:Watching", "SQUARE", "it has a method watch, so it needs the simulator and can only record"),
        ("nowhere", "SQUARE", "policy nowhere: no such folder, and not module:name"),
        ("POLICIES:right", "square", "there is no environment 'square'; known are pusht, pusht-position"),
        ("POLICIES:right", "SQUAREE", "did you mean 'Square'?"),
        ("POLICIES:right", "POLICIES:Left", "expected a class derived from gymnasium.Env, found the class Left"),
        (
            "POLICIES:right",
            "pusht",
            "the simulator with reset seed 100000 does not begin with the stored frame: top differs by",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(ranking, capsys, policy, real, message):
    square, policies, flags = ranking
    policy = policy.replace("POLICIES", policies)
    real = real.replace("SQUARE", square).replace("POLICIES", policies)
    capsys.readouterr()
    assert main([*flags, "--policies", policy, "--real", real, "--workers", "1"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("worldmodel rank: ")]
    assert len(error) == 1
    assert message in error[0]
