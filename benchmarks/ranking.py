"""Rank graded policies in dreams of every task and hold the order against real trials.

```
python benchmarks/ranking.py --quick --out runs/ranking/quick     # what is shipped, 10 minutes
python benchmarks/ranking.py --out runs/ranking/full              # 100 dreams and 100 real trials
```

Policies are those of `benchmarks/policies.py`, in a folder per task with `real.json`, the outcomes
of their real trials; judges are in a folder per task. `--quick` dreams from fewer starts, takes the
stored real outcomes, and makes 10 random cells of real trials anew, to check them. Starts are
recorded from their reset seeds, once. Killed, the command continues where it stood.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from policy_eval.policies.find import find_policies
from policy_eval.ranking.command import RankConfig, rank_policies
from policy_eval.ranking.outcomes import read_outcomes
from policy_eval.ranking.rank import pooled_pearson
from policy_eval.ranking.setup import SIMULATORS, TrialSetup
from policy_eval.ranking.tally import imagined_successes, trials_of
from policy_eval.ranking.trials import cut, gather, replays, run_cells
from policy_eval.scores import Scores
from worldmodel.envs.record import SEED_STRIDE, RecordConfig, record
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.processes import single_thread
from worldmodel.processes.workers import read_workers

TASKS = {
    "pusht-position": ("pusht-position", Path("checkpoints/pusht"), 60),
    "metaworld-push-v3": ("metaworld:push-v3", Path("checkpoints/metaworld-push"), 30),
    "metaworld-button-press-topdown-v3": (
        "metaworld:button-press-topdown-v3",
        Path("checkpoints/metaworld-button-press-topdown"),
        30,
    ),
    "metaworld-window-open-v3": ("metaworld:window-open-v3", Path("checkpoints/metaworld-window-open"), 30),
}
"""Environment, world model and most steps of a trial."""
STATISTICS = ("pearson", "spearman", "mmrv")
CHECKED_CELLS = 10


@dataclass(frozen=True)
class RankingBenchmark:
    """Rank the policies of every task that has a world model, a judge and policies."""

    out: Path
    """Folder of the rankings, their reports, and `bars.json`."""
    quick: bool = False
    """Dream less, and take the stored real outcomes but for a sample."""
    episodes: int | None = None
    """Dreamed trials of each policy; 100, or 25 with `--quick`."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Which tasks; those without files are left out, and named."""
    policies: Path = Path("checkpoints/policies")
    """Graded policies, a folder per task."""
    judges: Path = Path("checkpoints/judges")
    """Judges, a folder per task."""
    starts: Path = Path("runs/ranking/starts")
    """Where the starts are recorded, a folder per task; those that are there are taken."""
    worlds: dict[str, Path] = field(default_factory=dict)
    """World models of tasks, in place of the shipped ones."""
    num_steps: int = 2
    """Denoising steps per frame."""
    workers: int | str = os.cpu_count() or 1
    """Processes, or ray, or ray://HOST:PORT."""
    seed: int = 0
    """Which cells are checked, and the seed of dreams and resampling."""

    @property
    def dreams(self) -> int:
        """Dreamed trials of each policy."""
        return self.episodes or (25 if self.quick else 100)

    def world(self, task: str) -> Path:
        """World model of a task."""
        return self.worlds.get(task, TASKS[task][1])

    def missing(self, task: str) -> list[str]:
        """Files that a task lacks."""
        needed = [self.world(task) / "world.json", self.judges / task / "judge.json"]
        needed.append(self.policies / task / "real.json")
        return [str(file) for file in needed if not file.is_file()]


def rank_task(config: RankingBenchmark, task: str) -> dict:
    """Rank in the world model and in the control, and run the tests that go with it."""
    env, _, horizon = TASKS[task]
    policies = find_policies([config.policies / task])
    stored = read_outcomes(config.policies / task / "real.json", policies)
    starts = record_starts(config, task, next(iter(stored.values())).seeds)
    reports = {}
    for control in ("none", "copy-last"):
        # The control does not need 100 real trials of its own: they are those of the dream.
        made = control == "none" and not config.quick
        out = config.out / task / ("dream" if control == "none" else "control")
        settings = RankConfig(
            world=config.world(task),
            judge=config.judges / task,
            policies=(config.policies / task,),
            data=starts,
            out=out,
            horizon=horizon,
            episodes=config.dreams,
            real=env if made else str(config.policies / task / "real.json"),
            control=control,
            num_steps=config.num_steps,
            workers=config.workers,
            seed=config.seed,
        )
        rank_policies(settings)
        reports[control] = json.loads((out / "ranking.json").read_text())
    result = {"dream": reports["none"], "control": reports["copy-last"], "check": None}
    if config.quick:
        result["check"], result["dream"]["optimism"] = check_cells(config, task, starts, stored)
    return result


def record_starts(config: RankingBenchmark, task: str, seeds: np.ndarray) -> Path:
    """Episodes with the reset seeds of the stored trials; who acts in them is of no account."""
    first, number = int(seeds[0]), len(seeds)
    if seeds.tolist() != list(range(first, first + number)) or first % SEED_STRIDE:
        raise ValueError(f"{task}: real.json has other seeds than `worldmodel record` gives")
    out = config.starts / task
    if not (out / "meta" / "info.json").is_file():
        seed = first // SEED_STRIDE
        record(RecordConfig(TASKS[task][0], out, episodes=number, seed=seed, behaviour="play"))
    return out


