"""Streams that are computed together: a fixed number of rows, each of which belongs to one session or is free."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.dreams.verdict import Judge, Verdict
from worldmodel.streaming.state import Observation
from worldmodel.streaming.stream import Snapshot, Stream
from worldmodel.world_model import WorldModel


class Pool:
    """`size` rows of streams that are always computed in one batch.

    A row keeps its place for as long as it belongs to a session, and rows that do not move are computed with the
    others. So what a row shows is bit for bit a function of its own start, seed and actions, and of `size` and the
    place of the row; it does not depend on what is in the other rows.

    Args:
        world: The world model.
        judge: Looks at every dreamed frame of all rows; `None` without a judge.
        size: Number of rows.
        num_steps: Denoising steps per frame.

    Attributes:
        free: Rows that belong to nobody.
        tasks: The task of each row in words.
        stream: The streams of all rows; `None` before the first dream begins.
        moved: The rows that took part in the last step.
        served: When the last step was, in seconds of the event loop.
    """

    def __init__(self, world: WorldModel, judge: Judge | None, size: int, num_steps: int):
        self.world, self.judge, self.size, self.num_steps = world, judge, size, num_steps
        self.free = list(range(size))
        self.tasks = [""] * size
        self.stream: Stream | None = None
        self.moved: set[int] = set()
        self.served = 0.0

    def take(self, number: int) -> tuple[int, ...]:
        """The lowest rows that are free; they belong to the caller until `give_back`."""
        assert number <= len(self.free)
        taken, self.free = self.free[:number], self.free[number:]
        return tuple(taken)

    def give_back(self, rows: Sequence[int]) -> None:
        """Rows that nobody needs any more."""
        self.free = sorted([*self.free, *rows])

    def begin(self, rows: Sequence[int], context: Clip, seeds: Sequence[int]) -> None:
        """Begin a dream in each of `rows`; the context is read in a batch of `size`, too."""
        clips, seed_of = torch.zeros(self.size, dtype=torch.long), [0] * self.size
        for index, row in enumerate(rows):
            clips[row], seed_of[row] = index, seeds[index]
        fresh = self.world.stream(context.map(lambda tensor: tensor[clips]), seeds=seed_of)
        if self.stream is None:
            self.stream = fresh
        else:
            self.stream.restore(fresh.snapshot(rows), rows)
        self._name(rows, context.task or ("",) * len(rows))

    def step(self, actions: dict[int, Float[Tensor, "a"]]) -> tuple[Observation, Verdict | None]:
        """Move the rows that have an action; the observation and the verdict are of all rows."""
        width = self.world.action_dim * self.world.stride
        every, moving = torch.zeros(self.size, width), torch.zeros(self.size, dtype=torch.bool)
        for row, action in actions.items():
            every[row], moving[row] = action, True
        dreamed = self.stream.step(every, num_steps=self.num_steps, moving=moving)
        dreamed = replace(dreamed, task=tuple(self.tasks))
        return dreamed, None if self.judge is None else self.judge(dreamed)

    def look(self, rows: Sequence[int]) -> Observation:
        """The current frames and states of some rows."""
        seen, index = self.stream.observation, list(rows)
        return Observation(
            seen.frames[index], None if seen.states is None else seen.states[index], tuple(self.tasks[i] for i in rows)
        )

    def frame(self, rows: Sequence[int]) -> list[int]:
        """The number of steps that each row made since its context began."""
        return self.stream.frame[list(rows)].tolist()

    def save(self, rows: Sequence[int]) -> "Saved":
        """The state of some rows, for `load`."""
        return Saved(self.stream.snapshot(list(rows)), tuple(self.tasks[row] for row in rows))

    def load(self, rows: Sequence[int], saved: "Saved") -> None:
        """Put some rows into the saved state, which may be of another pool."""
        if self.stream is None:
            copies = torch.zeros(self.size, dtype=torch.long)
            self.stream = Stream(self.world, saved.snapshot.state.select(copies))
        self.stream.restore(saved.snapshot, list(rows))
        self._name(rows, saved.tasks)

    def _name(self, rows: Sequence[int], tasks: Sequence[str]) -> None:
        for row, task in zip(rows, tasks, strict=True):
            self.tasks[row] = task


@dataclass(frozen=True)
class Saved:
    """The state of some rows of a pool; it never changes."""

    snapshot: Snapshot
    tasks: tuple[str, ...]

    def branched(self, k: int, seeds: Sequence[int] | None = None) -> "Saved":
        """`k` copies of each row side by side, with other noise seeds if they are given."""
        rows = torch.arange(len(self.tasks)).repeat_interleave(k)
        state = self.snapshot.state.select(rows)
        if seeds is not None:
            state = replace(state, seeds=torch.tensor(list(seeds), dtype=torch.long))
        return Saved(Snapshot(state), tuple(self.tasks[row] for row in rows.tolist()))
