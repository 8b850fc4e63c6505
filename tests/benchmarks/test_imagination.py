"""The figures of `benchmarks/imagination.py`, and the simulator that stands in for the world."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import BENCHMARKS
from square_world import SquareEnv, write_episodes

from policy_eval.scores import Scores
from worldmodel.data import open_episodes, stack_clips
from worldmodel.dreams.verdict import Verdict
from worldmodel.dreams.world import RunningStream, World

sys.path.insert(0, str(BENCHMARKS))
from imagination import BenchmarkConfig, compared, imagine_config, optimism, over_seeds, settings, share_kept, words
from simulator_world import SimulatorWorld, true_judge


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
    found = over_seeds(BenchmarkConfig(Path("out"), seeds=(3, 4), controls=("more-cloning",)), real)
    assert {name: part["difference"] for name, part in found.items()} == {
        "prioritised - clone": 0.25,
        "prioritised - more-cloning": 0.5,
        "uniform - clone": 0.125,
        "uniform - more-cloning": 0.375,
        "uniform - prioritised": -0.125,
    }


def test_differences_are_paired():
    real = {"clone": scores("clone", [0, 1, 0, 1, 0]), "better": scores("better", [0.5, 1, 1, 1, 0.5])}
    found = compared(real, "clone", "better")
    assert found["difference"] == pytest.approx(0.4) and found["n"] == 5
    assert 0 <= found["interval"][0] <= 0.4 <= found["interval"][1] <= 1
    # A shift of all starts alike has no spread, however much the starts differ.
    alike = compared({"a": scores("a", [0, 0.5, 0.25, 0, 0]), "b": scores("b", [0.5, 1, 0.75, 0.5, 0.5])}, "a", "b")
    assert alike["interval"] == (0.5, 0.5)
    assert words(found).startswith("+40 [")


def test_optimism_is_measured_on_the_starts_that_both_places_have():
    both = {"dream": {"p": scores("p", [1, 1])}, "real": {"p": scores("p", [1, 0, 1, 1])}}
    assert optimism(both, "p")["difference"] == 0.5 and optimism(both, "p")["n"] == 2


def test_quick_runs_are_short(tmp_path):
    quick = settings(BenchmarkConfig(tmp_path, quick=True, seeds=(0, 1, 2)))
    assert quick.seeds == (0,) and quick.minutes < 2 and quick.episodes >= 60
    assert settings(BenchmarkConfig(tmp_path)).minutes == 15
    uniform = imagine_config(quick, tmp_path, "uniform", 3, resume=False)
    assert (uniform.method, uniform.priority, uniform.seed) == ("actor-critic", 0.0, 3)
    assert uniform.minutes == quick.minutes
    assert imagine_config(quick, tmp_path, "prioritised", 3, resume=False).priority == 0.6
    assert imagine_config(quick, tmp_path, "distil", 3, resume=False).method == "distil"


def test_the_share_of_the_planners_gain_that_is_learnt():
    """From 0.25 to 0.5 where the planner reaches 0.75: a half."""
    real = {"clone": scores("clone", [0, 1, 0, 0]), "steered": scores("steered", [1, 1, 1, 0])}
    assert share_kept(real, np.array([0, 1, 1, 0.0])) == 0.5


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


def test_the_simulators_own_judge_says_what_is_solved(tmp_path):
    """The learned judge only gives the reward; the first square reaches the edge, the second one stands."""
    source = open_episodes(write_episodes(tmp_path / "data", 2))
    world = SimulatorWorld(SquareEnv, source)
    learned = lambda seen: Verdict(torch.arange(2.0), torch.tensor([False, True]))  # noqa: E731
    judge = true_judge(learned, world)
    clips = stack_clips([source.read(episode, 0, 1) for episode in (0, 1)])
    stream = world.stream(clips, seeds=[0, 1])
    assert judge(stream.observation).successes.tolist() == [False, False]
    for _ in range(6):
        seen = stream.step(torch.stack([torch.tensor([12.0, 6.0]), stream.observation.states[1]]), num_steps=1)
    verdict = judge(seen)
    assert verdict.successes.tolist() == [True, False] and verdict.rewards.tolist() == [0, 1]
