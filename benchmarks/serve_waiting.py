"""How long the threads of OpenMP wait for each other before they sleep, and how fast a dream is then.

`python benchmarks/serve.py waiting ...` prints the table. Each row is a process of its own, because OpenMP reads the
setting when it starts; the other program is one that only counts.
"""

import multiprocessing
import os
import subprocess
import sys
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
from serve import Served, dream_env, in_process

from worldmodel.model.card import table

WAITS = {
    "the default of OpenMP": {},
    "30,000 rounds": {"GOMP_SPINCOUNT": "30000"},
    "10,000 rounds": {"GOMP_SPINCOUNT": "10000"},
    "5,000 rounds": {"GOMP_SPINCOUNT": "5000"},
    "2,000 rounds": {"GOMP_SPINCOUNT": "2000"},
    "none": {"OMP_WAIT_POLICY": "passive"},
}
COUNT = "while True: pass"


@dataclass(frozen=True)
class Waiting(Served):
    """Frames per second of `DreamEnv` on an idle machine, and beside other programs, by how long threads wait."""

    sessions: int = 8
    """Dreams in a batch."""
    steps: int = 25
    """Steps of a turn."""
    turns: int = 3
    """Turns of each row."""
    others: int = 1
    """Other programs, each of which keeps a core busy."""


def turns(config: Waiting) -> list[float]:
    """Frames per second of each turn."""
    envs = dream_env(config, config.sessions)
    envs.reset(seed=0)
    rng, box = np.random.default_rng(0), envs.single_action_space
    shape = (config.steps, config.sessions, *box.shape)
    return [in_process(envs, rng.uniform(box.low, box.high, shape).astype(np.float32)) for _ in range(config.turns)]


def apart(config: Waiting, setting: dict[str, str]) -> str:
    """The turns in a new process with these environment variables."""
    with patch.dict(os.environ, setting), multiprocessing.get_context("spawn").Pool(1) as pool:
        return ", ".join(f"{each:.0f}" for each in pool.apply(turns, (config,)))


def compare_waits(config: Waiting) -> list[list[str]]:
    """Measure all rows; prints and returns them."""
    rows = []
    for name, setting in WAITS.items():
        idle = apart(config, setting)
        others = [subprocess.Popen([sys.executable, "-c", COUNT]) for _ in range(config.others)]
        try:
            rows.append([name, idle, apart(config, setting)])
        finally:
            for each in others:
                each.kill()
                each.wait()
    busy = f"beside {config.others} busy program{'s' if config.others > 1 else ''}"
    print(table(["threads wait for", "alone, frames/s", busy], rows))
    return rows
