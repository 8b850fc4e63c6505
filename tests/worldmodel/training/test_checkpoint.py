"""Runs that stop and go on: their settings, their tables, and Ctrl-C."""

import json
import re
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from interrupting import go_on, interrupt_when, rows_in
from places import LEROBOT_V30

from worldmodel.cli import main
from worldmodel.data.options import DataOptions
from worldmodel.training.checkpoint import MovingAverage, RunSettings, differences, load_state, save_state, settings_of
from worldmodel.training.log import Table, whole_lines


@dataclass(frozen=True)
class Inner:
    width: int = 8


@dataclass(frozen=True)
class Config:
    out: Path
    data: Path = Path("data")
    steps: int = 10
    batch: int = 4
    device: str = "auto"
    pairs: dict[int, int] = field(default_factory=dict)
    inner: Inner = Inner()
    resume: bool = False
    overwrite: bool = False


def settings(config: Config, fingerprint: str = "abc") -> RunSettings:
    return RunSettings(config, {"data": fingerprint})


def test_a_run_goes_on_only_with_its_own_settings(tmp_path, capsys):
    first = Config(tmp_path, pairs={0: 1})
    settings(first).write()
    again = replace(first, resume=True)
    settings(again).check()
    settings(replace(again, device="cpu", data=Path("moved"))).check()  # the same data elsewhere
    assert capsys.readouterr().out == ""
    settings(replace(again, steps=20)).check()
    assert capsys.readouterr().out == f"{tmp_path}: steps was 10, now 20: the run ends at another point\n"
    refused = {
        "batch was 4, now 8": (replace(again, batch=8), "abc"),
        "inner.width was 8, now 9": (replace(again, inner=Inner(9)), "abc"),
        'pairs was {"0": 1}, now {}': (replace(again, pairs={}), "abc"),
        'data (fingerprint) was "abc", now "abd"': (again, "abd"),
        "batch was 4, now 8; inner.width was 8, now 9": (replace(again, batch=8, inner=Inner(9)), "abc"),
    }
    for said, (config, fingerprint) in refused.items():
        with pytest.raises(ValueError) as caught:
            settings(config, fingerprint).check()
        assert str(caught.value) == f"{tmp_path}: --resume goes on with the settings of the stopped run; {said}"
    with pytest.raises(ValueError, match=r"nothing to resume, state/settings\.json is missing"):
        settings(Config(tmp_path / "none", resume=True)).check()


def test_the_bound_of_the_cache_may_change(tmp_path):
    @dataclass(frozen=True)
    class Reading:
        out: Path = tmp_path
        reading: DataOptions = field(default_factory=DataOptions)
        resume: bool = False
        overwrite: bool = False

    RunSettings(Reading(), {}).write()
    RunSettings(Reading(reading=DataOptions(cache_gb=3.0), resume=True), {}).check()
    with pytest.raises(ValueError, match=r"reading.skip_broken was false, now true"):
        RunSettings(Reading(reading=DataOptions(skip_broken=True), resume=True), {}).check()


def test_a_setting_of_another_version_is_named():
    assert differences({"old": 1}, {"new": 2}) == {"old": "old was 1, now not known", "new": "new was not known, now 2"}
    assert "out" not in settings_of(Config(Path("out")), {})


