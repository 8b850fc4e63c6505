"""Which head makes the better policy from the same demonstrations in the same CPU minutes?

python benchmarks/heads.py --task pusht-position --minutes 2 --out runs/heads/pusht-position

Clones every row with several seeds, each for the same CPU time, and lets the policies act for real from the
same held-out starts. Differences are paired by start and seed; the interval resamples starts. Finished
policies and trials are kept, so a killed run continues. Writes `heads.json` with every trial.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float64

from policy_eval.evaluation import evaluate
from policy_eval.policies.clone import CloneConfig, clone
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table

FLOW = {"head": "flow", "chunk": 8, "replan_after": 1}
ROWS = {"regression": {}, "regression-chunk-8": {"chunk": 8}, "flow": FLOW}
"""What is special about each row."""
PILOT_STEPS = 40
"""Optimiser steps whose CPU time tells how many steps a row gets."""


@dataclass(frozen=True)
class Task:
    """Where the heads are compared.

    Attributes:
        env: The environment.
        demonstrations: Data set to clone from, see `benchmarks/policies.py`.
        starts: Data set of held-out starts.
        horizon: Most steps of a trial.
        common: Settings that all rows share.
    """

    env: str
    demonstrations: str
    starts: str
    horizon: int
    common: dict


TASKS = {
    "pusht-position": Task(
        "pusht-position", "pusht-position-demos-b", "pusht-position-heldout", 60, {"relative_to": {0: 0, 1: 1}}
    ),
    "metaworld-push-v3": Task("metaworld:push-v3", "push", "metaworld-push-v3-heldout", 30, {"longest": 25}),
}


@dataclass(frozen=True)
class HeadsConfig:
    """Compare heads on one task."""

    out: Path
    """Folder of the policies, their trials, and `heads.json`."""
    task: str = "pusht-position"
    """One of the tasks in this file."""
    data: Path = Path("data")
    """Folder of the data sets."""
    minutes: float = 2.0
    """CPU minutes of each training."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and batches."""
    episodes: int = 100
    """Real trials of each policy."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Rows to do; the first is what the others are compared with."""
    num_envs: int = 10
    """Simulators stepped together."""


def train(config: HeadsConfig, row: str, seed: int) -> Path:
    """Clone one policy for the minutes of the run, unless it is there; returns its folder.

    How many steps that are is measured first, because the learning rate has to fall to the end.
    """
    folder = config.out / f"{row}-{seed}"
    if (folder / "cpu.json").is_file():
        return folder
    task = TASKS[config.task]
    settings = CloneConfig(
        **task.common | ROWS[row], data=config.data / task.demonstrations, out=folder, seed=seed, overwrite=True
    )
    once = cpu_seconds(replace(settings, steps=1))
    per_step = (cpu_seconds(replace(settings, steps=1 + PILOT_STEPS)) - once) / PILOT_STEPS
    steps = max(round(60 * config.minutes / per_step), 1)
    used = cpu_seconds(replace(settings, steps=steps)) - once
    write_json(folder / "cpu.json", {"steps": steps, "seconds": used})
    return folder


def cpu_seconds(settings: CloneConfig) -> float:
    """CPU seconds of a whole `clone`, reading included."""
    began = time.process_time()
    clone(settings)
    return time.process_time() - began


def measure(config: HeadsConfig, row: str, seed: int, envs: RealEnvs) -> Scores:
    """Real trials of one policy, unless they are there."""
    folder = train(config, row, seed)
    file = folder / "real.json"
    if file.is_file():
        scores = Scores.from_json(read_object(file))
        if tuple(scores.seeds.tolist()) == envs.starts.seeds:
            return scores
    scores = evaluate(ClonedPolicy.load(folder), envs, name=f"{row}-{seed}", horizon=TASKS[config.task].horizon)
    write_json(file, scores.to_json())
    print(f"{row}, seed {seed}: {scores.mean:.2f} of {len(scores)}", flush=True)
    return scores


def difference(
    row: Sequence[Scores], other: Sequence[Scores]
) -> tuple[float, tuple[float, float] | None, Float64[np.ndarray, "n"]]:
    """Mean difference, its interval over starts, and the difference at every start."""
    gains = np.mean([a.outcomes - b.outcomes for a, b in zip(row, other, strict=True)], axis=0)
    return float(gains.mean()), bootstrap_interval(gains, np.arange(len(gains)), resamples=4000), gains


def main(config: HeadsConfig) -> None:
    """Train, measure, write, print."""
    unknown = sorted({config.task} - set(TASKS)) + sorted(set(config.rows) - set(ROWS))
    if unknown:
        raise SystemExit(f"there is no {unknown[0]!r}; tasks are {', '.join(TASKS)}, rows {', '.join(ROWS)}")
    torch.set_num_threads(1)
    task = TASKS[config.task]
    starts = Starts(open_episodes(config.data / task.starts), range(config.episodes))
    envs = RealEnvs(lambda: make_env(task.env), starts, num_envs=config.num_envs)
    scores = {row: [measure(config, row, seed, envs) for seed in config.seeds] for row in config.rows}
    envs.close()
    lines, found = [], {}
    for row, each in scores.items():
        used = [read_object(config.out / f"{row}-{seed}" / "cpu.json") for seed in config.seeds]
        by_seed = ", ".join(f"{one.mean:.2f}" for one in each)
        line = [row, by_seed, f"{np.mean([one.mean for one in each]):.3f}"]
        found[row] = {"cpu": used, "trials": [one.to_json() for one in each]}
        if row == config.rows[0]:
            line += ["-", "-"]
        else:
            gain, interval, _ = difference(each, scores[config.rows[0]])
            found[row]["gain"], found[row]["interval"] = gain, interval
            shown = "-" if interval is None else f"{100 * interval[0]:+.0f} to {100 * interval[1]:+.0f}"
            line += [f"{100 * gain:+.0f}", shown]
        steps = ", ".join(str(one["steps"]) for one in used)
        lines.append([*line, steps, f"{np.mean([one['seconds'] for one in used]) / 60:.1f}"])
    heads = ["row", "real success by seed", "mean", f"points above {config.rows[0]}", "95% interval"]
    print(table([*heads, "steps", "CPU minutes"], lines))
    write_json(config.out / "heads.json", {"task": config.task, "minutes": config.minutes, "rows": found})


if __name__ == "__main__":
    main(tyro.cli(HeadsConfig))
