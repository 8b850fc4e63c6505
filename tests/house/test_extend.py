"""The pages on extending run as they stand, each in an empty folder and in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from run_page import FILE, blocks

PAGES = ROOT / "docs" / "extend"
RUNNER = ROOT / "tests" / "helpers" / "run_page.py"


def run_page(folder: Path, name: str, *before: str) -> str:
    """Run the page `name` after the files of the pages `before` were written; returns what it printed."""
    pages = [str(PAGES / f"{page}.md") for page in (*before, name)]
    finished = subprocess.run([sys.executable, str(RUNNER), *pages], cwd=folder, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def robot_types(folder: Path) -> dict[str, str]:
    return {file.parts[-3]: json.loads(file.read_text())["robot_type"] for file in folder.glob("*/meta/info.json")}


def test_the_class_of_the_page_has_twenty_lines():
    (text,) = [text for _, text in blocks(PAGES / "environment.md") if FILE.match(text)]
    lines = text[text.index("class ") :].strip().splitlines()
    assert len(lines) <= 20


def test_the_server_of_the_page_has_thirty_lines():
    (text,) = [text for _, text in blocks(PAGES / "policy.md") if text.startswith("# my_server.py")]
    assert len([line for line in text.splitlines() if line]) <= 30


@pytest.mark.slow
def test_environment_and_policy(tmp_path):
    """The second page goes on with what the first one made."""
    printed = run_page(tmp_path, "environment")
    assert "smooth random actions are recorded" in printed.replace("\n", " ")
    assert robot_types(tmp_path) == {"data": "my_env:MyEnv", "held_out": "my_env:MyEnv"}
    assert "action gap" in printed
    run_page(tmp_path, "policy", "environment")
    check_by_wire(tmp_path)
    ranking = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    assert {policy["name"] for policy in ranking["policies"]} == {"chase", "Drift"}
    assert all(policy["real"]["n"] == 4 for policy in ranking["policies"])


@pytest.mark.slow
def test_behaviour(tmp_path):
    run_page(tmp_path, "behaviour", "environment")
    assert set(robot_types(tmp_path)) == {"chased", "wandered", "shown"}


def check_by_wire(folder: Path) -> None:
    """A policy behind the server of the page has the trials of the same policy in the process, one by one."""
    here, there = (json.loads((folder / name / "ranking.json").read_text()) for name in ("ranking", "ranking_by_wire"))
    mine = [row | {"policy": ""} for row in here["trials"] if row["policy"] == "Drift"]
    assert len(mine) == 8
    assert [row | {"policy": ""} for row in there["trials"] if row["policy"] == "localhost-8765"] == mine


@pytest.mark.slow
def test_format(tmp_path):
    printed = run_page(tmp_path, "format").splitlines()
    assert printed == ["(16, 24) (12, 12) torch.Size([5, 1, 16, 24, 3]) torch.Size([4, 2])", "[1]"]


def test_links_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in PAGES.glob("*.md")
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        if not (PAGES / target).exists()
    ]
    assert broken == []
