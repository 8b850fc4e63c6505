"""Measure a server of dreams: how fast it is, and what it does with visitors who break every rule.

```
python benchmarks/serve.py speed --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
python benchmarks/serve.py abuse --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
```

`speed` compares sessions of separate connections, each with one dream and one action a message, with `DreamEnv` at the
same batch size in one process; clients and server share the cores. Turns alternate, so that other work on the machine
meets both. `abuse` is in `benchmarks/serve_abuse.py`.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from gymnasium.vector import AutoresetMode

from policy_eval.judge.judge import LearnedJudge
from worldmodel import DreamEnv, Starts, WorldModel, connect, open_episodes


@dataclass(frozen=True)
class Served:
    """What is served."""

    world: Path
    """Folder of the world model."""
    judge: Path
    """Folder of the judge."""
    data: Path
    """Data set to start from."""


@dataclass(frozen=True)
class Speed(Served):
    """Frames per second in sum, against `DreamEnv` at the same batch size."""

    sessions: int = 8
    """Sessions, and the batch size."""
    steps: int = 60
    """Steps of a turn."""
    turns: int = 8
    """Turns of each."""


@contextlib.contextmanager
def server(served: Served, *options: str) -> Iterator[tuple[str, int]]:
    """A server in a process of its own: its URL and its process number."""
    command = [sys.executable, "-m", "worldmodel.cli", "serve", "--port", "0", "--device", "cpu"]
    command += ["--world", str(served.world), "--judge", str(served.judge), "--data", str(served.data), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if " is served at " in line:
                break
        else:
            raise ValueError("the server did not start")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield line.split()[-1], process.pid
    finally:
        process.terminate()
        process.wait()


def dream_env(config: Speed) -> DreamEnv:
    """The same dreams in this process."""
    world, judge = WorldModel.load(config.world), LearnedJudge.load(config.judge)
    starts = Starts(open_episodes(config.data, tuple(world.size), world.views))
    mode = AutoresetMode.DISABLED
    return DreamEnv(world, starts, judge, num_envs=config.sessions, horizon=10**9, autoreset_mode=mode)


def in_process(envs: DreamEnv, actions: np.ndarray) -> float:
    """Frames per second of all streams."""
    began = time.perf_counter()
    for action in actions:
        envs.step(action)
    return actions.shape[0] * actions.shape[1] / (time.perf_counter() - began)


def over_the_wire(envs: list, actions: np.ndarray) -> tuple[float, list[float]]:
    """Frames per second of all sessions, and the seconds that each step took."""
    seconds: list[list[float]] = [[] for _ in envs]
    together = threading.Barrier(len(envs) + 1)

    def drive(index: int) -> None:
        together.wait()
        for action in actions[:, index]:
            began = time.perf_counter()
            envs[index].step(action)
            seconds[index].append(time.perf_counter() - began)

    threads = [threading.Thread(target=drive, args=(index,)) for index in range(len(envs))]
    for thread in threads:
        thread.start()
    together.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return actions.shape[0] * actions.shape[1] / (time.perf_counter() - began), [
        second for each in seconds for second in each
    ]


def speed(config: Speed) -> dict:
    """Alternate turns of both; prints and returns the figures."""
    local = dream_env(config)
    local.reset(seed=0)
    rng = np.random.default_rng(0)
    box = local.single_action_space
    pairs, steps = [], []
    with server(config, "--batch", str(config.sessions)) as (url, _):
        remote = [connect(url) for _ in range(config.sessions)]
        for index, env in enumerate(remote):
            env.reset(seed=index)
        for turn in range(config.turns + 1):
            shape = (config.steps, config.sessions, *box.shape)
            actions = rng.uniform(box.low, box.high, shape).astype(np.float32)
            here = in_process(local, actions)
            there, seconds = over_the_wire(remote, actions)
            if turn:  # the first one warms up
                pairs.append((here, there))
                steps += seconds
                print(f"turn {turn}: DreamEnv {here:.1f}, served {there:.1f} frames/s", flush=True)
        for env in remote:
            env.close()
    ratios = [there / here for here, there in pairs]
    p50, p99 = np.percentile(steps, [50, 99]) * 1000
    figures = {
        "sessions": config.sessions,
        "cores": len(os.sched_getaffinity(0)),
        "dream_env_fps": float(np.median([here for here, _ in pairs])),
        "served_fps": float(np.median([there for _, there in pairs])),
        "ratio": float(np.median(ratios)),
        "ratio_range": [min(ratios), max(ratios)],
        "p50_ms": float(p50),
        "p99_ms": float(p99),
    }
    print(json.dumps(figures))
    return figures


def main() -> None:
    """Run one of the two."""
    from serve_abuse import Abuse, abuse

    commands = Annotated[Speed, tyro.conf.subcommand("speed")] | Annotated[Abuse, tyro.conf.subcommand("abuse")]
    config = tyro.cli(commands, description=__doc__)
    speed(config) if isinstance(config, Speed) else abuse(config)


if __name__ == "__main__":
    main()
