"""The sessions of one visitor, and the answer to each of the visitor's messages."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange

from worldmodel.dreams.world import held
from worldmodel.streaming.state import Observation
from worldmodel.wire.fields import Fields
from worldmodel.wire.limits import BATCHES
from worldmodel.wire.pictures import FORMATS, encode
from worldmodel.wire.pool import Pool, Saved
from worldmodel.wire.served import MOST_SEED, ServedWorld
from worldmodel.wire.turns import Job

Reply = dict[str, Any]


@dataclass
class Session:
    """Dreams of one visitor that are stepped together.

    Attributes:
        name: The name by which the visitor calls it; it cannot be guessed.
        pool: Where its streams are computed.
        rows: Its streams, in its order.
        form: How frames are sent, see `worldmodel.wire.pictures`.
        quality: Of JPEG files, 1..95.
        used: When it was last used, in seconds of the event loop.
        snapshots: Saved states by name.
    """

    name: str
    pool: Pool
    rows: tuple[int, ...]
    form: str
    quality: int
    used: float
    snapshots: dict[str, Saved] = field(default_factory=dict)


class Visitor:
    """One connection: its sessions, which no other visitor can use, and the answers to its messages in turn.

    Args:
        served: The world.
    """

    def __init__(self, served: ServedWorld):
        self.served, self._busy = served, False
        self.sessions: dict[str, Session] = {}
        self._answers: dict[str, Callable[[Fields], Awaitable[Reply]]] = {
            "info": self._info,
            "create": self._create,
            "step": self._step,
            "reset": self._reset,
            "branch": self._branch,
            "snapshot": self._snapshot,
            "restore": self._restore,
            "forget": self._forget,
            "close": self._close,
        }

    async def answer(self, message: object) -> Reply:
        """The reply to a message; the next one comes when this one was answered.

        Raises:
            ValueError: A field is missing, unknown or out of range, or a limit is reached; the state of all
                sessions is as before, except that a step whose judge failed was made.
        """
        fields = Fields(message)
        kind = fields.one_of("type", tuple(self._answers), None)
        fields.name = kind
        fields.allow("id")
        self._busy = True
        try:
            return {"type": kind, **await self._answers[kind](fields)}
        finally:
            self._busy = False

    def hello(self) -> Reply:
        """The first message, which is sent before the visitor's first one."""
        return self.served.about()

    def leave(self) -> None:
        """Free everything."""
        for session in list(self.sessions.values()):
            self._free(session)

    def free_idle(self, before: float) -> None:
        """Free the sessions that were last used before a point in time, in seconds of the event loop."""
        for session in list(self.sessions.values()):
            if not self._busy and session.used < before:
                self._free(session)

    # Answers

    async def _info(self, fields: Fields) -> Reply:
        if "session" not in fields:
            fields.end()
            return self.served.about() | {"rows": self.served.rows, "sessions": len(self.sessions)}
        session = self._session(fields)
        fields.end()
        pool = session.pool
        return {
            "session": session.name,
            "batch": pool.size,
            "num_steps": pool.num_steps,
            "frame": await self.served.turns.work(pool.frame, session.rows),
            "task": [pool.tasks[row] for row in session.rows],
            "snapshots": list(session.snapshots),
        }

    async def _create(self, fields: Fields) -> Reply:
        served = self.served
        self._check_sessions()
        clip, seeds = served.wanted(fields)
        session = self._make(fields, len(seeds), default_batch=served.batch, default_steps=served.num_steps)
        await self._begun(session, lambda: session.pool.begin(session.rows, clip, seeds))
        return {"session": session.name, "batch": session.pool.size, **await self._seen(session)}

    async def _reset(self, fields: Fields) -> Reply:
        session = self._session(fields)
        streams = list(range(len(session.rows)))
        if "streams" in fields:
            streams = fields.wholes("streams", None, 0, len(session.rows) - 1)
            if len(set(streams)) < len(streams):
                raise ValueError(f"streams are different numbers, got {streams}")
        clip, seeds = self.served.wanted(fields, len(streams))
        fields.end()
        await self.served.turns.work(session.pool.begin, [session.rows[i] for i in streams], clip, seeds)
        return await self._seen(session)

    async def _step(self, fields: Fields) -> Reply:
        session, limits = self._session(fields), self.served.limits
        chunk = fields.has_one_of("action", "actions") == "actions"
        actions = self._actions(fields, len(session.rows), chunk)
        if actions.shape[1] > limits.actions or not actions.shape[1]:
            raise ValueError(f"actions has 1..{limits.actions} actions for each stream, got {actions.shape[1]}")
        keep = fields.one_of("frames", ("all", "last", "none"), "all")
        fields.end()
        world, frames = self.served.world, {"all": actions.shape[1], "last": 1, "none": 0}[keep]
        size = frames * len(session.rows) * len(world.views) * 3 * world.size[0] * world.size[1] / 1e6
        if size > limits.reply_mb:
            raise ValueError(f"a reply has at most {limits.reply_mb} MB of frames, these would be {size:.0f} MB")
        steps = rearrange(actions, "n m a -> m n a")
        job = await self.served.turns.step(session.pool, session.rows, steps, keep)
        if session.form == "raw":
            return self._told(session, job, chunk)
        return await asyncio.to_thread(self._told, session, job, chunk)

    async def _branch(self, fields: Fields) -> Reply:
        parent = self._session(fields)
        self._check_sessions()
        k = fields.whole("k", 1, BATCHES[-1], 1)
        streams = k * len(parent.rows)
        seeds = fields.wholes("seeds", streams, 0, MOST_SEED) if "seeds" in fields else None
        session = self._make(fields, streams, default_batch=parent.pool.size, default_steps=parent.pool.num_steps)

        def begin() -> None:
            session.pool.load(session.rows, parent.pool.save(parent.rows).branched(k, seeds))

        await self._begun(session, begin)
        return {"session": session.name, "batch": session.pool.size, **await self._seen(session)}

    async def _snapshot(self, fields: Fields) -> Reply:
        session, limits = self._session(fields), self.served.limits
        fields.end()
        held = sum(len(saved.tasks) for each in self.sessions.values() for saved in each.snapshots.values())
        if held + len(session.rows) > limits.snapshots:
            raise ValueError(
                f"a connection has at most {limits.snapshots} saved streams, it has {held} and this is of "
                f"{len(session.rows)}; forget some"
            )
        name = secrets.token_urlsafe(12)
        session.snapshots[name] = await self.served.turns.work(session.pool.save, session.rows)
        return {"snapshot": name}

    async def _restore(self, fields: Fields) -> Reply:
        session = self._session(fields)
        saved = session.snapshots[self._saved(fields, session)]
        fields.end()
        await self.served.turns.work(session.pool.load, session.rows, saved)
        return await self._seen(session)

    async def _forget(self, fields: Fields) -> Reply:
        session = self._session(fields)
        name = self._saved(fields, session)
        fields.end()
        del session.snapshots[name]
        return {}

    async def _close(self, fields: Fields) -> Reply:
        session = self._session(fields)
        fields.end()
        self._free(session)
        return {}

    # Parts of them

    def _session(self, fields: Fields) -> Session:
        name = fields.text("session")
        if name not in self.sessions:
            raise ValueError(f"there is no session {name!r} on this connection; it has {len(self.sessions)}")
        session = self.sessions[name]
        session.used = asyncio.get_running_loop().time()
        return session

    def _saved(self, fields: Fields, session: Session) -> str:
        name = fields.text("snapshot")
        if name not in session.snapshots:
            raise ValueError(f"there is no snapshot {name!r} of this session; it has {len(session.snapshots)}")
        return name

    def _check_sessions(self) -> None:
        if len(self.sessions) >= self.served.limits.sessions:
            raise ValueError(f"a connection has at most {self.served.limits.sessions} sessions, it has as many")

    def _make(self, fields: Fields, streams: int, default_batch: int, default_steps: int) -> Session:
        """Rows for a new session, which is not in `sessions` before its dreams have begun."""
        larger = [size for size in BATCHES if size >= max(streams, default_batch)]
        batch = fields.one_of("batch", BATCHES, larger[0] if larger else BATCHES[-1])
        num_steps = fields.one_of("num_steps", self.served.world.allowed_steps, default_steps)
        form, quality = fields.one_of("pictures", FORMATS, "raw"), fields.whole("quality", 1, 95, 90)
        fields.end()
        pool, rows = self.served.room(batch, num_steps, streams)
        return Session(secrets.token_urlsafe(16), pool, rows, form, quality, asyncio.get_running_loop().time())

    async def _begun(self, session: Session, begin: Callable[[], None]) -> None:
        """Begin the dreams of a new session; its rows are free again if that fails."""
        try:
            await self.served.turns.work(begin)
        except BaseException:
            self.served.leave(session.pool, session.rows)
            raise
        self.sessions[session.name] = session

    def _free(self, session: Session) -> None:
        del self.sessions[session.name]
        self.served.leave(session.pool, session.rows)

    def _actions(self, fields: Fields, streams: int, chunk: bool) -> np.ndarray:
        """Raw actions `n m a` as the world model takes them, within their range."""
        world, served = self.served.world, self.served
        name, wide = ("actions" if chunk else "action"), world.action_dim * world.stride
        shape = (streams, None, None) if chunk else (streams, None)
        found = fields.numbers(name, shape)
        if found.shape[-1] not in (world.action_dim, wide):
            widths = f"{world.action_dim}" if world.stride == 1 else f"{world.action_dim} or {wide}"
            raise ValueError(f"{name} has {widths} numbers for each action, got {found.shape[-1]}")
        repeats = wide // max(1, found.shape[-1])
        flat = found.reshape(-1, found.shape[-1])
        times = world.stride // repeats
        clipped = flat.clip(np.tile(served.low, times), np.tile(served.high, times))
        rows = held(torch.from_numpy(clipped), repeats).numpy()
        return rows.reshape(streams, -1, wide)

    async def _seen(self, session: Session) -> Reply:
        """The current observation of a session, and how many steps its streams have made."""

        def look() -> tuple[Observation, list[int]]:
            return session.pool.look(session.rows), session.pool.frame(session.rows)

        seen, frame = await self.served.turns.work(look)
        shown = {"frames": seen.frames.cpu().numpy()}
        if seen.states is not None:
            shown["states"] = seen.states.cpu().numpy()
        return {"observation": self._observation(session, shown), "task": list(seen.task), "frame": frame}

    def _told(self, session: Session, job: Job, chunk: bool) -> Reply:
        """The answer to a step; for a chunk of steps, an axis of steps follows that of streams."""
        names = {name: [step[name] for step in job.steps if name in step] for name in job.steps[-1] | job.steps[0]}
        columns = {name: np.stack(steps, 1) if chunk else steps[-1] for name, steps in names.items()}
        told = {name: column for name, column in columns.items() if name not in ("frames", "states")}
        timing = {"wait_ms": 1000 * (job.started - job.arrived), "model_ms": 1000 * job.computed}
        return {"observation": self._observation(session, columns), **told, "timing": timing}

    def _observation(self, session: Session, columns: dict[str, np.ndarray]) -> Reply:
        named: Reply = {}
        if "frames" in columns:
            for index, view in enumerate(self.served.world.views):
                frames = np.ascontiguousarray(columns["frames"][..., index, :, :, :])
                named[f"observation.images.{view}"] = encode(frames, session.form, session.quality)
        if "states" in columns:
            named["observation.state"] = columns["states"]
        return named
