"""The command line, run as its users run it: in a process of its own."""

import os
import subprocess
import sys
import time

import pytest

from worldmodel.cli import COMMANDS, main


def worldmodel(*arguments, **environment):
    """Run a command; returns the finished process with its text."""
    return subprocess.run(
        [sys.executable, "-m", "worldmodel.cli", *map(str, arguments)],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "100", **environment},
    )  # fmt: skip


def test_help_is_instant_and_lists_every_command():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        finished = worldmodel("--help")
        seconds.append(time.perf_counter() - start)
    assert finished.returncode == 0
    assert all(f"  {name} " in finished.stdout for name in COMMANDS)
    assert min(seconds) < 1.5


def test_help_imports_nothing_heavy():
    code = "import sys; from worldmodel.cli import main; main(['--help']); print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"torch", "numpy", "gradio", "diffusers", "tyro"} & set(finished.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_every_option(name):
    finished = worldmodel(name, "--help")
    assert finished.returncode == 0, finished.stderr
    assert f"usage: worldmodel {name}" in finished.stdout
    lines = finished.stdout.splitlines()
    bare = [line for line in lines if line.startswith("│ --") and not line[25:].strip(" │")]
    assert not bare, f"options without an explanation: {bare}"


def test_an_unknown_command_is_one_line(capsys):
    assert main(["recrod"]) == 2
    assert capsys.readouterr().err == (
        "worldmodel: there is no command 'recrod'; did you mean 'record'?\n"
    )
    assert main(["xyz"]) == 2
    assert "the commands are record, pretrain" in capsys.readouterr().err


def test_a_mistake_is_one_line_unless_the_traceback_is_wanted(tmp_path):
    missing = tmp_path / "nothing"
    arguments = ("rollout", "--world", missing, "--data", missing, "--out", tmp_path / "a.mp4")
    (tmp_path / "nothing").mkdir()
    finished = worldmodel(*arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"worldmodel rollout: {missing}: no world model here")
    assert finished.stderr.count("\n") == 1
    with pytest.raises(ValueError, match="no world model here"):
        main([*map(str, arguments), "--traceback"])
