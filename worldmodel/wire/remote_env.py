"""Dreams on a server as Gymnasium environments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Int, UInt8

from worldmodel.wire.client import Link, RemoteSession, Reply

Observations = dict[str, np.ndarray]
STARTS = ("start", "noise", "observation")


@dataclass(frozen=True)
class RemoteSnapshot:
    """A saved state on the server, and what the client knew then."""

    name: str
    steps: Int[np.ndarray, "n"]
    terminated: Bool[np.ndarray, "n"]
    truncated: Bool[np.ndarray, "n"]
    observation: Observations


@dataclass(frozen=True)
class RemoteOptions:
    """What every session of an environment has in common.

    Attributes:
        horizon: Steps after which an episode is truncated; `None`: never.
        session: Fields of the message `create`, except those about the start.
    """

    horizon: int | None
    session: dict[str, Any]


class Dreams:
    """The part that one remote dream and several have in common: a session, and the counts of its streams."""

    def __init__(self, link: Link, options: RemoteOptions, number: int):
        self.link, self.options, self.number = link, options, number
        self.session: RemoteSession | None = None
        self.steps = np.zeros(number, np.int64)
        self.terminated, self.truncated = np.zeros(number, bool), np.zeros(number, bool)
        self.observation: Observations = {}
        self.timing: dict[str, float] = {}
        self.task: list[str] = [""] * number

    def begin(self, streams: Sequence[int], **start: Any) -> None:
        """Begin some streams; all at the first call."""
        if self.session is None:
            self.session, reply = RemoteSession.create(self.link, **self.options.session, **start)
            self.observation = reply["observation"]
        else:
            reply = self.session.ask("reset", streams=list(streams), **start)
            for name, values in reply["observation"].items():
                self.observation[name][streams] = values[streams]
        self.task = reply["task"]
        self.steps[streams], self.terminated[streams], self.truncated[streams] = 0, False, False

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """One action for each stream; rewards, and whether the judge was unsure. Finished streams stand still."""
        if self.session is None:
            raise ValueError("reset comes before step")
        reply = self.session.ask("step", action=np.asarray(action, np.float32))
        running = ~(self.terminated | self.truncated)
        for name, values in reply["observation"].items():
            shape = (-1, *(1,) * (values.ndim - 1))
            self.observation[name] = np.where(running.reshape(shape), values, self.observation[name])
        self.steps += running
        self.terminated |= running & reply.get("success", False)
        if self.options.horizon is not None:
            self.truncated |= running & (self.steps >= self.options.horizon)
        self.timing = reply["timing"]
        unsure = running & reply["unsure"] if "unsure" in reply else None
        return np.where(running, reply.get("reward", 0.0), 0.0), unsure

    def branched(self, k: int, seeds: Sequence[int] | None) -> "Dreams":
        """`k` copies of each stream that go on from here, side by side, in a session of their own."""
        if self.session is None:
            raise ValueError("reset comes before branch")
        other = Dreams(self.link, self.options, k * self.number)
        form = {name: self.options.session[name] for name in ("pictures", "quality")}
        other.session, reply = self.session.branch(k, seeds, **form)
        other.observation, other.task = reply["observation"], reply["task"]
        other.steps = self.steps.repeat(k)
        other.terminated, other.truncated = self.terminated.repeat(k), self.truncated.repeat(k)
        return other

    def save(self) -> RemoteSnapshot:
        """A snapshot."""
        if self.session is None:
            raise ValueError("reset comes before snapshot")
        name = self.session.ask("snapshot")["snapshot"]
        counts = self.steps.copy(), self.terminated.copy(), self.truncated.copy()
        return RemoteSnapshot(name, *counts, _copies(self.observation))

    def restore(self, saved: RemoteSnapshot) -> None:
        """Go back to a snapshot."""
        self.task = self.session.ask("restore", snapshot=saved.name)["task"]
        self.steps, self.observation = saved.steps.copy(), _copies(saved.observation)
        self.terminated, self.truncated = saved.terminated.copy(), saved.truncated.copy()

    def close(self) -> None:
        """End the session."""
        if self.session is not None:
            self.session.close()
            self.session = None
        elif not self.link.users:
            self.link.close()


class RemoteDreamEnv(gymnasium.Env):
    """One dream on a server; made by `worldmodel.connect`.

    `reset(seed=s)` begins the dream that a stream of `DreamEnv` begins with the same seed, and `reset()` one by
    chance. `reset(options={"start": i})` begins from the start `i` of the server's data, with the noise of
    `DreamEnv(seed=noise)` for `{"start": i, "noise": noise}`; `options={"observation": {...}}` begins from pictures
    and a state of yours. A success terminates; a server without a judge gives the reward 0 and no success.

    Attributes:
        about: What the server says about its world.
        dreams: The session; `dreams.timing` says how many milliseconds the last step waited and was computed.
    """

    def __init__(self, dreams: Dreams):
        self.dreams, self.about = dreams, dreams.link.about
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.about["fps"]}
        self.render_mode = "rgb_array"
        self.observation_space, self.action_space = spaces_of(self.about)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin a dream; see the class.

        Raises:
            ValueError: An option is unknown, or there is no such start.
        """
        super().reset(seed=seed)
        start = _start(options, self.about)
        if not start:
            start = {"seeds": [int(self.np_random.integers(2**31)) if seed is None else seed]}
        elif "observation" in start:
            start["observation"] = {k: _one_more(v) for k, v in start["observation"].items()}
        self.dreams.begin([0], **start)
        return self._first(), {"task": self.dreams.task[0]}

    def step(self, action: np.ndarray) -> tuple[Observations, float, bool, bool, dict[str, Any]]:
        """Apply one raw action, clipped to the range of the data, and dream the next frame.

        Raises:
            ValueError: The action has another shape, or is not finite.
        """
        rewards, unsure = self.dreams.step(np.asarray(action)[None])
        terminated, truncated = bool(self.dreams.terminated[0]), bool(self.dreams.truncated[0])
        info = {"success": terminated, "is_success": terminated}
        if unsure is not None:
            info["unsure"] = bool(unsure[0])
        return self._first(), float(rewards[0]), terminated, truncated, info

    def branch(self, seed: int | None = None) -> "RemoteDreamEnv":
        """Another dream that goes on from here, with the same noise or with that of `seed`; this one stays."""
        return RemoteDreamEnv(self.dreams.branched(1, None if seed is None else [seed]))

    def snapshot(self) -> RemoteSnapshot:
        """Save the state on the server, for `restore`; it is there until `forget` or the end of the session."""
        return self.dreams.save()

    def restore(self, snapshot: RemoteSnapshot) -> Observations:
        """Go back to a snapshot, any number of times; returns the observation at that time."""
        self.dreams.restore(snapshot)
        return self._first()

    def forget(self, snapshot: RemoteSnapshot) -> None:
        """Free a snapshot."""
        self.dreams.session.ask("forget", snapshot=snapshot.name)

    def roll(
        self, actions: np.ndarray | Sequence[np.ndarray], *, frames: Literal["all", "last", "none"] = "all"
    ) -> Reply:
        """Apply `m` actions in one message; the episode does not end on the way.

        Returns:
            `observation`, `reward` and `success` of each step, as the server sent them, without the axis of streams.
        """
        reply = self.dreams.session.ask("step", actions=np.asarray(actions, np.float32)[None], frames=frames)
        self.dreams.steps, self.dreams.timing = self.dreams.steps + len(actions), reply["timing"]
        observation = {name: value[0] for name, value in reply["observation"].items()}
        self.dreams.observation |= {name: value[-1:].copy() for name, value in observation.items()}
        arrays = {name: value[0] for name, value in reply.items() if isinstance(value, np.ndarray)}
        return {"observation": observation, **arrays, "timing": reply["timing"]}

    def render(self) -> UInt8[np.ndarray, "H W 3"]:
        """The latest frame, cameras side by side."""
        return np.concatenate([self._first()[f"observation.images.{view}"] for view in self.about["views"]], axis=1)

    def close(self) -> None:
        """End the dream; the connection is closed with the last one of them."""
        self.dreams.close()

    def _first(self) -> Observations:
        return {name: values[0].copy() for name, values in self.dreams.observation.items()}


