"""The figures of `benchmarks/imagination.py`, and the simulator that stands in for the world."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import BENCHMARKS
from square_world import SquareEnv, write_episodes

from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.dreams.world import RunningStream, World

sys.path.insert(0, str(BENCHMARKS))
from imagination import BenchmarkConfig, compared, imagine_config, optimism, over_seeds, settings, words
from simulator_world import SimulatorWorld


def scores(name: str, outcomes: list[float]) -> Scores:
    number = len(outcomes)
    return Scores(name, np.arange(number), np.array(outcomes, float), np.zeros(number), np.ones(number, np.int64))


def test_seeds_are_averaged_before_arms_are_compared():
    real = {
        "clone": scores("clone", [0, 1, 0, 0]),
        "more-cloning": scores("more", [0, 0, 0, 0]),
        "prioritised-3": scores("a", [1, 1, 0, 0]),
        "prioritised-4": scores("b", [0, 1, 1, 0]),
        "uniform-3": scores("c", [0, 1, 0, 0]),
        "uniform-4": scores("d", [0, 1, 0, 1]),
    }
    found = over_seeds(BenchmarkConfig(Path("out"), seeds=(3, 4)), real)
    assert {name: part["difference"] for name, part in found.items()} == {
        "prioritised - clone": 0.25,
        "prioritised - more-cloning": 0.5,
        "uniform - clone": 0.125,
        "uniform - more-cloning": 0.375,
        "uniform - prioritised": -0.125,
    }


def test_differences_are_paired():
    real = {"clone": scores("clone", [0, 1, 0, 1]), "better": scores("better", [0.5, 1, 1, 1])}
    found = compared(real, "clone", "better")
    assert found["difference"] == pytest.approx(0.375) and found["n"] == 4
    assert 0 <= found["interval"][0] <= 0.375 <= found["interval"][1] <= 1
    # A shift of all starts alike has no spread, however much the starts differ.
    alike = compared({"a": scores("a", [0, 0.5, 0.25]), "b": scores("b", [0.5, 1, 0.75])}, "a", "b")
    assert alike["interval"] == (0.5, 0.5)
    assert words(found).startswith("+38 [")


def test_optimism_is_measured_on_the_starts_that_both_places_have():
    both = {"dream": {"p": scores("p", [1, 1])}, "real": {"p": scores("p", [1, 0, 1, 1])}}
    assert optimism(both, "p")["difference"] == 0.5 and optimism(both, "p")["n"] == 2


def test_quick_runs_are_short(tmp_path):
    quick = settings(BenchmarkConfig(tmp_path, quick=True, seeds=(0, 1, 2)))
    assert quick.seeds == (0,) and quick.minutes < 2 and quick.episodes >= 60
    assert settings(BenchmarkConfig(tmp_path)).minutes == 15
    uniform = imagine_config(quick, tmp_path, 0.0, 3, resume=False)
    assert (uniform.priority, uniform.seed, uniform.minutes) == (0.0, 3, quick.minutes)


def test_the_simulator_goes_on_from_recorded_frames(tmp_path):
    source = open_episodes(write_episodes(tmp_path / "data", 3))
    world = SimulatorWorld(SquareEnv, source)
    assert isinstance(world, World)
    clip = source.read(1, 2, 3).map(lambda tensor: tensor[None])
    stream = world.stream(clip, seeds=[0])
    assert isinstance(stream, RunningStream)
    torch.testing.assert_close(stream.observation.states, clip.states[:, 0])
    seen = stream.step(source.read(1, 2, 4).actions, num_steps=1)
    expected = source.read(1, 3, 4)
    torch.testing.assert_close(seen.states, expected.states)
    assert (seen.frames.float() - expected.frames.float()).abs().mean() < 8
