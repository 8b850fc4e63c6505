"""Ranking as the owner of a real robot does it: no simulator, no reset seeds, outcomes in a table."""

import json
import sys
from pathlib import Path

import av
import pytest
import torch
from mine import write_module
from square_world import write_episodes
from tiny import tiny_world

from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.cli import main

MINE = """
import torch


def stay(observation):
    return observation["observation.state"]


def right(observation):
    return observation["observation.state"] + 1


class Broken:
    def reset(self, seeds):
        self.seeds = seeds

    def act(self, observation):
        raise RuntimeError("no weights")


def judge(observation):
    assert set(observation.task) == {"right"}
    return observation.states[:, 0] > 3


def doubtful(observation):
    return torch.full((len(observation.frames),), torch.nan)
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> tuple[str, list[str]]:
    """The module with policies and judges, and the arguments that are always the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write_episodes(Path("data"), 4, seeded=False)
    tiny_world(size=(16, 16), relative_to={}).save(Path("world"))
    flags = ["rank", "--world", "world", "--data", "data", "--out", "out", "--episodes", "1:4", "--horizon", "2"]
    flags += ["--num-envs", "2", "--num-steps", "1", "--workers", "1", "--device", "cpu"]
    return write_module(tmp_path, MINE), flags


def report() -> dict:
    return json.loads(Path("out/ranking.json").read_text())


def test_policies_are_ranked_without_simulator_and_seeds_against_a_table(mine, capsys):
    module, flags = mine
    Path("real.csv").write_text(
        "policy,start,success\nright,1,1\nright,2,1\nstay,1,0\nstay,2,1\nBroken,1,0\nBroken,3,0\n"
    )
    flags += ["--judge", f"{module}:judge", "--real", "real.csv"]
    assert main([*flags, "--policies", *(f"{module}:{name}" for name in ("right", "stay", "Broken"))]) == 0
    found = report()
    assert {row["seed"] for row in found["trials"] if row["place"] == "dream"} == {1, 2, 3}
    scores = {policy["name"]: policy for policy in found["policies"]}
    assert scores["Broken"]["dream"]["score"] == 0 and scores["Broken"]["dream"]["n"] == 3
    assert scores["right"]["real"]["score"] == 1.0 and scores["stay"]["real"]["score"] == 0.5
    assert [(fault["policy"], fault["seed"], fault["kind"]) for fault in found["faults"]] == [
        ("Broken", seed, "policy") for seed in (1, 2, 3)
    ]
    said = capsys.readouterr().out
    assert "In 3 dreamed trials of Broken the policy failed, and they count as failures: RuntimeError" in said
    page = Path("out/report.html").read_text()
    assert "RuntimeError: no weights" in page and "2 real ones, read from the file real.csv" in page
    assert "A dream of right, the first in the leaderboard: its first trial, a" in page
    (film,) = Path("out/videos").glob("*.mp4")
    with av.open(str(film)) as container:
        assert container.streams.video[0].average_rate == 10, "as fast as the recordings"


def test_a_policy_without_a_trial_is_left_out_on_demand(mine, capsys):
    module, flags = mine
    flags += ["--judge", f"{module}:judge", "--faulty", "left-out", "--policies"]
    assert main([*flags, f"{module}:right", f"{module}:Broken"]) == 0
    assert [policy["name"] for policy in report()["policies"]] == ["right"]
    assert "Broken is not ranked: no trial of it is left." in capsys.readouterr().out


def test_nothing_is_ranked_by_a_judge_that_cannot_tell(mine, capsys):
    module, flags = mine
    assert main([*flags, "--judge", f"{module}:doubtful", "--policies", f"{module}:right"]) == 2
    assert "nothing to rank: all trials are left out" in capsys.readouterr().err


def test_a_policy_that_does_not_fit_is_refused_before_the_first_trial(mine, capsys):
    module, flags = mine
    torch.manual_seed(0)
    ClonedPolicy(PolicyConfig(("front",), (8, 8), 3, 2)).save(Path("other"))
    assert main([*flags, "--judge", f"{module}:judge", "--policies", f"{module}:right", "other"]) == 2
    said = capsys.readouterr().err
    assert "policy other does not fit: it needs the camera front, there is top, wrist" in said
    assert not Path("out").exists()


def test_a_simulator_needs_reset_seeds(mine, capsys):
    module, flags = mine
    flags += ["--judge", f"{module}:judge", "--real", "pusht-position", "--policies", f"{module}:right"]
    assert main(flags) == 2
    assert "data: episodes have no reset_seed, so a simulator cannot begin them again" in capsys.readouterr().err
