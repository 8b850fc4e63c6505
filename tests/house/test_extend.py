"""The pages on extending run as they stand, each in an empty folder and in a process of its own."""

import json
import os
import re
import socket
import threading
from pathlib import Path

import pytest
import torch
from fresh_python import python
from places import ROOT
from run_page import FILE, blocks

from policy_eval import load_judge
from worldmodel import Observation

PAGES = ROOT / "docs" / "extend"
RUNNER = ROOT / "tests" / "helpers" / "run_page.py"


def run_page(folder: Path, name: str, *before: str) -> str:
    """Run the page `name` after the files of the pages `before` were written; returns what it printed."""
    pages = [str(PAGES / f"{page}.md") for page in (*before, name)]
    finished = python(RUNNER, *pages, cwd=folder, env={**os.environ, "FREE_PORT": str(free_port())})
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


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
    """The other pages go on with what the first one made."""
    printed = run_page(tmp_path, "environment")
    assert "smooth random actions are recorded" in printed.replace("\n", " ")
    assert robot_types(tmp_path) == {"data": "my_env:MyEnv", "held_out": "my_env:MyEnv"}
    assert "action gap" in printed
    assert run_page(tmp_path, "reward", "environment").splitlines()[-1] == "again"
    for out, names in (("better", {"fidelity", "smooth", "Bright"}), ("again", {"fidelity", "smooth", "still"})):
        assert set(json.loads((tmp_path / out / "spread.json").read_text())) == names
    run_page(tmp_path, "policy", "environment")
    check_by_wire(tmp_path)
    ranking = json.loads((tmp_path / "ranking" / "ranking.json").read_text())
    assert {policy["name"] for policy in ranking["policies"]} == {"chase", "Drift"}
    assert all(policy["real"]["n"] == 4 for policy in ranking["policies"])
    assert run_page(tmp_path, "judge", "environment", "policy").splitlines()[-1] == "[False, True]"
    assert (tmp_path / "judged" / "ranking.json").is_file()
    check_judge_server(tmp_path)
    run_page(tmp_path, "steering", "environment", "policy")
    steering = json.loads((tmp_path / "steered" / "steering.json").read_text())
    assert list(steering["rows"]) == ["alone", "random", "steered"]
    ranked = json.loads((tmp_path / "ranked" / "ranking.json").read_text())
    assert {policy["name"] for policy in ranked["policies"]} == {"Timid", "steered"}


def check_judge_server(folder: Path) -> None:
    """The server of the page judges as the function of the page does."""
    code = (folder / "judge_server.py").read_text()
    names: dict = {"__name__": "judge_server"}
    exec(code, names)
    with names["ThreadingHTTPServer"](("127.0.0.1", 0), names["Server"]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        judge = load_judge(f"http://127.0.0.1:{server.server_address[1]}", views=("top",))
        frames = torch.zeros(2, 1, 24, 24, 3, dtype=torch.uint8)
        frames[1, :, :, -1] = 255
        assert judge(Observation(frames, None)).successes.tolist() == [False, True]
        server.shutdown()


@pytest.mark.slow
def test_behaviour(tmp_path):
    run_page(tmp_path, "behaviour", "environment")
    assert set(robot_types(tmp_path)) == {"chased", "wandered", "shown"}


def check_by_wire(folder: Path) -> None:
    """A policy behind the server of the page has the trials of the same policy in the process, one by one."""
    here, there = (json.loads((folder / name / "ranking.json").read_text()) for name in ("ranking", "ranking_by_wire"))
    mine = [row | {"policy": ""} for row in here["trials"] if row["policy"] == "Drift"]
    assert len(mine) == 8
    assert [row | {"policy": ""} for row in there["trials"] if row["policy"].startswith("localhost-")] == mine


@pytest.mark.slow
def test_learner(tmp_path):
    """An agent that learns in dreams alone becomes better for real."""
    pytest.importorskip("stable_baselines3", reason="the extra rl is missing")
    printed = run_page(tmp_path, "learner", "environment")
    before, after = re.search(r"real return: ([\d.]+) before, ([\d.]+) after", printed).groups()
    assert float(after) > float(before) + 1


@pytest.mark.slow
def test_format(tmp_path):
    printed = run_page(tmp_path, "format").splitlines()
    assert printed == ["(16, 24) (12, 12) torch.Size([5, 1, 16, 24, 3]) torch.Size([4, 2])", "[1]"]


@pytest.mark.slow
def test_sampler(tmp_path):
    """Another sampler changes the frames."""
    assert int(re.search(r"tensor\((\d+)", run_page(tmp_path, "sampler"))[1]) > 0


@pytest.mark.slow
def test_rival(tmp_path):
    assert run_page(tmp_path, "rival").strip() == "(1, 2, 64, 64, 3) (1, 2)"


@pytest.mark.slow
def test_backbone(tmp_path):
    """A family of one's own is saved, loaded and dreamt with; its eight layers have two matrices of an adapter each."""
    assert run_page(tmp_path, "backbone").splitlines()[-1] == "True 16"


def test_links_lead_somewhere():
    broken = [
        f"{page.name}: {target}"
        for page in PAGES.glob("*.md")
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        if not (PAGES / target).exists()
    ]
    assert broken == []
