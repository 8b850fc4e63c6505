"""A server of openpi's protocol in a thread, with what its clients have sent."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from websockets.sync.server import ServerConnection, serve

from worldmodel.wire.messages import pack, unpack


class PolicyServer:
    """Answers every observation by `infer`.

    Attributes:
        seen: The observations that came, in order.
        connections: How many clients have connected.
        running: How many of them are connected now.
        closing: How many connections to end without an answer; they are counted down.
    """

    def __init__(self, infer: Callable[[dict[str, Any]], Any], metadata: object):
        self.infer, self.metadata = infer, metadata
        self.seen: list[dict[str, Any]] = []
        self.connections = self.running = self.closing = 0

    def answer(self, socket: ServerConnection) -> None:
        """Serve one client."""
        self.connections += 1
        self.running += 1
        try:
            self.serve(socket)
        finally:
            self.running -= 1

    def serve(self, socket: ServerConnection) -> None:
        """Send the metadata, and answer until the client leaves."""
        socket.send(self.metadata if isinstance(self.metadata, str) else pack(self.metadata))
        for message in socket:
            if self.closing:
                self.closing -= 1
                return
            self.seen.append(unpack(message))
            try:
                reply = self.infer(self.seen[-1])
            except Exception as error:
                socket.send(f"Traceback (most recent call last):\n  ...\n{type(error).__name__}: {error}\n")
                return
            socket.send(reply if isinstance(reply, str) else pack(reply))


@contextlib.contextmanager
def serving(infer: Callable[[dict[str, Any]], Any], metadata: object = None) -> Iterator[tuple[str, PolicyServer]]:
    """A running server; gives its address and itself."""
    one = PolicyServer(infer, {} if metadata is None else metadata)
    with serve(one.answer, "localhost", 0, max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://localhost:{server.socket.getsockname()[1]}", one
        server.shutdown()
        thread.join()


def by_policy(make: Callable[[], Any]) -> Callable[[dict[str, Any]], dict[str, np.ndarray]]:
    """How a policy is served: each stream of the client gets one of its own, begun with the seed of its episode."""
    policies: dict[int, Any] = {}

    def infer(seen: dict[str, Any]) -> dict[str, np.ndarray]:
        if seen["reset"]:
            policies[seen["stream"]] = make()
            policies[seen["stream"]].reset([seen["seed"]])
        tensors = {name: torch.tensor(value)[None] for name, value in seen.items() if name.startswith("observation.")}
        return {"actions": policies[seen["stream"]].act(tensors).numpy()}

    return infer
