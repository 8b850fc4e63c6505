"""Imagination in two processes: the dreams, and what is learned from them, are those of one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from in_processes import in_processes
from square_world import SquareWorld, right_edge, square_policy, write_episodes

from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.config import DistilConfig
from rl_posttrain.imagination.distil.planner import label_dreams
from rl_posttrain.imagination.distil.train import drawn_starts
from rl_posttrain.imagination.dreams import dream, prepare
from rl_posttrain.imagination.learner import LearnConfig, Learner
from rl_posttrain.imagination.train import improve
from worldmodel.data import open_episodes
from worldmodel.files import read_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 16, failures=1)


def config(data: Path, out: Path, **settings) -> ImagineConfig:
    small = {"streams": 6, "horizon": 4, "context": 1, "pool": 16, "validation_starts": 3, "validation_horizon": 4}
    learn = LearnConfig("pmpo", minibatch=8, warmup=0, epochs=1)
    settings = {**small, "learn": learn, "log": "none", "updates": 2, "device": "cpu", **settings}
    return ImagineConfig("", Path(), Path(), data, out, **settings)


def test_the_dreams_of_two_processes_are_those_of_one(data, tmp_path):
    """Three starts under two noise seeds: one process dreams from two of them, the other from the third and a spare."""
    options = config(data, tmp_path)
    setting = prepare(options, SquareWorld(grain=40), right_edge, open_episodes(data))
    torch.manual_seed(0)
    learner = Learner(square_policy(), options.learn).eval()

    def dreamed() -> dict:
        return vars(dream(options, setting, learner, setting.train.pick(np.arange(3)), horizon=4, seed=3))

    (alone,) = in_processes(dreamed, 1)
    for found in in_processes(dreamed):
        for name, tensor in alone.items():
            assert found[name].shape == tensor.shape
            torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5, msg=name)


def learned(options: ImagineConfig, data: Path) -> list[float]:
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    report = improve(options, setting, square_policy())
    return [report["first"]["return"], *[report["best"][name] for name in ("return", "step")]]


def test_two_processes_learn_what_one_learns(data, tmp_path):
    (alone,) = in_processes(lambda: learned(config(data, tmp_path / "alone"), data), 1)
    found = in_processes(lambda: learned(config(data, tmp_path / "both"), data))
    assert found[0] == found[1] == pytest.approx(alone, abs=1e-4)
    one, two = (read_weights(next((tmp_path / name / "state").glob("state-*"))) for name in ("alone", "both"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    for table in ("updates", "validation"):
        lines = [(tmp_path / name / f"{table}.jsonl").read_text().count("\n") for name in ("alone", "both")]
        assert lines[0] == lines[1] > 1


def test_a_planner_labels_the_dreams_of_all_processes(data, tmp_path):
    """Solved dreams make room for the next start wherever they run, in the order of the streams."""
    options = config(data, tmp_path, streams=6, horizon=12, distil=DistilConfig(plans=4, sigma=3.0, lookahead=2))
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))

    def labelled() -> dict:
        lessons, shown = label_dreams(options, setting, square_policy(), drawn_starts(options, setting, 0), 1)
        return vars(lessons) | {name: torch.tensor(value) for name, value in shown.items()}

    (alone,) = in_processes(labelled, 1)
    assert alone["solved"] > 0
    for found in in_processes(labelled):
        for name, tensor in alone.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4, msg=name)
