"""Under CI a skipped test fails the session, unless what it lacked was a GPU or lerobot."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from places import ROOT

BODY = """
import pytest

@pytest.mark.gpu
def test_on_a_gpu(): pass

@pytest.mark.skip(reason="lerobot is not installed")
def test_with_lerobot(): pass

def test_that_runs(): pass

@pytest.mark.skipif({missing}, reason="needs the system package chromium-headless-shell")
def test_in_a_browser(): pass
"""


def run(folder, *, missing, ci, workers):
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs a CUDA device\n")
    (folder / "test_body.py").write_text(BODY.format(missing=missing))
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    environment = {**os.environ, "CI": ci, "CUDA_VISIBLE_DEVICES": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist.plugin", "-n", workers, "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_skip_fails_the_session(tmp_path):
    finished = run(tmp_path, missing=True, ci="true", workers="1")
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "FAILED under CI because it was skipped" in finished.stdout
    assert "needs the system package chromium-headless-shell" in finished.stdout


@pytest.mark.slow
def test_the_want_of_a_gpu_and_of_lerobot_does_not(tmp_path):
    assert run(tmp_path, missing=False, ci="true", workers="0").returncode == 0


def test_the_longest_files_are_there_and_begin_first():
    text = (ROOT / "tests" / "conftest.py").read_text()
    longest = re.findall(r'"(.+?)"', re.search(r"^LONGEST = \((.+?)^\)", text, re.DOTALL | re.MULTILINE)[1])
    assert longest
    assert [name for name in longest if not (ROOT / "tests" / name).is_file()] == []
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-m",
        "slow",
        "-o",
        "addopts=--import-mode=importlib",
    ]
    chosen = [ROOT / "tests" / name for name in ("house/test_ci.py", "house/test_packaging.py")]
    listed = subprocess.run([*command, *map(str, chosen)], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert listed[0].startswith("tests/house/test_packaging.py")
    assert any(line.startswith("tests/house/test_ci.py") for line in listed)
