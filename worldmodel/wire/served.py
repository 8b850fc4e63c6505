"""The world that a server serves: its pools of rows, its starts, and what it says about itself."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from worldmodel.data.clip import Clip
from worldmodel.dreams.env import check_starts
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.streaming.noise import mix_seed
from worldmodel.wire.fields import Fields
from worldmodel.wire.freed import trim
from worldmodel.wire.limits import BATCHES, Limits
from worldmodel.wire.pool import Pool
from worldmodel.wire.tally import Tally
from worldmodel.wire.turns import Turns
from worldmodel.world_model import WorldModel

PROTOCOL = 1
"""Version of the messages; it changes when a client of an older version would misunderstand."""
MOST_SEED = 2**63 - 1


class ServedWorld:
    """A world model, what its dreams start from and who judges them, shared by all visitors.

    Args:
        world: The world model.
        starts: Recorded frames that dreams can start from, and the range of actions; `None` if visitors send their own
            pictures.
        judge: Gives reward and success; `None` without a judge.
        name: Name of the world, as visitors see it.
        batch: Rows that are computed together, for sessions that do not choose.
        num_steps: Denoising steps per frame, for sessions that do not choose.
        limits: How much the visitors may use.
        threads: Threads that compute; by default as many as PyTorch has.
        rows: Counts the rows of all pools; by default there is no other process that serves.

    Raises:
        ValueError: World and starts do not fit, or a number is not one of those allowed.
    """

    def __init__(
        self,
        world: WorldModel,
        starts: Starts | None,
        judge: Judge | None,
        *,
        name: str = "",
        batch: int = 8,
        num_steps: int = 2,
        limits: Limits | None = None,
        threads: int | None = None,
        rows: Tally | None = None,
    ):
        if batch not in BATCHES:
            raise ValueError(f"--batch is one of {BATCHES}, got {batch}")
        if num_steps not in world.allowed_steps:
            raise ValueError(f"--num-steps is one of {world.allowed_steps}, got {num_steps}")
        if not world.action_dim:
            raise ValueError("a world model is served to visitors who act, and this one has no actions")
        if starts is not None:
            check_starts(world, starts)
        self.world, self.starts, self.judge, self.name = world, starts, judge, name
        self.batch, self.num_steps = batch, num_steps
        self.limits = Limits() if limits is None else limits
        self.low, self.high = _range(world, starts)
        self.pools: list[Pool] = []
        self._taken = Tally() if rows is None else rows
        self.turns = Turns(self.limits.gather_ms / 1000, threads)

    @property
    def message_bytes(self) -> int:
        """Largest message of a visitor: the first frames of the largest batch, and some room."""
        pixels = len(self.world.views) * self.world.size[0] * self.world.size[1]
        return BATCHES[-1] * 3 * pixels + (1 << 20)

    @property
    def rows(self) -> int:
        """Rows of all pools, in all processes that serve together."""
        return self._taken.total

    def room(self, batch: int, num_steps: int, streams: int) -> tuple[Pool, tuple[int, ...]]:
        """Rows for a session, in a pool that has them or in a new one.

        Raises:
            ValueError: The streams do not fit into the batch, or the server is full.
        """
        if streams > batch:
            raise ValueError(f"a batch of {batch} holds at most {batch} streams, got {streams}")
        for pool in self.pools:
            if (pool.size, pool.num_steps) == (batch, num_steps) and len(pool.free) >= streams:
                return pool, pool.take(streams)
        if not self._taken.take(batch, self.limits.rows):
            raise ValueError(
                f"the server has {self.limits.rows} rows, {self.rows} are taken, and a batch of {batch} takes as many"
            )
        pool = Pool(self.world, self.judge, batch, num_steps)
        self.pools.append(pool)
        return pool, pool.take(streams)

    def leave(self, pool: Pool, rows: tuple[int, ...]) -> None:
        """Free the rows; a pool with no other rows in use is removed."""
        pool.give_back(rows)
        self.turns.left(pool, rows)
        if len(pool.free) == pool.size:
            self.pools.remove(pool)
            self._taken.give_back(pool.size)
            if not self.pools:
                self.turns.thread.submit(trim)

    def about(self) -> dict[str, Any]:
        """The first message to every visitor: what the world needs and gives."""
        world, starts = self.world, self.starts
        return {
            "type": "info",
            "protocol": PROTOCOL,
            "world": self.name,
            "views": list(world.views),
            "size": list(world.size),
            "fps": float(world.fps / world.stride),
            "stride": world.stride,
            "action_dim": world.action_dim,
            "action_low": self.low,
            "action_high": self.high,
            "state_dim": world.state_dim,
            "judge": self.judge is not None,
            "starts": 0 if starts is None else len(starts),
            "num_steps": list(world.allowed_steps),
            "default_num_steps": self.num_steps,
            "batches": list(BATCHES),
            "default_batch": self.batch,
            "limits": asdict(self.limits),
        }

    def wanted(self, fields: Fields, streams: int | None = None) -> tuple[Clip, list[int]]:
        """Where a message wants dreams to start, and the seed of each dream's noise; `streams` of them if given.

        Raises:
            ValueError: A field does not fit, or there is no start in the message.
        """
        kind = fields.has_one_of("starts", "seeds", "observation")
        if kind is None:
            raise ValueError(f"{fields.name} needs one of starts, seeds and observation")
        if kind != "observation" and self.starts is None:
            raise ValueError(f"{kind}: this server has no data to start from; send an observation")
        if kind == "seeds":
            draws = [draw(seed, len(self.starts)) for seed in fields.wholes("seeds", streams, 0, MOST_SEED)]
            return self.starts.clip([start for start, _ in draws]), [noise for _, noise in draws]
        noise = fields.whole("noise", 0, MOST_SEED, 0)
        if kind == "starts":
            chosen = fields.wholes("starts", streams, 0, len(self.starts) - 1)
            return self.starts.clip(chosen), [mix_seed(noise, self.starts.seeds[start]) for start in chosen]
        clip = self._clip(fields.inner("observation"), streams)
        return clip, [mix_seed(noise, index) for index in range(len(clip.frames))]

    def _clip(self, seen: Fields, streams: int | None) -> Clip:
        """The pictures and states that a visitor sent, as the starts of dreams."""
        pictures = []
        for view in self.world.views:
            pictures.append(seen.pictures(f"observation.images.{view}", (streams, *self.world.size, 3)))
            streams = len(pictures[0])
        if not streams:
            raise ValueError(f"observation.images.{self.world.views[0]} has at least one stream, got 0")
        states = None
        if self.world.state_dim:
            states = torch.from_numpy(seen.numbers("observation.state", (streams, self.world.state_dim)))[:, None]
        task = seen.texts("task", streams)
        seen.end()
        return Clip(torch.from_numpy(np.stack(pictures, axis=1))[:, None], states=states, task=task)


def draw(seed: int, number: int) -> tuple[int, int]:
    """The start and the seed of the noise that `DreamEnv` draws for a seed, of `number` starts."""
    rng = np.random.default_rng(seed)
    return int(rng.integers(number)), int(rng.integers(2**40))


def _range(world: WorldModel, starts: Starts | None) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of each dim of an action; without bounds where there is no data."""
    if starts is None:
        return np.full(world.action_dim, -np.inf, np.float32), np.full(world.action_dim, np.inf, np.float32)
    low, high = starts.action_range
    return low.numpy(), high.numpy()