def test_a_new_run_removes_what_an_earlier_one_left_but_nothing_else(tmp_path):
    for name in ("state/state.json", "state/state-00000001.safetensors", "losses.csv", "updates.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("notes.txt", "world.json", "state/notes.txt"):
        (tmp_path / name).write_text("mine")
    settings(Config(tmp_path, overwrite=True)).write()
    left = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["notes.txt", "state/notes.txt", "state/settings.json", "world.json"]


def test_half_a_row_of_a_killed_run_is_dropped(tmp_path):
    file = tmp_path / "updates.jsonl"
    file.write_text('{"step": 0, "x": 1}\n{"step": 1, "x": 2}\n{"step": 2, "x"')
    table = Table(file, 2)
    table.add({"step": 2, "x": float("nan")})
    rows = [json.loads(row) for row in file.read_text().splitlines()]
    assert rows == [{"step": 0, "x": 1}, {"step": 1, "x": 2}, {"step": 2, "x": None}]
    file.write_text("mine\n")
    with pytest.raises(ValueError, match=f"{file}: not a table of JSON lines with a step"):
        Table(file, 2)
    file.write_text("step,loss\n0,0.5\n1")
    assert whole_lines(file) == ["step,loss", "0,0.5"]


def test_a_damaged_state_is_named_in_one_line(tmp_path):
    model = torch.nn.Linear(2, 2)
    average = MovingAverage(model, 0.9)
    save_state(tmp_path, model, average, [], {"step": 1, "seconds": 2.0})
    weights, described = tmp_path / "state-00000001.safetensors", tmp_path / "state.json"
    good = weights.read_bytes()
    for content, said in (
        (b"", "empty"),
        (good[:-4], "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    ):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=f"{weights}: {said}"):
            load_state(tmp_path, model, average, [])
    described.write_text('{"step": 1, "seconds": 2.0}')
    with pytest.raises(ValueError, match=f"{described}: the field 'file' is missing"):
        load_state(tmp_path, model, average, [])


PRETRAIN = "pretrain tiny --size 16 24 --batch 2 --frames 3 --validation-episodes 1 --long-interval 3 --device cpu"
PRETRAIN += " --dit.width 32 --dit.head-width 16 --dit.patch 8 --dit.encoder-depth 2 --dit.decoder-depth 1"


def test_an_interrupted_run_saves_and_says_how_to_go_on(tmp_path, capsys):
    def call(name: str, *more: str) -> list[str]:
        return [*PRETRAIN.split(), "--data", str(LEROBOT_V30), "--out", str(tmp_path / name), "--steps", "25", *more]

    assert main(call("whole")) == 0
    out = tmp_path / "stopped"
    capsys.readouterr()
    with interrupt_when(rows_in(out / "losses.csv", 5), signal.SIGTERM):
        assert main(call("stopped", "--overwrite")) == 130
    said = capsys.readouterr().err
    assert re.search(r"worldmodel pretrain: stopped and saved after step \d+ of 25; go on with: ", said)
    assert "--overwrite" not in said.splitlines()[-1]
    step = json.loads((out / "state" / "state.json").read_text())["step"]
    assert 4 <= step < 25
    assert main(call("stopped", "--resume", "--batch", "3")) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("stopped run; batch was 2, now 3")
    assert main(call("stopped")) == 2
    assert "state/state.json exists already; pass --resume to continue" in capsys.readouterr().err
    assert go_on(said) == 0
    for name in ("weights.safetensors", "losses.csv", "world.json", "state/settings.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert "pretrain: step 25 of 25  loss " in (out / "train.log").read_text()


@pytest.mark.slow
def test_a_run_killed_before_its_first_state_begins_again_with_resume(tmp_path, capsys):
    call = [*PRETRAIN.split(), "--data", str(LEROBOT_V30), "--out", str(tmp_path / "run"), "--steps", "2"]
    assert main(call) == 0
    expected = (tmp_path / "run" / "weights.safetensors").read_bytes()
    for file in (tmp_path / "run" / "state").glob("state*"):
        file.unlink()
    (tmp_path / "run" / "world.json").unlink()
    assert main(call) == 2
    assert "state/settings.json exists already; pass --resume to continue that run" in capsys.readouterr().err
    assert main([*call, "--resume"]) == 0
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == expected


def test_a_refused_run_leaves_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    call = [*PRETRAIN.split(), "--data", str(LEROBOT_V30), "--out", str(out), "--steps", "2"]
    assert main([*call, "--relative-to", "0", "9"]) == 2
    assert "relative_to" in capsys.readouterr().err
    assert not out.exists()
