"""Progress without a terminal: plain lines with facts and the time left, also in the log file."""

import re

from worldmodel.display.progress import ProgressLine


def test_without_a_terminal_there_is_a_line_at_every_interval_and_one_at_the_end(capsys, tmp_path):
    log = tmp_path / "train.log"
    with ProgressLine("pretrain", 4, unit="steps", log=log, interval=60.0) as progress:
        progress.advance(note="loss 0.5")  # too early for a line
        progress.shown -= 60
        progress.advance(note="loss 0.25")
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"pretrain: 2 of 4 steps  loss 0.25, 0:00:00 gone, about 0:00:00 left", lines[0])
    assert lines[1] == lines[0] and len(lines) == 2
    kept = log.read_text().splitlines()
    assert [line[20:] for line in kept] == lines and re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", kept[0])


def test_the_time_left_is_by_the_speed_since_the_start(capsys):
    with ProgressLine("imagine", 1.0, completed=0.5) as progress:
        progress.started -= 30  # half a minute for the third quarter
        progress.update(0.75, "update 3 of 4")
        assert progress.line == "imagine: update 3 of 4, 0:00:30 gone, 75%, about 0:00:30 left"
        progress.update(1.0)
        assert progress.line == "imagine: update 3 of 4, 0:00:30 gone, 100%"


def test_a_disabled_line_says_nothing(capsys, tmp_path):
    with ProgressLine("quiet", 2, log=tmp_path / "log", disable=True, interval=0.0) as progress:
        progress.advance()
    assert capsys.readouterr() == ("", "") and not (tmp_path / "log").exists()


def test_a_run_writes_a_line_every_thirty_seconds():
    assert ProgressLine("x", 1).interval == 30
