"""Measure a server: how fast it is, whether it shows the same, and what it does with visitors who break every rule.

```
python benchmarks/serve.py speed --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
python benchmarks/serve.py same --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
python benchmarks/serve.py abuse --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
python benchmarks/serve.py waiting --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
python benchmarks/serve.py load --world checkpoints/pusht --judge checkpoints/judges/pusht-position --data DATA
python benchmarks/serve.py policies --policies checkpoints/policies/pusht-position --data DATA
```

`speed` compares sessions of separate connections, each with one dream and one action a message, with `DreamEnv` at the
same batch size in one process; clients and server share the cores. Turns alternate, so that other work on the machine
meets both. `same` counts the values that differ between the two. `abuse` is in `benchmarks/serve_abuse.py`; `load`,
which is many visitors for a long time, in `benchmarks/serve_load.py`; and `policies`, which compares served policies
with those in this process, in `benchmarks/serve_policies.py`. `waiting`, in `benchmarks/serve_waiting.py`, tells how
long threads should wait for each other.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import gymnasium
import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode

from policy_eval.judge.judge import LearnedJudge
from worldmodel import DreamEnv, Starts, WorldModel, connect, open_episodes
from worldmodel.model.card import table


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
    threads: int | None = None
    """Threads of the server, and of `DreamEnv`; as many as there are cores when not given."""


@dataclass(frozen=True)
class Same(Served):
    """How many values of a served dream differ from `DreamEnv` in any bit; the server is a process of its own."""

    sessions: int = 4
    """Sessions, and the batch size."""
    steps: int = 200
    """Steps of each."""


@contextlib.contextmanager
def server(served: Served, *options: str, threads: int | None = None) -> Iterator[tuple[str, int]]:
    """A server of a world model in a process of its own: its URL and its process number."""
    parts = ["--world", str(served.world), "--judge", str(served.judge), "--data", str(served.data), *options]
    with started("--device", "cpu", *parts, threads=threads) as found:
        yield found


@contextlib.contextmanager
def started(*options: str, threads: int | None = None) -> Iterator[tuple[str, int]]:
    """`worldmodel serve` in a process of its own: its URL and its process number."""
    command = [sys.executable, "-m", "worldmodel.cli", "serve", "--port", "0", *options]
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
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


def dream_env(config: Served, sessions: int) -> DreamEnv:
    """The same dreams in this process."""
    world, judge = WorldModel.load(config.world), LearnedJudge.load(config.judge)
    starts = Starts(open_episodes(config.data, tuple(world.size), world.views))
    mode = AutoresetMode.DISABLED
    return DreamEnv(world, starts, judge, num_envs=sessions, horizon=10**9, autoreset_mode=mode)


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
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    local = dream_env(config, config.sessions)
    local.reset(seed=0)
    rng = np.random.default_rng(0)
    box = local.single_action_space
    pairs, steps = [], []
    with server(config, "--batch", str(config.sessions), threads=config.threads) as (url, _):
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
    low, high = figures["ratio_range"]
    cells = [f"{figures['dream_env_fps']:.1f}", f"{figures['served_fps']:.1f}"]
    cells += [f"{figures['ratio']:.2f} ({low:.2f} to {high:.2f})", f"{p50:.0f}, {p99:.0f}"]
    threads = config.threads or f"{figures['cores']} cores, all"
    heads = ["sessions", "threads", "DreamEnv, frames/s", "served, frames/s", "ratio (range over turns)"]
    print(table([*heads, "a step, ms: median, 99th percentile"], [[str(config.sessions), str(threads), *cells]]))
    return figures


def same(config: Same) -> dict:
    """The same actions from the same starts with the same noise, each session over a connection of its own."""
    local = dream_env(config, config.sessions)
    box = local.single_action_space
    actions = np.random.default_rng(0).uniform(box.low, box.high, (config.steps, config.sessions, *box.shape))
    places = range(config.sessions)
    first, _ = local.reset(seed=0)
    told = [local.step(action)[:2] for action in actions.astype(np.float32)]
    differ = dict.fromkeys([*first, "reward"], 0)

    def count(env: gymnasium.Env, place: int) -> dict[str, int]:
        found = dict.fromkeys(differ, 0)
        for action, (truth, rewards) in zip(actions[:, place].astype(np.float32), told, strict=True):
            shown, reward, *_ = env.step(action)
            for name, values in truth.items():
                found[name] += int((values[place] != shown[name]).sum())
            found["reward"] += int(rewards[place] != reward)
        return found

    with server(config, "--batch", str(config.sessions)) as (url, _), ThreadPoolExecutor(config.sessions) as threads:
        remote = [connect(url) for _ in places]
        for place, env in enumerate(remote):  # one after the other, so that they have the rows in this order
            env.reset(seed=place)
        for found in threads.map(count, remote, places):
            differ = {name: number + found[name] for name, number in differ.items()}
        for env in remote:
            env.close()
    frames = config.steps * config.sessions
    rows = [[name, f"{number} in {frames} frames"] for name, number in differ.items()]
    print(table([f"{config.sessions} dreams of {config.steps} steps", "values that differ"], rows))
    return differ


def main() -> None:
    """Run one of them."""
    from serve_abuse import Abuse, abuse
    from serve_load import Load, load
    from serve_policies import ServedPolicies, compare_policies
    from serve_waiting import Waiting, compare_waits

    runs = {
        Speed: speed,
        Same: same,
        Abuse: abuse,
        Load: load,
        ServedPolicies: compare_policies,
        Waiting: compare_waits,
    }
    config = tyro.cli(
        Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Same, tyro.conf.subcommand("same")]
        | Annotated[Abuse, tyro.conf.subcommand("abuse")]
        | Annotated[Load, tyro.conf.subcommand("load")]
        | Annotated[ServedPolicies, tyro.conf.subcommand("policies")]
        | Annotated[Waiting, tyro.conf.subcommand("waiting")],
        description=__doc__,
    )
    runs[type(config)](config)


if __name__ == "__main__":
    main()
