"""Which failures that succeed in a dream are near misses: by hand."""

import json
import sys

import numpy as np
import pytest
from places import BENCHMARKS
from square_world import SquareEnv, right_edge

from worldmodel.streaming.state import Observation

sys.path.insert(0, str(BENCHMARKS))
near_misses = pytest.importorskip("near_misses")


def test_shares_of_failures_and_successes():
    """Of four failures the judge errs on two; one of these succeeds in the dream, and one of the others."""
    rows = {
        "seeds": np.array([1, 2, 3, 4, 5, 6]),
        "outcomes": np.array([0.0, 0, 0, 0, 1, 1]),
        "judge": np.array([1.0, 1, 0, 0, 1, 0]),
        "dream": np.array([1.0, 0, 1, 0, 1, 0]),
    }
    found = near_misses.summary(rows)
    assert found["failures"]["n"] == 4 and found["successes"]["n"] == 2
    shares = {name: part["share"] for name, part in found["failures"].items() if name != "n"}
    assert shares == {"judge": 0.5, "dream": 0.5, "dream_if_judge": 0.5, "dream_if_not": 0.5, "judge_if_dream": 0.5}
    assert found["successes"]["dream_if_judge"] == {"share": 1.0, "interval": None, "n": 1}
    assert found["successes"]["dream_if_not"]["share"] == 0.0
    lines = near_misses.printed(found).splitlines()
    assert lines[0] == "| share | failures in the simulator, 4 | successes in the simulator, 2 |"
    assert lines[4].endswith("of 2 | 1.000 of 1 |")


def test_the_judge_sees_the_frames_after_each_action(tmp_path):
    """The square is pushed by 2 a step; success is at 10, and the judge of the test reads the brightest column."""

    def judge(observation):
        columns = observation.frames[:, 0, :, :, 0].amax(1).float().argmax(1)
        return right_edge(Observation(observation.frames, columns[:, None].float().repeat(1, 2)))

    env = SquareEnv()
    env.reset(seed=3)
    steps = int(np.ceil((10 - env.state[0]) / 2))
    frames, solved = near_misses.frames_of(env, 3, [[12, 5]] * 20, ("top", "wrist"))
    assert solved and frames.shape == (steps, 2, 16, 16, 3)
    assert judge(Observation(frames, None)).successes.tolist() == [False] * (steps - 1) + [True]
    replays = tmp_path / "replays"
    for folder, row in (
        ("real", {"seeds": [3, 4], "outcomes": [1.0, 0.0], "actions": [[[12, 5]] * 20, [[0, 0]] * 3]}),
        ("before", {"outcomes": [1.0, 1.0]}),
    ):
        (replays / folder).mkdir(parents=True)
        (replays / folder / "p.json").write_text(json.dumps(row))
    config = near_misses.NearMisses(replays=replays, out=tmp_path)
    found = near_misses.judged(config, env, judge, "p")
    assert found == {
        "seeds": [3, 4],
        "outcomes": [1.0, 0.0],
        "again": [1.0, 0.0],
        "dream": [1.0, 1.0],
        "judge": [1.0, 0.0],
    }
    assert near_misses.judged(config, None, None, "p") == found  # stored


def test_a_folder_without_replays_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no trials; run benchmarks/replays\.py first"):
        near_misses.main(near_misses.NearMisses(replays=tmp_path, out=tmp_path / "out"))
