"""Fidelity on data sets with one controlled shift each."""

import io
import json
import shutil

import pytest
from drawn_episodes import tiny_world
from rich.console import Console
from small_sets import edit_lines, two_episodes_v21

from worldmodel.data import open_episodes
from worldmodel.fidelity.measure import FidelityConfig, fidelity
from worldmodel.fidelity.shifted import measure_shifted, shifted_table


def name_shift(folder, shift, episodes=(0, 1)):
    def edit(rows):
        return [row | ({"shift": shift} if i in episodes else {}) for i, row in enumerate(rows)]

    edit_lines(folder / "meta" / "episodes.jsonl", edit)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The usual data, the same with a named shift, and the same without a name."""
    root = tmp_path_factory.mktemp("shifts")
    plain = two_episodes_v21(root / "plain")
    named = name_shift(shutil.copytree(plain, root / "other"), "agent-speed")
    return {"plain": plain, "named": named, "unnamed": shutil.copytree(plain, root / "unnamed")}


def test_the_metadata_names_the_shift(folders, tmp_path):
    assert open_episodes(folders["plain"]).shift == ""
    assert open_episodes(folders["named"]).shift == "agent-speed"
    mixed = shutil.copytree(folders["plain"], tmp_path / "mixed")
    name_shift(mixed, "camera", episodes=[1])
    with pytest.raises(ValueError, match="episode 1, shift is 'camera', expected ''"):
        open_episodes(mixed)
    with pytest.raises(ValueError, match="shift is 3"):
        open_episodes(name_shift(mixed, 3))


def test_two_data_sets_of_one_shift_are_refused(folders):
    twice = [str(folders["named"])] * 2
    with pytest.raises(ValueError, match="shift is 'agent-speed', and so is that of"):
        measure_shifted(twice, (32, 32), ("top",), lambda source: {})


@pytest.mark.slow
def test_shifted_reports_lie_beside_the_usual_one(folders, tmp_path, capsys):
    views = ("top", "wrist")
    tiny_world(size=(32, 32), views=views).save(tmp_path / "world")
    config = FidelityConfig(
        world=str(tmp_path / "world"),
        data=folders["plain"],
        horizon=1,
        num_steps=1,
        shifted=(folders["named"], folders["unnamed"]),
        starts=2,
        alterations=(),
        out=tmp_path / "report.json",
        device="cpu",
    )
    fidelity(config)
    report = json.loads(config.out.read_text())
    assert set(report["shifted"]) == {"agent-speed", "unnamed"}
    usual = {key: value for key, value in report.items() if key != "shifted"}
    for name, shifted in report["shifted"].items():
        assert shifted.keys() == usual.keys()
        # the data is the same, so the figures are
        assert shifted["cameras"] == usual["cameras"]
        assert shifted["metadata"]["data"] == str(folders["named" if "-" in name else "unnamed"])
    printed = capsys.readouterr().out
    assert printed.count("in distribution") == printed.count("agent-speed") > 4


def test_table_shows_the_gain_over_copying():
    def report(dreamed, copied, error, copied_error, overlap=0.8):
        numbers = {"psnr": {"5": dreamed}, "ssim": {}, "lpips": {"5": None}, "masked_psnr": {}}
        copies = numbers | {"psnr": {"5": copied}}
        item = {"error_px": {"5": error}, "moving_error_px": {}, "missing": {}, "overlap": {"5": overlap}}
        return {
            "cameras": {"top": numbers},
            "objects": {"agent": item},
            "copy_last": {
                "top": copies,
                "objects": {"agent": item | {"error_px": {"5": copied_error}, "overlap": {"5": 0.9}}},
            },
            "metadata": {"horizons": [5]},
        }

    usual = report(30.0, 25.5, 1.0, 4.0)
    usual["shifted"] = {"camera": report(20.0, 22.0, 9.0, 3.5)}
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(shifted_table(usual))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["top:", "PSNR,", "dB"] in lines
    assert ["in", "distribution", "30.00", "(+4.50)"] in lines
    assert ["camera", "20.00", "(-2.00)"] in lines
    assert ["in", "distribution", "1.00", "(+3.00)"] in lines
    assert ["camera", "9.00", "(-5.50)"] in lines
    assert ["camera", "0.80", "(-0.10)"] in lines  # more overlap is better
