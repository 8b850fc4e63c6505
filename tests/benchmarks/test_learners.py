"""The benchmark of learners: where its agents are rewarded."""

import runpy
import sys

import torch
from places import BENCHMARKS

from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation


def test_a_hand_is_rewarded_near_recorded_places_alone(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    script = runpy.run_path(str(BENCHMARKS / "learners.py"))
    line = torch.linspace(0, 1, 400)
    known = script["Known"](torch.stack([line, line * 0, line * 0], dim=1))
    places = torch.tensor([[0.5, 0.0, 0.0, 9.0], [0.5, 0.2, 0.0, 9.0], [1.3, 0.0, 0.0, 9.0]])
    observation = Observation(torch.zeros(3, 1, 2, 2, 3, dtype=torch.uint8), places)
    assert known(observation).tolist() == [True, False, False]
    judge = script["Endless"](lambda _: Verdict(torch.full((3,), 5.0), torch.ones(3, dtype=torch.bool)), known)
    verdict = judge(observation)
    assert verdict.rewards.tolist() == [0.5, 0.0, 0.0] and not verdict.successes.any()
