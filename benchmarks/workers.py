"""Are the cells of a ranking the same whoever runs them, and how much faster are two workers than one?

```
python benchmarks/workers.py --data runs/data/pusht-position-heldout
```

The same cells are run by one and by two processes of this machine, and by a Ray cluster of this machine with one and
with two CPUs. Turns of one and two alternate, so that other work on the machine meets both. Of each turn the table has
the wall time in all, the wall time from the start of the first cell to the end of the last (without the start of the
processes, in which PyTorch is imported and the world model is loaded), and the CPU time of the cells. On a busy machine
only the CPU time means something: where it does not grow with the workers, two idle cores halve the wall time.

A Ray cluster usually runs before a ranking begins. So Ray is started before each turn, and the seconds until its
processes have loaded what they need have a column of their own. The last row counts them: it compares one process,
without Ray, with two workers for which Ray has to be started first.
"""

import os
import time
from collections.abc import Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import psutil
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
COLUMNS = ("wall", "working", "cpu")
REST, LOOKS = 0.1, 60
"""Ray has started when its processes use less of a core than this; most seconds to wait for that."""


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
    """What one turn took, in seconds, and what its cells hold; `start` is that of Ray, which `wall` leaves out."""

    wall: float
    working: float
    cpu: float
    cells: list[dict]
    start: float = 0.0

    @property
    def whole(self) -> float:
        """The wall time with the start of Ray."""
        return self.start + self.wall


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
    """A Ray cluster of this machine with so many CPUs; gives the seconds of its start."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    began = time.time()
    options = {"include_dashboard": False, "object_store_memory": 80_000_000, "log_to_driver": False}
    ray.init(address="local", num_cpus=number, logging_level="error", **options)
    try:
        come_to_rest()
        yield time.time() - began
    finally:
        ray.shutdown()


def come_to_rest() -> None:
    """Wait until the processes that this one has started have hardly anything to do."""
    before = children_cpu()
    for _ in range(LOOKS):
        time.sleep(1)
        now = children_cpu()
        if now - before < REST:
            return
        before = now


def children_cpu() -> float:
    """CPU time of all processes that this one has started, in seconds."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:2])
    return total


def turn(setup: TrialSetup, cells: Sequence[Cell], place: str, number: int) -> Turn:
    """Run all cells once."""
    if place == "Ray":
        with cluster_of(number) as start:
            return replace(_turn(setup, cells, Workers(0, "ray")), start=start)
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
    """The rows of the table: medians over turns, and the ratios of one to two with their range over the pairs."""
    turns, rows = found["turns"], []
    for place in config.places:
        for number in NUMBERS:
            parts = [f"{median(getattr(each, name) for each in turns[place, number]):.1f}" for name in COLUMNS]
            start = median(each.start for each in turns[place, number])
            rows.append([place, str(number), f"{start:.1f}" if place == "Ray" else "-", *parts])
        pairs = turns[place, 1], turns[place, 2]
        rows.append([place, "one / two", "-", *(ratio(*pairs, name) for name in COLUMNS)])
    if set(PLACES) <= set(config.places):
        pairs = turns["processes", 1], turns["Ray", 2]
        rows.append(["processes / Ray", "one / two", "counted", *(ratio(*pairs, n) for n in ("whole", *COLUMNS[1:]))])
    return rows


def ratio(one: Sequence[Turn], two: Sequence[Turn], name: str) -> str:
    """How many times as long one took as two: the median over pairs of turns and the range."""
    found = [getattr(a, name) / getattr(b, name) for a, b in zip(one, two, strict=True)]
    return f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def main(config: WorkersBenchmark) -> None:
    """Print the table; exit 1 if a cell differs."""
    found = measure(config)
    rows = rows_of(config, found)
    print(
        table(
            ["who", "workers", "start of Ray, s", "wall time, s", "of that cells, s", "CPU time of the cells, s"], rows
        )
    )
    runs = sum(map(len, found["turns"].values()))
    print(f"\n{found['differ']} of {(runs - 1) * found['cells']} cells differ from those of the first turn")
    if config.out is not None:
        write_json(config.out, {"cells": found["cells"], "differ": found["differ"], "rows": rows})
    if found["differ"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(WorkersBenchmark, description=__doc__))