def check_cells(
    config: RankingBenchmark, task: str, starts: Path, stored: Mapping[str, Scores]
) -> tuple[dict, dict | None]:
    """Make random cells of real trials anew; dream those that failed again, action by action."""
    env, _, horizon = TASKS[task]
    episodes = len(next(iter(stored.values())))
    setup = TrialSetup(
        config.world(task),
        config.judges / task,
        starts,
        episodes,
        horizon,
        real=env,
        num_steps=config.num_steps,
        num_envs=SIMULATORS,
        seed=config.seed,
    )
    policies = find_policies([config.policies / task])
    cells = cut(["real"], policies, range(episodes), SIMULATORS)
    chosen = np.random.default_rng(config.seed).permutation(len(cells))[:CHECKED_CELLS]
    cells = [cells[i] for i in sorted(chosen)]
    out = config.out / task / "check"
    with single_thread():
        run_cells(setup, cells, out, workers=read_workers(config.workers))
        differ, trials = [], 0
        for name, scores in gather(setup, cells, out).items():
            known = dict(zip(stored[name].seeds.tolist(), stored[name].outcomes, strict=True))
            trials += len(scores)
            for seed, outcome in zip(scores.seeds.tolist(), scores.outcomes, strict=True):
                if known[seed] != outcome:
                    differ.append({"policy": name, "seed": seed, "outcome": outcome})
        chosen_policies = {cell.policy: cell.spec for cell in cells}
        again, failures = replays(setup, chosen_policies, out, limit=len(cells) * SIMULATORS)
        run_cells(setup, again, out, workers=read_workers(config.workers))
        optimism = imagined_successes(gather(setup, again, out), failures)
    return {"cells": len(cells), "trials": trials, "differ": differ}, optimism


def bars(results: Mapping[str, dict]) -> list[tuple[str, str, str, bool | None]]:
    """What is measured, the bar, the figure, and whether it is reached."""
    rows: list[tuple[str, str, str, bool | None]] = []
    for task, result in results.items():
        dream, control = result["dream"]["agreement"], result["control"]["agreement"]
        for name in STATISTICS:
            row, ceiling = dream[name], dream["noise_ceiling"].get(name)
            if row["value"] is None:
                rows.append((f"{task}: {name}", ">= p10", dream["refusal"], None))
                continue
            figure = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            figure += f", p10 {ceiling['p10']:.3f}, standing {row['standing']:.1%}"
            rows.append((f"{task}: {name}", "standing >= 10%", figure, row["standing"] >= 0.1))
            blind = control[name]
            figure = f"{blind['value']:.3f}, standing {blind['standing']:.1%}"
            reached = blind["standing"] < 0.01
            rows.append((f"{task}: {name} of copy-last", "standing < 1%", figure, reached))
        row = dream["bias"]
        figure = f"{row['value']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        rows.append((f"{task}: bias", "at most 0.05", figure, abs(row["value"]) <= 0.05))
        optimism = result["dream"]["optimism"]
        if optimism is not None:
            figure = f"{optimism['score']:.1%} of {optimism['n']} (to {optimism['high']:.1%})"
            rows.append((f"{task}: failures imagined as successes", "<= 10%", figure, optimism["score"] <= 0.1))
        if result["check"] is not None:
            check = result["check"]
            figure = f"{len(check['differ'])} of {check['trials']} trials differ"
            rows.append((f"{task}: stored outcomes", "0 differ", figure, not check["differ"]))
    tasks = [[trials_of(r["dream"], place) for place in ("dream", "real")] for r in results.values()]
    pooled = pooled_pearson([(dream, real) for dream, real in tasks])
    figure = f"{pooled['value']:.3f} ({pooled['low']:.3f} to {pooled['high']:.3f}), "
    figure += f"{pooled['n']} policies of {len(tasks)} tasks"
    rows.append(("pooled Pearson, task means removed", ">= 0.90", figure, pooled["value"] >= 0.9))
    return rows


def scores_table(results: Mapping[str, dict]) -> str:
    """Dreamed and real success of every policy, best dream first."""
    rows = []
    for task, result in results.items():
        for policy in sorted(result["dream"]["policies"], key=lambda each: -each["dream"]["score"]):
            cells = ["-" if row is None else f"{row['score']:.2f}" for row in (policy["dream"], policy["real"])]
            rows.append([task, policy["name"], *cells])
    return table(["task", "policy", "dream", "real"], rows)


def main(config: RankingBenchmark) -> None:
    """Rank, print the bars as a Markdown table; exit 1 if a stored outcome is not repeated."""
    begin = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for task in config.tasks:
        if task not in TASKS:
            raise SystemExit(f"there is no task {task!r}; known are {', '.join(TASKS)}")
        missing = config.missing(task)
        if missing:
            print(f"{task}: left out, because there is no {', no '.join(missing)}")
        else:
            results[task] = rank_task(config, task)
    if not results:
        raise SystemExit("no task has a world model, a judge and policies")
    rows = bars(results)
    print("\n| what | bar | figure | reached |\n|---|---|---|---|")
    for what, bar, figure, reached in rows:
        print(f"| {what} | {bar} | {figure} | {({True: 'yes', False: 'NO', None: '-'})[reached]} |")
    print(f"\n## Success of every policy\n\n{scores_table(results)}")
    seconds = time.monotonic() - begin
    print(f"\n{seconds:.0f} s; {config.dreams} dreams of each policy, {config.workers} processes")
    keys = ("what", "bar", "figure", "reached")
    table = [dict(zip(keys, row, strict=True)) for row in rows]
    checks = {task: result["check"] for task, result in results.items()}
    report = {"bars": table, "checks": checks, "seconds": seconds, "dreams": config.dreams}
    write_json(config.out / "bars.json", report)
    if any(check is not None and check["differ"] for check in checks.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(RankingBenchmark))
