"""Judges and inverse dynamics that train in two processes are those of one."""

from pathlib import Path

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from in_processes import in_processes

from policy_eval.judge.frames import Frames
from policy_eval.judge.goals.judge import GoalNetwork, GoalShape
from policy_eval.judge.goals.train import fit_goals
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.judge.train import JudgeConfig, fit_judge


def flat(module: torch.nn.Module) -> list[float]:
    return torch.cat([each.flatten() for each in module.parameters()]).double().tolist()


def judged() -> list[float]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (12, 2, 16, 16, 3), dtype=torch.uint8, generator=generator)
    rows = Frames(frames, torch.arange(12) % 3 == 0, torch.rand(12, generator=generator))
    torch.manual_seed(0)
    judge = LearnedJudge(JudgeShape(("top", "wrist"), (16, 16), width=8), reward_range=(0.0, 1.0))
    fit_judge(judge, rows, JudgeConfig(Path("data"), Path("out"), steps=3, batch=7))
    return flat(judge.network)


def told_goals() -> list[float]:
    source = DrawnEpisodes([12] * 4, lambda episode, frame: 20 * frame + 10 + episode)
    torch.manual_seed(0)
    network = GoalNetwork(GoalShape(("top", "wrist"), (16, 16), farthest=8, width=8))
    fit_goals(network, source, range(4), farthest=8, steps=3, batch=24, learning_rate=1e-3, seed=0)
    return flat(network)


@pytest.mark.parametrize("train", [judged, told_goals])
def test_two_processes_train_the_judge_of_one(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (alone,) = in_processes(train, 1)
    first, second = in_processes(train)
    assert first == second
    assert first == pytest.approx(alone, abs=1e-4)
