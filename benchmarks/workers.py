"""Are the cells of a ranking the same whoever runs them, and how much faster are two workers than one?

```
python benchmarks/workers.py --data runs/data/pusht-position-heldout
```

The same cells are run by one and by two processes of this machine, and by a Ray cluster of this machine with one and
with two CPUs. Turns of one and two alternate, so that other work on the machine meets both. Of each turn the table has
the wall time in all, the wall time from the start of the first cell to the end of the last (without the start of the
processes, in which PyTorch is imported and the world model is loaded), and the CPU time of the cells. On a busy machine
only the CPU time means something: where it does not grow with the workers, two idle cores halve the wall time.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from policy_eval.policies.find import find_policies
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import Cell, _prepare, _work, cut
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.processes import work_through
from worldmodel.processes.workers import Workers

PLACES = {"processes": "", "Ray": "ray"}
NUMBERS = (1, 2)


@dataclass(frozen=True)
class WorkersBenchmark:
    """Run the cells of one ranking with one and with two workers, here and on Ray."""

    data: Path
    """Recorded episodes to start from."""
    world: Path = Path("checkpoints/pusht")
    """Folder of the world model."""
    judge: Path = Path("checkpoints/judges/pusht-position")
    """Folder of the judge."""
    policies: tuple[Path, ...] = (Path("checkpoints/policies/pusht-position"),)
    """Folders of policies."""
    episodes: int = 24
    """Dreams of each policy."""
    horizon: int = 20
    """Steps of a dream."""
    num_envs: int = 4
    """Dreams of a cell."""
    turns: int = 3
    """Turns of each number of workers."""
    places: tuple[str, ...] = tuple(PLACES)
    """Who works: processes, Ray, or both."""
    out: Path | None = None
    """File of the figures."""


@dataclass(frozen=True)
class Turn:
    """What one turn took, in seconds, and what its cells hold."""

    wall: float
    working: float
    cpu: float
    cells: list[dict]


def prepare(setup: TrialSetup) -> None:
    """Set up a worker, and load what every cell needs."""
    _prepare(setup)
    setup.dream.reset(seed=0)


def timed(call: tuple[Cell, dict]) -> tuple[dict, float, float, float]:
    """A cell; when it began and ended, and its CPU time in seconds."""
    began, cpu = time.time(), time.process_time()
    contents = _work(call)
    return contents, began, time.time(), time.process_time() - cpu


@contextmanager
def cluster_of(number: int):
    """A Ray cluster of this machine with so many CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    options = {"include_dashboard": False, "object_store_memory": 80_000_000, "log_to_driver": False}
    ray.init(address="local", num_cpus=number, logging_level="error", **options)
    try:
        yield
    finally:
        ray.shutdown()


def turn(setup: TrialSetup, cells: Sequence[Cell], place: str, number: int) -> Turn:
    """Run all cells once."""
    if place == "Ray":
        with cluster_of(number):
            return _turn(setup, cells, Workers(0, "ray"))
    return _turn(setup, cells, Workers(number))


def _turn(setup: TrialSetup, cells: Sequence[Cell], workers: Workers) -> Turn:
    began = time.time()
    calls = [(cell, {}) for cell in cells]
    with closing(work_through(timed, calls, workers=workers, start=prepare, start_with=(setup,))) as done:
        found = dict(done)
    rows = [found[number] for number in range(len(cells))]
    working = max(ended for _, _, ended, _ in rows) - min(started for _, started, _, _ in rows)
    return Turn(time.time() - began, working, sum(cpu for *_, cpu in rows), [contents for contents, *_ in rows])


def measure(config: WorkersBenchmark) -> dict:
    """Alternate turns; returns all of them, and the number of cells that differ from those of the first turn."""
    setup = TrialSetup(
        config.world, config.judge, config.data, config.episodes, config.horizon, num_envs=config.num_envs, device="cpu"
    )
    cells = cut(["dream"], find_policies(config.policies), range(config.episodes), config.num_envs)
    turns: dict[tuple[str, int], list[Turn]] = {}
    for index in range(config.turns):
        for place in config.places:
            for number in NUMBERS if index % 2 == 0 else NUMBERS[::-1]:
                done = turn(setup, cells, place, number)
                turns.setdefault((place, number), []).append(done)
                said = f"wall {done.wall:.1f} s, cells {done.working:.1f} s, CPU {done.cpu:.1f} s"
                print(f"turn {index + 1}: {place}, {number}: {said}", flush=True)
    first = next(iter(turns.values()))[0].cells
    differ = sum(
        here != there for done in turns.values() for each in done for here, there in zip(first, each.cells, strict=True)
    )
    return {"cells": len(cells), "differ": differ, "turns": turns}


def rows_of(config: WorkersBenchmark, found: dict) -> list[list[str]]:
    """The rows of the table: medians over turns, and the ratio of one to two with its range over the pairs."""
    rows = []
    for place in config.places:
        one, two = (found["turns"][place, number] for number in NUMBERS)
        for number, done in zip(NUMBERS, (one, two), strict=True):
            parts = [f"{median(getattr(each, name) for each in done):.1f}" for name in ("wall", "working", "cpu")]
            rows.append([place, str(number), *parts])
        ratios = []
        for name in ("wall", "working", "cpu"):
            pairs = [getattr(a, name) / getattr(b, name) for a, b in zip(one, two, strict=True)]
            ratios.append(f"{median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
        rows.append([place, "one / two", *ratios])
    return rows


def main(config: WorkersBenchmark) -> None:
    """Print the table; exit 1 if a cell differs."""
    found = measure(config)
    rows = rows_of(config, found)
    print(table(["who", "workers", "wall time, s", "of that cells, s", "CPU time of the cells, s"], rows))
    runs = sum(map(len, found["turns"].values()))
    print(f"\n{found['differ']} of {(runs - 1) * found['cells']} cells differ from those of the first turn")
    if config.out is not None:
        write_json(config.out, {"cells": found["cells"], "differ": found["differ"], "rows": rows})
    if found["differ"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(WorkersBenchmark, description=__doc__))
