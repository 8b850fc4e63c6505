"""The example of a real robot: its judge, its invented table, and the help of its script."""

import runpy

import pytest
import torch
from fresh_python import python
from places import ROOT

from policy_eval.ranking.outcomes import read_outcomes
from worldmodel import Observation

FOLDER = ROOT / "examples" / "real_robot"


def test_the_judge_measures_the_way_of_the_right_arm():
    judge = runpy.run_path(str(FOLDER / "judge.py"))
    states = torch.zeros(4, 26)
    for row, share in enumerate((-0.5, 0.5, 0.9, 1.5)):
        states[row, 7:14] = judge["REST"] + share * (judge["OUT"] - judge["REST"])
    verdict = judge["reached"](Observation(torch.zeros(4, 1, 2, 2, 3, dtype=torch.uint8), states))
    torch.testing.assert_close(verdict.rewards, torch.tensor([0.0, 0.5, 0.9, 1.0]))
    assert verdict.successes.tolist() == [False, False, True, True]


def test_invented_outcomes_are_a_table_that_can_be_read(tmp_path):
    story = runpy.run_path(str(FOLDER / "run.py"))
    story["invent"](tmp_path / "invented.csv", ["long", "short"], range(64, 80))
    found = read_outcomes(tmp_path / "invented.csv", ["long", "short"])
    assert all(scores.seeds.tolist() == list(range(64, 80)) for scores in found.values())


@pytest.mark.slow
def test_the_script_explains_itself():
    said = python(FOLDER / "run.py", "--help")
    assert "--pretrain-minutes" in said.stdout
