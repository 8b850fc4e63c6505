"""A policy in another process or on another machine, behind a server that speaks openpi's protocol."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any
from weakref import finalize

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect

from policy_eval.policies.needs import Needs
from policy_eval.policies.policy import Observations
from worldmodel.files import from_json
from worldmodel.resolve import one_line
from worldmodel.wire.messages import pack, unpack

SCHEMES = ("ws://", "wss://")
MOST_BYTES = 1 << 26
"""Largest size of a message from a server."""


class Unreachable(ValueError):
    """The server of a policy does not answer; this says nothing about the policy and is not its failure."""


class RemotePolicy:
    """A policy behind a websocket server of openpi's protocol (Physical Intelligence, `openpi-client`).

    The server sends its metadata first, as one map. Then it gets one observation a message and answers
    `{"actions": array}` with the next `h` actions, `h a`; they are carried out in order, for each
    stream by itself, before the server is asked again. A text in place of a map is an error of the server.

    An observation is a map with LeRobot's keys (`observation.images.CAMERA`, uint8 `H W 3`;
    `observation.state`, float32 `s`), `prompt` with the task in words, and for servers that have a memory
    or draw random numbers: `stream`, the number of the stream; `seed`, the seed of its episode;
    `reset`, whether this is the first observation of the episode.

    If the metadata has `"batched": True`, the server gets the observations of all streams that need
    actions at once, with a leading axis, and answers with `n h a`. If it has `needs`, a map with fields
    of `Needs`, they are compared with the environment before the first trial.

    ```python
    policy = RemotePolicy("ws://localhost:8000", execute=5, keys={"observation.images.top": "observation/image"})
    ```

    Args:
        url: `ws://HOST:PORT` or `wss://HOST:PORT`.
        execute: How many actions of a reply are carried out; all by default.
        keys: The server's name for a key of the map, for keys that it calls otherwise, or a function that makes
            the server's map from ours, for one that wants other pictures or nested maps.
        headers: Headers of the request, such as `{"Authorization": "Api-Key ..."}`.
        wait: Seconds to wait for a connection and for the metadata.
        timeout: Seconds to wait for actions; the first ones of a server that compiles take long.

    Attributes:
        metadata: What the server says about itself.
        needs: What the policy needs, as far as the metadata says it.

    Raises:
        ValueError: `url`, `execute` or the metadata are malformed.
        Unreachable: Nothing answers there, or what answers does not speak this protocol.
    """

    def __init__(
        self,
        url: str,
        *,
        execute: int | None = None,
        keys: Mapping[str, str] | Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        wait: float = 10.0,
        timeout: float = 300.0,
    ):
        if not url.startswith(SCHEMES):
            raise ValueError(f"policy {url}: expected ws://HOST:PORT or wss://HOST:PORT")
        if execute is not None and execute < 1:
            raise ValueError(f"policy {url}: execute is at least 1, got {execute}")
        self.url, self.execute = url, execute
        self.rename = keys if callable(keys) else partial(_renamed, dict(keys or {}))
        self.headers, self.wait, self.timeout = dict(headers or {}), wait, timeout
        self._socket: ClientConnection | None = None
        self._open = ExitStack()
        finalize(self, self._open.close)  # else the thread of the connection would keep it open
        self._connect()
        stated = self.metadata.get("needs", {})
        self.needs = from_json(Needs, stated, f"policy {url}: needs in the metadata")
        self.batched = self.metadata.get("batched", False) is True

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.seeds = [int(seed) for seed in seeds]
        self.tasks = [""] * len(self.seeds)
        self.queues: list[list[np.ndarray]] = [[] for _ in self.seeds]
        self.fresh = [True] * len(self.seeds)
        self.streams = list(range(len(self.seeds)))

    def instruct(self, tasks: Sequence[str]) -> None:
        """Tell the task of each episode in words, which the server gets as `prompt`."""
        self.tasks = list(tasks)

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with these streams only; the server is not asked about episodes that have ended."""
        self.streams = [self.streams[row] for row in streams]

    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The next action of each stream; the server is asked where no action is left.

        Raises:
            ValueError: The server answers with an error, or with something else than actions, or `keys` names a key
                that is not there.
            Unreachable: The server does not answer in time, or ends the connection twice.
        """
        empty = [row for row, stream in enumerate(self.streams) if not self.queues[stream]]
        for row, plan in zip(empty, self._plans(observation, empty), strict=True):
            self.queues[self.streams[row]] = list(plan[: self.execute])
            self.fresh[self.streams[row]] = False
        actions = [self.queues[stream].pop(0) for stream in self.streams]
        return torch.from_numpy(np.stack(actions).astype(np.float32))

    def ahead(self) -> list[Float[Tensor, "n a"]]:
        """The rest of the server's plans, as far as all streams have one."""
        queues = zip(*(self.queues[stream] for stream in self.streams), strict=False)
        return [torch.from_numpy(np.stack(each).astype(np.float32)) for each in queues]

    def close(self) -> None:
        """End the connection."""
        self._open.close()
        self._socket = None

    def _plans(self, observation: Observations, rows: Sequence[int]) -> list[np.ndarray]:
        """The next actions for some rows of the observation, each `h a`."""
        seen = [self._seen(observation, row) for row in rows]
        if self.batched and seen:
            joined = {name: _joined([each[name] for each in seen]) for name in seen[0]}
            return list(self._actions(joined, (len(seen), None, None)))
        return [self._actions(each, (None, None)) for each in seen]

    def _seen(self, observation: Observations, index: int) -> dict[str, Any]:
        """What the server gets to see of one row of the observation."""
        stream = self.streams[index]
        row: dict[str, Any] = {name: values[index].cpu().numpy() for name, values in observation.items()}
        row["prompt"] = self.tasks[stream]
        row |= {"stream": stream, "seed": self.seeds[stream], "reset": self.fresh[stream]}
        return self.rename(row)

    def _actions(self, row: dict[str, Any], shape: tuple[int | None, ...]) -> np.ndarray:
        """The actions of a reply; `shape` has a number where the size is known."""
        reply = self._ask(row)
        actions = reply.get("actions") if isinstance(reply, dict) else None
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu":
            held = sorted(map(str, reply)) if isinstance(reply, dict) else type(reply).__name__
            raise ValueError(f"policy {self.url}: the server answers without an array `actions`, with {held}")
        known = all(wanted in (None, found) for wanted, found in zip(shape, actions.shape, strict=False))
        if actions.ndim != len(shape) or not known or 0 in actions.shape:
            axes = "n h a" if len(shape) == 3 else "h a"
            raise ValueError(
                f"policy {self.url}: the server's actions have the shape {actions.shape}, expected {axes}"
                + (f" with n = {shape[0]}" if len(shape) == 3 else "")
            )
        return actions

    def _ask(self, row: dict[str, Any]) -> Any:
        """The server's reply; a connection that has ended is made anew once."""
        message = pack(row)
        for attempt in range(2):
            if self._socket is None:
                self._connect()
            try:
                self._socket.send(message)
                reply = self._socket.recv(self.timeout)
                break
            except TimeoutError as error:
                self.close()
                raise Unreachable(f"policy {self.url}: no answer within {self.timeout:g} s") from error
            except ConnectionClosed as error:
                self.close()
                if attempt:
                    raise Unreachable(
                        f"policy {self.url}: the server ended the connection, and the next one, too ({one_line(error)})"
                    ) from error
        if isinstance(reply, str):
            self.close()
            last = (reply.strip().splitlines() or ["nothing"])[-1]
            raise ValueError(f"policy {self.url}: the server reports an error: {last}")
        return self._read(reply)

    def _connect(self) -> None:
        """Connect, and read the metadata.

        Pings are off: a server that computes in its event loop, as openpi's does, does not answer them.
        """
        try:
            opened = connect(
                self.url,
                compression=None,
                max_size=MOST_BYTES,
                open_timeout=self.wait,
                close_timeout=1,
                ping_interval=None,
                additional_headers=self.headers,
            )
            self._socket = self._open.enter_context(opened)
            first = self._socket.recv(self.wait)
        except InvalidURI as error:
            raise ValueError(f"policy {self.url}: expected ws://HOST:PORT or wss://HOST:PORT; {error}") from error
        except TimeoutError as error:
            self.close()
            raise Unreachable(f"policy {self.url}: no answer within {self.wait:g} s") from error
        except OSError as error:
            raise Unreachable(f"policy {self.url}: nothing answers ({one_line(error)})") from error
        except (InvalidHandshake, ConnectionClosed) as error:
            self.close()
            said = one_line(error)
            raise Unreachable(f"policy {self.url}: what answers does not speak openpi's protocol ({said})") from error
        metadata = self._read(first)
        if not isinstance(metadata, dict):
            self.close()
            raise Unreachable(f"policy {self.url}: the server begins with {metadata!r:.40}, expected a map of metadata")
        self.metadata = metadata

    def _read(self, message: bytes | str) -> Any:
        try:
            return unpack(message)
        except ValueError as error:
            self.close()
            raise ValueError(f"policy {self.url}: {error}") from error


def is_url(spec: object) -> bool:
    """Whether `spec` names a policy behind a server."""
    return str(spec).startswith(SCHEMES)


def _joined(values: list[Any]) -> Any:
    """The values of several streams as one, with a leading axis; texts as a list, and maps as a map of these."""
    if isinstance(values[0], dict):
        return {name: _joined([value[name] for value in values]) for name in values[0]}
    return values if isinstance(values[0], str) else np.stack(values)


def _renamed(names: Mapping[str, str], row: dict[str, Any]) -> dict[str, Any]:
    """The map with other names for some keys."""
    renamed = {names.get(name, name): value for name, value in row.items()}
    unknown = sorted(set(names) - set(row))
    if unknown:
        raise ValueError(f"keys name {unknown[0]!r}, a policy behind a server gets {', '.join(row)}")
    if len(renamed) < len(row):
        raise ValueError(f"keys give two values the same name: {', '.join(map(str, names.values()))}")
    return renamed
