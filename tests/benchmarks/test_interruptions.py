"""Interrupted runs: what is compared, and which command goes on."""

import json
import signal
import sys
from pathlib import Path

import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
import interruptions
from interruptions import Ended, contents, difference, fault, next_call


def write(out: Path, seconds: float = 1.0, loss: float = 0.5) -> Path:
    (out / "log").mkdir(parents=True)
    (out / "log" / "events").write_text(str(seconds))
    (out / "train.log").write_text(str(seconds))
    rows = [{"step": 0, "seconds": seconds, "loss": loss}]
    (out / "updates.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "ranking.json").write_text(json.dumps({"settings": {"out": str(out), "workers": 1}}))
    (out / "weights.safetensors").write_bytes(b"1234")
    return out


def test_times_and_names_of_folders_are_not_compared_but_all_else_is(tmp_path):
    whole = contents(write(tmp_path / "a"))
    assert set(whole) == {"updates.jsonl", "ranking.json", "weights.safetensors"}
    assert difference(whole, contents(write(tmp_path / "b", seconds=2.0))) == ""
    assert difference(whole, contents(write(tmp_path / "c", loss=0.6))) == "differing: updates.jsonl"
    other = write(tmp_path / "d")
    (other / "weights.safetensors").write_bytes(b"1235")
    (other / ".weights.7.x.part").touch()
    assert difference(whole, contents(other)) == "differing: .weights.7.x.part, weights.safetensors"


def test_the_command_that_is_printed_goes_on(tmp_path):
    said = "1 of 9\nworldmodel pretrain: stopped; go on with: worldmodel pretrain tiny --out 'my run' --resume\n"
    call = ["pretrain", "tiny", "--out", "my run"]
    assert next_call(call, Ended(130, said, 1.0, True), tmp_path) == [*call, "--resume"]
    killed = Ended(-9, "1 of 9", 1.0, True)
    assert next_call(call, killed, tmp_path) == call
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "settings.json").touch()
    assert next_call(call, killed, tmp_path) == [*call, "--resume"]


@pytest.mark.parametrize(
    ("ended", "sent", "wrong"),
    [
        (Ended(130, "interrupted", 1.0, True), signal.SIGINT, ""),
        (Ended(-9, "", 1.0, True), signal.SIGKILL, ""),
        (Ended(0, "", 1.0, False), signal.SIGTERM, ""),
        (Ended(-15, "half", 1.0, True), signal.SIGTERM, "status -15 after SIGTERM: half"),
        (Ended(130, "Traceback\nlast", 1.0, True), signal.SIGINT, "a traceback after SIGINT: last"),
        (Ended(2, "refused", 1.0, False), signal.SIGINT, "status 2 after SIGINT: refused"),
    ],
)
def test_an_end_that_is_not_as_promised_is_named(ended, sent, wrong):
    assert fault(ended, sent, cold=False) == wrong


@pytest.mark.slow
def test_interrupted_recordings_are_identical(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(interruptions, "INPUTS", ())
    few = interruptions.COMMANDS["record"].replace("--episodes 24", "--episodes 12")
    monkeypatch.setitem(interruptions.COMMANDS, "record", few)
    config = interruptions.InterruptionsConfig(runs=3, only=("record",), workers_interval=9)
    assert interruptions.measure(config, tmp_path / "work")
    assert "3 of 3 runs identical" in capsys.readouterr().out
