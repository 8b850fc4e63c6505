"""The benchmark of the engine against an older commit: its arithmetic and its processes."""

import json
import runpy

import pytest
from places import BENCHMARKS
from small_sets import V30
from tiny import tiny_world

from worldmodel.data import open_episodes

SCRIPT = BENCHMARKS / "engine.py"


def test_ratios_are_of_neighbours_and_medians_over_rounds():
    script = runpy.run_path(str(SCRIPT))
    old = [
        {"1": 40.0, "8": 100.0},
        {"1": 20.0, "8": 100.0},
        {"1": 50.0, "8": 120.0},
        {"1": 40.0, "8": 100.0},
        {"1": 50.0, "8": 120.0},
    ]
    new = [
        {"1": 80.0, "8": 150.0},
        {"1": 50.0, "8": 140.0},
        {"1": 75.0, "8": 240.0},
        {"1": 80.0, "8": 150.0},
        {"1": 75.0, "8": 240.0},
    ]
    found = script["summarise"]({"old": old, "new": new})
    low, high = found["1"].pop("interval")
    assert 1.5 <= low < 2 < high <= 2.5 and found["8"].pop("interval")[0] < 1.5
    assert found == {"1": {"old": 40.0, "new": 75.0, "ratio": 2.0}, "8": {"old": 100.0, "new": 150.0, "ratio": 1.5}}
    found = script["summarise"]({"old": old, "new": new})
    head, _, *rows = script["markdown"](found, "505cd1b1").splitlines()
    assert "| old (505cd1b) | new | new / old |" in head
    assert rows[0].startswith("| streaming, batch 1 | 40.0 | 75.0 | 2.00 | ")


@pytest.mark.slow
def test_both_trees_are_measured_in_processes_of_their_own(tmp_path, capsys):
    script = runpy.run_path(str(SCRIPT))
    source = open_episodes(str(V30))
    world = tiny_world(views=source.views, size=source.size, state_dim=source.state_dim)
    world.save(tmp_path / "world")
    options = {"batches": (1, 2), "frames": 2, "rounds": 1, "clock": "cpu", "training_steps": 1}
    config = script["EngineConfig"](
        data=V30, foundation=SCRIPT.parents[1], world=str(tmp_path / "world"), out=tmp_path / "engine.json", **options
    )
    script["main"](config)
    report = json.loads((tmp_path / "engine.json").read_text())
    assert report["foundation"].startswith("505cd1b") and report["config"]["rounds"] == 1
    for batch, row in report["median"].items():
        old, new = (report["rounds"][name][0][batch] for name in ("old", "new"))
        assert row["ratio"] == new / old and min(old, new) > 0
    assert "new / old" in capsys.readouterr().out
