"""Four regimes in one table, and guidance in another."""

import sys

import numpy as np
import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))

import guidance
import regimes
from regimes import RegimesConfig


def world(gain: float | None, shifted: float) -> dict:
    """Figures of one world; only the gains differ."""
    splits = {}
    for split, value in (("in", gain), ("out", shifted)):
        interval = None if value is None else [value - 1, value + 1]
        figures = {"gain": value, "interval": interval, "gap": 0.5, "gap_interval": [0.25, 0.75]}
        objects = {"objects": {"agent": 3.0}, "missing": {"agent": 0.5, "block": 0.25}}
        copied = {"objects_copying": {"agent": 6.0}, "missing_copying": {"agent": 0.0}}
        splits[split] = figures | objects | copied
    return {"steps": 7, **splits}


def test_the_table_has_a_row_for_each_split_and_a_column_for_each_injection():
    results = {"rigid": {"adaln": world(1.25, -0.25), "token": world(None, 2.0)}}
    rows = regimes.tables(results).splitlines()
    assert "| regime | data | adaln | cross | token |" in rows
    assert "| rigid: `pusht` | as trained on | +1.2 [+0.2, +2.2], 50% lost | - | -, 50% lost |" in rows
    assert "| rigid: `pusht` | start-region | -0.2 [-1.2, +0.8], 50% lost | - | +2.0 [+1.0, +3.0], 50% lost |" in rows
    assert "| rigid | agent | 50% | - | 50% | 0% |" in rows
    assert "| rigid | agent | 3.0 | - | 3.0 | 6.0 |" in rows and "| rigid | 7 | - | 7 |" in rows


def test_the_aim_is_above_one_decibel_in_distribution():
    results = {"rigid": {"adaln": world(1.01, 0.0)}, "particles": {"adaln": world(1.0, 5.0), "token": world(9.0, 9.0)}}
    assert regimes.verdict(results) == "gain above 1 dB in distribution with adaln: 1 of 2 regimes"
    assert regimes.verdict({"kinematic": {"token": world(9.0, 9.0)}}).endswith("0 of 0 regimes")


def test_worlds_of_the_default_injection_come_first(tmp_path):
    order = regimes.wanted(RegimesConfig(tmp_path))
    assert order[:4] == [(name, "adaln") for name in regimes.REGIMES] and len(set(order)) == 12
    assert regimes.wanted(RegimesConfig(tmp_path, only=("rigid/cross",))) == [("rigid", "cross")]
    assert len(regimes.wanted(RegimesConfig(tmp_path, only=("particles",)))) == 3
    with pytest.raises(SystemExit, match="there is no regime 'liquid'; known are rigid, deformable"):
        regimes.wanted(RegimesConfig(tmp_path, only=("liquid",)))


def test_a_folder_is_not_mixed_with_other_settings(tmp_path):
    regimes.check_settings(RegimesConfig(tmp_path, minutes=1.0))
    regimes.check_settings(RegimesConfig(tmp_path, minutes=1.0, only=("rigid",)))
    with pytest.raises(SystemExit, match=r"'minutes': 1\.0.*this run is .*'minutes': 2\.0"):
        regimes.check_settings(RegimesConfig(tmp_path, minutes=2.0))


def test_shifts_and_cameras_are_those_of_the_environments():
    from worldmodel.envs import make_env

    for name in ("rigid", "deformable", "particles"):
        regime = regimes.REGIMES[name]
        env = make_env(regime.env, size=16, shift=regime.shift)
        assert f"observation.images.{regime.view}" in env.observation_space.spaces


def test_differences_from_the_first_row_are_paired():
    """Six episodes of one window; the second row is 1 dB above the first in all, so that its interval has no width."""
    psnr, gap = np.array([[1.0, 2, 3], [5, 6, 7]]), np.array([[0.5, 0.5, 0.5], [0.25, 0.25, 0.25]])
    first = {"psnr": np.tile(psnr, (3, 1)), "gap": np.tile(gap, (3, 1))}
    second = {"psnr": first["psnr"] + 1, "gap": 2 * first["gap"]}
    found = guidance.summary({"plain": first, "guided": second}, np.arange(6))
    at = found["guided"]["psnr"]["10"]
    assert (at["mean"], at["difference"], at["difference_interval"]) == (6.0, 1.0, (1.0, 1.0))
    low, high = found["guided"]["gap"]["10"]["difference_interval"]
    assert 0.25 <= low < 0.3 and 0.45 < high <= 0.5
    row = guidance.markdown(found).splitlines()[-1]
    assert row.startswith("| guided | 4.00 / 5.00 / 6.00 | 0.75 / 0.75 / 0.75 | +1.00 [+1.00, +1.00] | +0.38 [+0.2")
