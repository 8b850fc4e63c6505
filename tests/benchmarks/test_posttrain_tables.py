"""Arms are held against one another window by window; replays of failures and successes are counted apart."""

import numpy as np
import pytest
from places import BENCHMARKS


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import posttrain_curves
    import posttrain_tables
    import replays

    return posttrain_tables, replays, posttrain_curves


def row(arm, run, episode, **values):
    return {"arm": arm, "run": run, "episode": episode, "window": 0, **values}


def test_changes_are_paired_by_episode_and_run(scripts):
    tables, _, _ = scripts
    rows = [row("before", 0, e, **{"psnr.top.5": 20.0 + e, "distance.top.5": 0.5}) for e in range(5)]
    rows += [row("arm", r, e, **{"psnr.top.5": 21.0 + e + r, "distance.top.5": 0.4}) for r in (0, 1) for e in range(5)]
    found = tables.compare(rows, "before")["arm"]
    assert found["psnr.top.5"]["change"] == 1.5 and found["psnr.top.5"]["n"] == 10  # runs 0 and 1: +1 and +2 dB
    assert found["psnr.top.5"]["interval"] == [1.5, 1.5]  # every episode gained the same
    assert found["distance.top.5"]["share"] == pytest.approx(-0.2)
    assert found["psnr.top.5"]["better"] == found["distance.top.5"]["better"] == 1
    lines = tables.table(tables.compare(rows, "before"), "before").splitlines()
    assert lines[0] == "| measure | before | arm |"
    assert lines[2].endswith("of what can be seen: top 5 | 0.5000 | -0.1000 [-0.1000, -0.1000] (-20%) |")
    assert lines[3] == "| PSNR, dB: top 5 | 22.00 | +1.50 [1.50, 1.50] |"  # pixels come last
    rows += [
        row("control", r, e, **{"psnr.top.5": 21.0 + e + 3 * r, "distance.top.5": None}) for r in (0, 1) for e in (0, 1)
    ]
    against = tables.compare(rows, "control")["arm"]
    assert against["psnr.top.5"]["change"] == -1.0 and against["psnr.top.5"]["n"] == 4  # 0 and -2, of the same run
    assert "distance.top.5" not in against


def test_what_is_better_depends_on_the_measure(scripts):
    tables, _, _ = scripts
    one = np.array([1.0])
    assert tables.better("overlap.block.50", one, one * 0.5) > 0 > tables.better("error_px.block.50", one, one * 0.5)
    assert tables.better("sharpness.top", one * 1.1, one * 0.8) == pytest.approx(0.1)
    assert tables.better("sharpness.top", one * 1.3, one * 0.8) < 0  # as far from 1, and farther, above it


def test_replays_of_failures_and_successes_are_counted_apart(scripts):
    _, replays, _ = scripts
    real = np.array([0.0, 0, 0, 1, 1, 0])
    policy, start = np.array([0, 0, 0, 1, 1, 1]), np.array([7, 8, 9, 7, 8, 9])
    before = np.array([1.0, 1, 0, 1, 0, 0])
    after = np.array([0.0, 1, 0, 1, 1, 0])
    first, second = replays.summary({"before": before, "after": after}, real, policy, start)
    assert first["failures"]["share"] == 0.5 and first["failures"]["change"] == 0
    assert second["failures"]["share"] == 0.25 and second["failures"]["change"] == -0.25
    assert second["failures"]["n"] == 4 and second["successes"]["n"] == 2
    assert second["successes"]["share"] == 1 and second["successes"]["change"] == 0.5
    assert second["r"] == pytest.approx(1) and second["bias"] == pytest.approx(0.5 - 1 / 3)
    assert "0.250" in replays.printed([first, second]).splitlines()[-1]
    (alone,) = replays.summary({"before": before[:3]}, real[:3], policy[:3], start[:3])
    assert alone["successes"] == {"share": None, "interval": None, "change": None, "change_interval": None, "n": 0}
    assert alone["r"] is None and alone["failures"]["n"] == 3
    assert replays.printed([alone]).splitlines()[-1].endswith("| - | - | - | +0.667 |")


def test_the_curve_has_the_updates_and_the_change_of_every_point(scripts, tmp_path):
    _, _, curves = scripts
    names = {"before": 20.0, "arm 1e-05, 3 minutes": 21.0, "arm 1e-05": 23.0, "arm 0.0001": 19.0}
    values = {name: {"psnr.top.5": level - 1, "psnr.top.25": level} for name, level in names.items()}
    rows = [row(name, 0, episode, **values[name]) for name in names for episode in range(5)]
    points = []
    for index, (name, rate) in enumerate(zip(list(names)[1:], (1e-5, 1e-5, 1e-4), strict=True)):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "evaluations.jsonl").write_text(f'{{"step": 0}}\n{{"step": {10 * (index + 1)}}}\n')
        points.append(curves.Point(name, folder, "arm", rate, 3.0))
    found = curves.curve(rows, points)
    assert [(point["rate"], point["updates"]) for point in found] == [(1e-5, 10), (1e-5, 20), (1e-4, 30)]
    assert [list(point["changes"]) for point in found] == [["psnr.top.25"]] * 3, "the last horizon only"
    assert [point["changes"]["psnr.top.25"]["change"] for point in found] == [1.0, 3.0, -1.0]
    lines = curves.curve_table(found).splitlines()
    assert lines[2] == "| measure | arm, 10 updates | arm, 20 updates |"
    assert lines[4] == "| PSNR, dB: top 25 | +1.00 [1.00, 1.00] | +3.00 [3.00, 3.00] |"
    assert lines[-1] == "| PSNR, dB: top 25 | -1.00 [-1.00, -1.00] |"
    curves.plot_curve(found, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