class RemoteDreamVectorEnv(VectorEnv):
    """Several dreams of one session on a server, computed together; made by `worldmodel.connect(url, num_envs=n)`.

    `reset` takes `seed` and the options `starts`, `noise`, `observation` and `reset_mask`, as `DreamEnv` does. There is
    no autoreset: a finished stream stands still, with reward 0, until it is reset.
    """

    def __init__(self, dreams: Dreams):
        super().__init__()
        self.dreams, self.about, self.num_envs = dreams, dreams.link.about, dreams.number
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_fps": self.about["fps"]}
        self.single_observation_space, self.single_action_space = spaces_of(self.about)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin dreams; see the class.

        Raises:
            ValueError: An option is unknown or does not have one entry per stream, or there is no such start.
        """
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)), bool)
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask has {self.num_envs} entries and is true somewhere, got {mask.tolist()}")
        if self.dreams.session is None and not mask.all():
            raise ValueError("the first reset is of all streams, got a reset_mask")
        streams = np.flatnonzero(mask).tolist()
        start = _start(options, self.about, several=True)
        if not start:
            seeds = self.np_random.integers(2**31, size=self.num_envs).tolist() if seed is None else seed
            start = {"seeds": [seeds + i for i in range(self.num_envs)] if isinstance(seeds, int) else list(seeds)}
        named = {"starts": start.get("starts"), "seeds": start.get("seeds")}
        for name, values in named.items():
            if values is not None and len(values) != self.num_envs:
                raise ValueError(f"got {len(values)} {name} for {self.num_envs} streams")
        chosen = {name: [int(values[i]) for i in streams] for name, values in named.items() if values is not None}
        if "observation" in start:
            chosen["observation"] = {name: np.asarray(v)[streams] for name, v in start["observation"].items()}
        self.dreams.begin(streams, **{**start, **chosen})
        return self._copy(), {"task": np.array(self.dreams.task, object), "_task": np.ones(self.num_envs, bool)}

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply one raw action per stream, clipped to the range of the data, and dream the next frame."""
        rewards, unsure = self.dreams.step(actions)
        terminated, truncated = self.dreams.terminated.copy(), self.dreams.truncated.copy()
        info = {"success": terminated.copy(), "is_success": terminated.copy()}
        info |= {f"_{name}": np.ones(self.num_envs, bool) for name in info}
        if unsure is not None:
            info |= {"unsure": unsure, "_unsure": np.ones(self.num_envs, bool)}
        return self._copy(), rewards, terminated, truncated, info

    def branch(self, k: int = 1, *, seeds: Sequence[int] | None = None) -> "RemoteDreamVectorEnv":
        """`k` copies of each stream that go on from here, side by side; these do not change."""
        return RemoteDreamVectorEnv(self.dreams.branched(k, seeds))

    def snapshot(self) -> RemoteSnapshot:
        """Save the state on the server, for `restore`."""
        return self.dreams.save()

    def restore(self, snapshot: RemoteSnapshot) -> Observations:
        """Go back to a snapshot; returns the observation at that time."""
        self.dreams.restore(snapshot)
        return self._copy()

    def close_extras(self, **kwargs: Any) -> None:
        """End the session."""
        self.dreams.close()

    def _copy(self) -> Observations:
        return _copies(self.dreams.observation)


