"""Trials from one queue over workers that dream several of them side by side, simulated step by step."""

import heapq
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepTime:
    """Seconds of a dreamed step of `b` trials side by side: `max(fixed, floor) + b * each`.

    Attributes:
        fixed: Seconds that a step takes however few trials are in it.
        each: Seconds that every trial adds.
        floor: Seconds below which the fixed part cannot fall, such as reading all weights from memory.
    """

    fixed: float
    each: float
    floor: float = 0.0

    def __call__(self, batch: int) -> float:
        """Seconds of a step of `batch` trials."""
        return max(self.fixed, self.floor) + batch * self.each


@dataclass(frozen=True)
class QueueResult:
    """What a simulation counted.

    Attributes:
        seconds: Until the last trial has ended.
        mean_batch: Trials in a step, averaged over the steps.
        busy: Share of the workers' time in which they had trials.
    """

    seconds: float
    mean_batch: float
    busy: float


def fitted(batches: list[int], seconds: list[float]) -> StepTime:
    """The step time whose line is nearest to the measured ones; neither part is negative."""
    ones = np.ones(len(batches))
    (fixed, each), *_ = np.linalg.lstsq(np.stack([ones, np.array(batches, float)], 1), np.array(seconds), rcond=None)
    return StepTime(max(float(fixed), 0.0), max(float(each), 0.0))


def simulate(workers: int, lengths: np.ndarray, step: StepTime, *, slots: int) -> QueueResult:
    """Workers with `slots` trials each, which take the next trial from the queue whenever one has ended.

    Args:
        workers: Number of workers, each with a world model of its own.
        lengths: Steps of every trial, in the order of the queue.
        step: How long a step takes.
        slots: Most trials of a worker side by side.
    """
    queue = iter(lengths.tolist())
    running: list[list[int]] = [[] for _ in range(workers)]
    for _ in range(slots):  # one trial each in turn, as a full queue hands them out
        for trials in running:
            trials += [length for length in [next(queue, 0)] if length]
    clock = [(0.0, worker) for worker in range(workers)]
    steps = rows = 0
    busy = end = 0.0
    while clock:
        now, worker = heapq.heappop(clock)
        trials = running[worker]
        trials += [length for length in (next(queue, 0) for _ in range(slots - len(trials))) if length]
        if not trials:
            continue  # nothing is left to do for this worker
        jump = min(trials)  # all steps up to the next end of a trial are alike
        spent = jump * step(len(trials))
        steps, rows, busy, end = steps + jump, rows + jump * len(trials), busy + spent, max(end, now + spent)
        running[worker] = [length - jump for length in trials if length > jump]
        heapq.heappush(clock, (now + spent, worker))
    return QueueResult(end, rows / steps, busy / (workers * end))


def too_many(results: dict[int, QueueResult], share: float = 0.5) -> int | None:
    """The smallest number of workers with which each does less than `share` of the work of the fewest; else `None`."""
    first = min(results)
    for workers in sorted(results):
        speedup = results[first].seconds / results[workers].seconds
        if speedup < share * workers / first:
            return workers
    return None
