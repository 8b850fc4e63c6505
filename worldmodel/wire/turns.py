"""The order of the steps: steps that are wanted at the same time are computed together, in one thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from worldmodel.wire.pool import Pool

Result = TypeVar("Result")


@dataclass(eq=False)
class Job:
    """The steps that one session wants: an action for each of its rows, several times.

    Attributes:
        rows: The rows of the session, in its order.
        actions: What each row does in each step.
        keep: Which pictures are sent back.
        finished: Gets the `steps`, or an error.
        arrived: When it was wanted.
        steps: What each step gave, by the name of the field.
        started: When its first step began.
        computed: Seconds that the steps took.
    """

    rows: tuple[int, ...]
    actions: Float32[np.ndarray, "m n a"]
    keep: str
    finished: asyncio.Future
    arrived: float
    steps: list[dict[str, np.ndarray]] = field(default_factory=list)
    started: float = 0.0
    computed: float = 0.0

    @property
    def done(self) -> bool:
        """Whether all steps were made."""
        return len(self.steps) == len(self.actions)

    def wanted(self) -> dict[int, Tensor]:
        """The action of each row in the next step."""
        return dict(zip(self.rows, torch.from_numpy(self.actions[len(self.steps)]), strict=True))


class Turns:
    """The one thread that computes, and the order in which it serves the pools.

    There is one thread, because a world model gains nothing from two. A pool is served when all rows that moved in
    its last step want to move again, or when somebody has waited for `gather_seconds` longer than for the others;
    otherwise the first session to answer would have a step for itself, and the others the next one.

    Args:
        gather_seconds: How long a step waits at most for sessions that took part in the last one.
        threads: Threads of PyTorch that help it; by default as many as PyTorch has.
    """

    def __init__(self, gather_seconds: float, threads: int | None = None):
        self.gather_seconds = gather_seconds
        helpers = torch.get_num_threads() if threads is None else threads
        self.thread = ThreadPoolExecutor(1, "dream", torch.set_num_threads, (helpers,))
        self._jobs: dict[Pool, list[Job]] = {}
        self._changed = asyncio.Event()

    async def work(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run `function` in the one thread, after what is running there."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, function, *arguments)

    async def step(self, pool: Pool, rows: tuple[int, ...], actions: Float32[np.ndarray, "m n a"], keep: str) -> Job:
        """Make `m` steps with the rows of a session, together with other sessions that want a step."""
        loop = asyncio.get_running_loop()
        job = Job(rows, actions, keep, loop.create_future(), loop.time())
        self._jobs.setdefault(pool, []).append(job)
        self._changed.set()
        try:
            await job.finished
        finally:
            self._drop(pool, job)  # if the visitor has gone
        return job

    def left(self, pool: Pool, rows: Sequence[int]) -> None:
        """Do not wait for these rows any more."""
        pool.moved.difference_update(rows)
        self._changed.set()

    async def run(self) -> None:
        """Serve the pools without an end; the pool that has not been served for the longest time comes first."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            due = [pool for pool in self._jobs if self._wait(pool, loop.time()) <= 0]
            if due:
                await self._serve(min(due, key=lambda pool: pool.served))
                continue
            waits = [self._wait(pool, loop.time()) for pool in self._jobs]
            try:
                await asyncio.wait_for(self._changed.wait(), min(waits) if waits else None)
            except TimeoutError:
                continue

    def _wait(self, pool: Pool, now: float) -> float:
        """How many seconds a pool waits for more sessions; at most 0 if it is due."""
        jobs = self._jobs[pool]
        if pool.moved <= {row for job in jobs for row in job.rows}:
            return 0.0
        return max(pool.served, min(job.arrived for job in jobs)) + self.gather_seconds - now

    async def _serve(self, pool: Pool) -> None:
        """One step of one pool."""
        loop, jobs = asyncio.get_running_loop(), list(self._jobs[pool])
        began = loop.time()
        try:
            shown = await self.work(_step, pool, jobs)
        except Exception as error:
            for job in jobs:
                self._finish(pool, job, error)
            pool.moved, pool.served = set(), loop.time()
            return
        pool.moved = {row for job in jobs for row in job.rows if not job.finished.done()}
        pool.served = loop.time()
        for job, step in zip(jobs, shown, strict=True):
            job.started = job.started or began
            job.computed += loop.time() - began
            job.steps.append(step)
            if job.done:
                self._finish(pool, job)

    def _finish(self, pool: Pool, job: Job, error: Exception | None = None) -> None:
        """Tell the session about its steps."""
        self._drop(pool, job)
        if job.finished.done():  # the visitor has gone
            return
        if error is None:
            job.finished.set_result(None)
        else:
            job.finished.set_exception(error)

    def _drop(self, pool: Pool, job: Job) -> None:
        """Remove a job that shall not be served any more, if it is still waiting."""
        if job in self._jobs.get(pool, ()):
            self._jobs[pool].remove(job)
            if not self._jobs[pool]:
                del self._jobs[pool]
            self._changed.set()


def _step(pool: Pool, jobs: Sequence[Job]) -> list[dict[str, np.ndarray]]:
    """One step for all jobs; the part of each job, by the name of the field."""
    actions: dict[int, Tensor] = {}
    for job in jobs:
        actions |= job.wanted()
    dreamed, verdict = pool.step(actions)
    named: dict[str, Tensor | None] = {"frames": dreamed.frames, "states": dreamed.states}
    if verdict is not None:
        named |= {"reward": verdict.rewards, "success": verdict.successes, "unsure": verdict.unsure}
    arrays = {name: value.detach().cpu().numpy() for name, value in named.items() if value is not None}
    if "reward" in arrays:
        arrays["reward"] = arrays["reward"].astype(np.float64)
    return [{name: array[list(job.rows)] for name, array in arrays.items() if _kept(job, name)} for job in jobs]


def _kept(job: Job, name: str) -> bool:
    """Whether a field of the next step is sent back: frames only as far as they are wanted."""
    last = len(job.steps) + 1 == len(job.actions)
    return name != "frames" or job.keep == "all" or (job.keep == "last" and last)
