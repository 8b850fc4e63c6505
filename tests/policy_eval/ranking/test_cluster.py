"""`worldmodel rank` on a Ray cluster of two nodes: the same cells as here, also when a node is lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ray_nodes import two_nodes, wait_for
from square_world import write_episodes
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from worldmodel.cli import main

POLICY = '''
import os, time, torch

class Slow:
    """Moves by the seed, and notes which process, of which parent, begins which trials."""

    def reset(self, seeds):
        self.seeds = torch.tensor(seeds) % 7 / 7
        with open("begun.txt", "a") as file:
            file.write(f"{os.getpid()} {os.getppid()} {min(seeds)}\\n")
        time.sleep(0.5)

    def act(self, observation):
        return self.seeds[:, None].repeat(1, 2)
'''
CELLS = 10
FLAGS = ["rank", *"--world world --judge judge --policies slow:Slow --data starts --horizon 3 --device cpu".split()]
FLAGS += ["--episodes", str(2 * CELLS), "--num-envs", "2", "--num-steps", "1", "--videos", "0"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An untrained world and judge, starts and a policy, in the current folder."""
    monkeypatch.chdir(tmp_path)
    tiny_world(size=(16, 16)).save(tmp_path / "world")
    torch.manual_seed(0)
    LearnedJudge(JudgeShape(("top", "wrist"), (16, 16), width=8), threshold=0.9).save(tmp_path / "judge")
    write_episodes(tmp_path / "starts", 2 * CELLS)
    Path("slow.py").write_text(POLICY)
    return tmp_path


def begun() -> list[tuple[int, int, int]]:
    """Process, parent process and first seed of the cells that were begun."""
    file = Path("begun.txt")
    return [tuple(map(int, line.split())) for line in file.read_text().splitlines()] if file.exists() else []


def cells(out: str) -> dict[str, bytes]:
    """The files of finished cells."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(Path(out, "cells").rglob("*.json"))}


@pytest.mark.slow
def test_a_lost_node_costs_only_the_cell_that_runs_there(folder):
    pytest.importorskip("ray")
    assert main([*FLAGS, "--workers", "1", "--out", "here"]) == 0
    seeds = sorted({seed for *_, seed in begun()})
    assert len(seeds) == CELLS
    with two_nodes() as nodes:
        for workers in ("ray", nodes.client):
            Path("begun.txt").unlink(missing_ok=True)
            out = f"there-{workers[:4]}"
            command = [sys.executable, "-m", "worldmodel.cli", *FLAGS, "--workers", workers, "--out", out]
            environment = {**os.environ, **nodes.variables}
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            lost = []
            if workers == "ray":
                second = nodes.raylet(1)
                wait_for("three cells", lambda: len(cells(out)) >= 3)
                before = sum(parent == second for _, parent, _ in begun())
                wait_for("one more there", lambda: sum(parent == second for _, parent, _ in begun()) > before)
                lost = [seed for _, parent, seed in begun() if parent == second][-1:]
                nodes.kill(1)
            said, _ = process.communicate(timeout=180)
            assert process.returncode == 0, said.decode()
            assert cells(out) == cells("here")
            assert sorted(seed for *_, seed in begun()) == sorted(seeds + lost)
