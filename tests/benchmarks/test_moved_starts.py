"""The simulator with the block a little elsewhere at the start: by hand."""

import json
import sys

import numpy as np
import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
moved_starts = pytest.importorskip("moved_starts")


def test_an_unmoved_block_ends_as_before_and_a_moved_one_lies_elsewhere():
    """The block is put 10 world units from the goal's centre, so that any action solves the task, then 40 units."""
    env = moved_starts.Unseen()
    env.reset(seed=5)
    rest = env.agent_position.tolist()
    towards = env.goal_centre - env.block_centre
    gap = np.linalg.norm(towards)
    near, far = (towards * (1 - left / gap) for left in (10, 40))
    assert moved_starts.solved(env, 5, [rest], near, horizon=2)
    assert not moved_starts.solved(env, 5, [rest], far, horizon=2)
    assert not moved_starts.solved(env, 5, [rest], np.zeros(2), horizon=2)


def test_the_last_action_is_repeated_up_to_the_horizon():
    seen = []

    class Watched(moved_starts.Unseen):
        def step(self, action):
            seen.append(action.tolist())
            return super().step(action)

    moved_starts.solved(Watched(), 5, [[100, 100], [200, 100]], np.zeros(2), horizon=4)
    assert seen == [[100, 100], [200, 100], [200, 100], [200, 100]]


def test_a_pixel_is_eight_world_units_and_trials_are_paired_with_their_dreams(tmp_path, monkeypatch, capsys):
    """Success here: the offset is at least as long as the trial's only action says."""
    monkeypatch.setattr(
        moved_starts, "solved", lambda env, seed, actions, offset, horizon: np.hypot(*offset) >= actions[0][0] - 1e-9
    )
    replays = tmp_path / "replays"
    for folder, row in (
        ("real", {"seeds": [3, 4], "outcomes": [1.0, 0.0], "actions": [[[8.0, 0]], [[16.0, 0]]]}),
        ("before", {"outcomes": [0.0, 1.0]}),
    ):
        (replays / folder).mkdir(parents=True)
        (replays / folder / "p.json").write_text(json.dumps(row))
    config = moved_starts.MovedStarts(replays=replays, out=tmp_path / "out", moves=(0.5, 1.0, 2.0))
    moved_starts.main(config)
    rows = json.loads((config.out / "moved-starts.json").read_text())["rows"]
    assert [(row["failures"]["share"], row["successes"]["share"]) for row in rows] == [(1, 0), (0, 0), (0, 1), (1, 1)]
    assert "| the simulator, block moved by 0.5 px |" in capsys.readouterr().out
    assert moved_starts.moved(config, None, "p", 1.0) == [1.0, 0.0]  # stored
    assert np.allclose(np.hypot(*moved_starts.direction(0, 7)), 1)
    assert not np.allclose(moved_starts.direction(0, 7), moved_starts.direction(0, 8))


def test_a_folder_without_replays_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no trials; run benchmarks/replays\.py first"):
        moved_starts.main(moved_starts.MovedStarts(replays=tmp_path, out=tmp_path / "out"))
