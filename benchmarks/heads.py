"""Which head makes the better policy from the same demonstrations in the same CPU minutes?

python benchmarks/heads.py --task pusht-position --minutes 2 --out runs/heads/pusht-position

Clones every head with several seeds, each for the same CPU time, and lets the policies act for real from the
same held-out starts. How many steps a head makes in that time is measured first, with the heads side by side:
the learning rate has to fall to the end, and another load on the machine must not favour a head. Differences
are paired by start and seed; the interval resamples starts. Finished policies and trials are kept, so a killed
run continues. Writes `heads.json` with every trial.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from policy_eval.evaluation import evaluate
from policy_eval.policies.clone import (
    CloneConfig,
    Demonstrations,
    check_clone,
    clone,
    fit_policy,
    policy_config,
    read_demonstrations,
)
from policy_eval.policies.cloned import ClonedPolicy, make_policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table

HEADS = {"regression-8": {"chunk": 8}, "regression-1": {}, "flow-8": {"head": "flow", "chunk": 8}}
"""What is trained: a head, and how many actions it plans."""
ROWS = {
    "regression-8 after 4": ("regression-8", 4),
    "regression-8 after 1": ("regression-8", 1),
    "regression-1 after 1": ("regression-1", 1),
    "flow-8 after 4": ("flow-8", 4),
    "flow-8 after 1": ("flow-8", 1),
}
"""What acts: a trained head, and after how many actions it plans again."""
ROUNDS, ROUND_STEPS = 7, 15
"""The heads take turns in short trainings, so that other work on the machine slows all of them alike."""


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
    "metaworld-push-v3": Task(
        "metaworld:push-v3", "push", "metaworld-push-v3-heldout", 30, {"longest": 25, "demos": 134}
    ),
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
    """Rows to do."""
    against: tuple[str, ...] = ("regression-8 after 4", "regression-1 after 1")
    """Rows that the others are compared with."""
    num_envs: int = 10
    """Simulators stepped together."""


def check_settings(config: HeadsConfig) -> None:
    """Keep what the policies of a folder are trained for, and refuse to mix it with something else."""
    file, wanted = config.out / "settings.json", {"task": config.task, "minutes": config.minutes}
    if file.is_file() and read_object(file) != wanted:
        raise SystemExit(f"{file} is {read_object(file)}, this run is {wanted}")
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(file, wanted)


def steps_of(config: HeadsConfig) -> dict[str, int]:
    """Optimiser steps of every head in the minutes of the run; measured once for a folder."""
    file = config.out / "steps.json"
    if file.is_file():
        return read_object(file)
    timed = replace(config, out=config.out / "timing")
    ready = {head: made(clone_config(timed, head, 0, ROUND_STEPS)) for head in HEADS}
    costs = {head: [] for head in HEADS}
    for _ in range(ROUNDS):
        for head, each in ready.items():
            began = time.process_time()
            fit_policy(*each)
            costs[head].append((time.process_time() - began) / ROUND_STEPS)
    steps = {head: round(60 * config.minutes / float(np.median(each))) for head, each in costs.items()}
    write_json(file, steps)
    return steps


def made(settings: CloneConfig) -> tuple[ClonedPolicy, Demonstrations, CloneConfig]:
    """A fresh policy and what it learns from."""
    source = EpisodeCache(open_episodes(settings.data))
    rows = read_demonstrations(settings, source, check_clone(settings, source))
    return make_policy(policy_config(settings, source, rows)), rows, settings


def clone_config(config: HeadsConfig, head: str, seed: int, steps: int) -> CloneConfig:
    """How a head is cloned."""
    task = TASKS[config.task]
    settings = task.common | HEADS[head] | {"data": config.data / task.demonstrations}
    return CloneConfig(**settings, out=config.out / f"{head}-seed-{seed}", steps=steps, seed=seed, overwrite=True)


def train(config: HeadsConfig, head: str, seed: int) -> Path:
    """Clone one policy for the minutes of the run, unless it is there; returns its folder."""
    settings = clone_config(config, head, seed, steps_of(config)[head])
    if not (settings.out / "cpu.json").is_file():
        began = time.process_time()
        clone(settings)
        write_json(settings.out / "cpu.json", {"steps": settings.steps, "seconds": time.process_time() - began})
    return settings.out


def measure(config: HeadsConfig, row: str, seed: int, envs: RealEnvs) -> Scores:
    """Real trials of one row, unless they are there."""
    head, replan_after = ROWS[row]
    folder = train(config, head, seed)
    file = folder / f"after-{replan_after}.json"
    if file.is_file():
        scores = Scores.from_json(read_object(file))
        if tuple(scores.seeds.tolist()) == envs.starts.seeds:
            return scores
    policy = ClonedPolicy.load(folder)
    policy.config = replace(policy.config, replan_after=replan_after)
    scores = evaluate(policy, envs, name=row, horizon=TASKS[config.task].horizon)
    write_json(file, scores.to_json())
    print(f"{row}, seed {seed}: {scores.mean:.2f} of {len(scores)}", flush=True)
    return scores


def gain(row: Sequence[Scores], other: Sequence[Scores]) -> tuple[float, tuple[float, float] | None]:
    """Mean difference of two rows, seed by seed, and its interval over starts."""
    gains = np.mean([a.outcomes - b.outcomes for a, b in zip(row, other, strict=True)], axis=0)
    return float(gains.mean()), bootstrap_interval(gains, np.arange(len(gains)), resamples=4000)


def report(config: HeadsConfig, scores: dict[str, list[Scores]]) -> tuple[list[list[str]], dict]:
    """Lines of the table, and all that is written."""
    lines, found = [], {}
    for row, each in scores.items():
        head = ROWS[row][0]
        used = [read_object(config.out / f"{head}-seed-{seed}" / "cpu.json") for seed in config.seeds]
        line = [row, ", ".join(f"{one.mean:.2f}" for one in each), f"{np.mean([one.mean for one in each]):.3f}"]
        found[row] = {"cpu": used, "trials": [one.to_json() for one in each], "against": {}}
        for other in config.against:
            if row == other or other not in scores:
                line.append("-")
                continue
            points, interval = gain(each, scores[other])
            found[row]["against"][other] = {"gain": points, "interval": interval}
            shown = "" if interval is None else f" [{100 * interval[0]:+.0f}, {100 * interval[1]:+.0f}]"
            line.append(f"{100 * points:+.0f}{shown}")
        minutes = np.mean([one["seconds"] for one in used]) / 60
        lines.append([*line, f"{np.mean([one['steps'] for one in used]):.0f}", f"{minutes:.1f}"])
    return lines, found


def main(config: HeadsConfig) -> None:
    """Train, measure, write, print."""
    unknown = sorted({config.task} - set(TASKS)) + sorted({*config.rows, *config.against} - set(ROWS))
    if unknown:
        raise SystemExit(f"there is no {unknown[0]!r}; tasks are {', '.join(TASKS)}, rows {', '.join(ROWS)}")
    torch.set_num_threads(1)
    check_settings(config)
    task = TASKS[config.task]
    starts = Starts(open_episodes(config.data / task.starts), range(config.episodes))
    envs = RealEnvs(lambda: make_env(task.env), starts, num_envs=config.num_envs)
    by_seed = [{row: measure(config, row, seed, envs) for row in config.rows} for seed in config.seeds]
    envs.close()
    lines, found = report(config, {row: [each[row] for each in by_seed] for row in config.rows})
    against = [f"points above {other}" for other in config.against]
    print(table(["row", "real success by seed", "mean", *against, "steps", "CPU minutes"], lines))
    write_json(config.out / "heads.json", {"task": config.task, "minutes": config.minutes, "rows": found})


if __name__ == "__main__":
    main(tyro.cli(HeadsConfig))
