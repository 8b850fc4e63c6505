"""`worldmodel rank` on a Ray cluster of two nodes: the same cells as here, also when a node is lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray_nodes import Nodes, two_nodes, wait_for
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
PARTS = ("--world", "world", "--judge", "judge", "--policies", "slow:Slow", "--data", "starts")
LENGTHS = ("--episodes", str(2 * CELLS), "--num-envs", "2", "--num-steps", "1", "--horizon", "3", "--videos", "0")
FLAGS = ["rank", *PARTS, *LENGTHS, "--device", "cpu"]


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


def begun_on(raylet: int) -> list[int]:
    """First seeds of the cells that were begun on the node with this process."""
    return [seed for _, parent, seed in begun() if parent == raylet]


def ranked(nodes: Nodes, workers: str, out: str, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Rank on the cluster, and do something meanwhile."""
    command = [sys.executable, "-m", "worldmodel.cli", *FLAGS, "--workers", workers, "--out", out]
    environment = {**os.environ, **nodes.variables}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        meanwhile()
        said, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, said.decode()


@pytest.mark.slow
def test_a_lost_node_costs_only_the_cell_that_runs_there(folder):
    pytest.importorskip("ray")
    assert main([*FLAGS, "--workers", "1", "--out", "here"]) == 0
    seeds, lost = sorted(seed for *_, seed in begun()), []
    assert len(set(seeds)) == CELLS

    def lose_the_second() -> None:
        second = nodes.raylet(1)
        wait_for("three cells", lambda: len(cells("lost")) >= 3)
        before = len(begun_on(second))
        wait_for("one more there", lambda: len(begun_on(second)) > before)
        lost.append(begun_on(second)[-1])
        nodes.kill(1)

    with two_nodes() as nodes:
        Path("begun.txt").unlink()
        ranked(nodes, "ray", "lost", lose_the_second)
        assert cells("lost") == cells("here")
        assert sorted(seed for *_, seed in begun()) == sorted(seeds + lost)
        Path("begun.txt").unlink()
        ranked(nodes, nodes.client, "client")
        assert cells("client") == cells("here")
        assert sorted(seed for *_, seed in begun()) == seeds