def connect(
    url: str,
    *,
    token: str | None = None,
    num_envs: int | None = None,
    horizon: int | None = None,
    batch: int | None = None,
    num_steps: int | None = None,
    pictures: Literal["raw", "jpeg", "png"] = "raw",
    quality: int = 90,
    timeout: float = 60.0,
) -> RemoteDreamEnv | RemoteDreamVectorEnv:
    """Connect to a server of dreams; `worldmodel serve` starts one.

    ```python
    env = worldmodel.connect("ws://127.0.0.1:8000")
    observation, info = env.reset(options={"start": 0})
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    ```

    Args:
        url: `ws://host:port`, or `wss://` behind a proxy with TLS.
        token: The server's token, if it has one.
        num_envs: Number of dreams of a vector environment; by default one dream is a plain environment.
        horizon: Steps after which an episode is truncated; by default it never is.
        batch: Number of dreams that are always computed together; it changes what a dream shows by rounding errors
            only.
        num_steps: Denoising steps per frame.
        pictures: How frames are sent.
        quality: Of JPEG files, 1..95.
        timeout: Seconds within which the server has to answer.

    Raises:
        ValueError: The server refuses the token or the URL, or it serves something else.
        ConnectionError: There is no server, or it takes no more connections.
    """
    if num_envs is not None and num_envs < 1:
        raise ValueError(f"num_envs is at least 1, got {num_envs}")
    session = {"batch": batch, "num_steps": num_steps, "pictures": pictures, "quality": quality}
    dreams = Dreams(Link(url, token=token, timeout=timeout), RemoteOptions(horizon, session), num_envs or 1)
    return RemoteDreamEnv(dreams) if num_envs is None else RemoteDreamVectorEnv(dreams)


def spaces_of(about: dict[str, Any]) -> tuple[gymnasium.spaces.Dict, gymnasium.spaces.Box]:
    """Spaces of one observation and of one action, from what a server says."""
    box, named = gymnasium.spaces.Box, {}
    for view in about["views"]:
        named[f"observation.images.{view}"] = box(0, 255, (*about["size"], 3), "uint8")
    if about["state_dim"]:
        named["observation.state"] = box(-np.inf, np.inf, (about["state_dim"],), "float32")
    return gymnasium.spaces.Dict(named), box(about["action_low"], about["action_high"], dtype="float32")


def _start(options: dict[str, Any] | None, about: dict[str, Any], several: bool = False) -> dict[str, Any]:
    """The fields of a message about the start; none if it is drawn from a seed."""
    known = ("starts", *STARTS[1:]) if several else STARTS
    given = dict(options or {})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"reset has the options {', '.join(known)}, got {unknown[0]!r}")
    if "start" in given:
        given["starts"] = [int(given.pop("start"))]
    if "noise" in given and not {"starts", "observation"} & set(given):
        raise ValueError(f"the option noise goes with {known[0]} or observation; a seed determines its own")
    return given


def _copies(observation: Observations) -> Observations:
    return {name: values.copy() for name, values in observation.items()}


def _one_more(value: Any) -> Any:
    """Add an axis of streams to a value of one stream."""
    return [value] if isinstance(value, str) else np.asarray(value)[None]
