"""A tiny world behind a server, and raw messages to it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from drawn_episodes import SEEDS, DrawnEpisodes, never
from tiny import tiny_world
from websockets.sync.client import ClientConnection, connect

from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.wire.host import WorldHost
from worldmodel.wire.limits import Limits
from worldmodel.wire.messages import pack, unpack
from worldmodel.wire.served import ServedWorld
from worldmodel.wire.server import Door, serving
from worldmodel.world_model import WorldModel


def starts() -> Starts:
    """Four starts whose pictures are grey 40, 90, 140, 190."""
    return Starts(DrawnEpisodes([5, 6, 7, 8], lambda e, f: 40 + 50 * e + 0 * f, reset_seeds=SEEDS))


def small_world(**options: Any) -> WorldModel:
    """Two cameras of 16 x 16 pixels, actions and states of 2 numbers."""
    return tiny_world(size=(16, 16), relative_to={}, **options)


@contextmanager
def served(
    world: WorldModel | None = None,
    judge: Judge | None = never,
    data: Starts | None = None,
    *,
    limits: Limits | None = None,
    batch: int = 2,
    **door: Any,
) -> Iterator[str]:
    """The URL of a server in a thread; it has starts unless `data` is `None` and a world is given."""
    data = starts() if world is None else data
    world = small_world() if world is None else world
    port = door.pop("port", 0)
    house = ServedWorld(world, data, judge, name="tiny", batch=batch, limits=limits)
    size = {"message_bytes": house.message_bytes, "idle_seconds": house.limits.idle_seconds}
    asked = {"connections": house.limits.connections, **size, **door}
    with serving(WorldHost(house), Door("127.0.0.1", port, **asked)) as url:
        yield url


class Wire:
    """A client of nothing but websockets and msgpack."""

    def __init__(self, url: str, **options: Any):
        opened = connect(url, compression=None, max_size=None, close_timeout=0.2, **options)
        self._open = ExitStack()
        self.socket: ClientConnection = self._open.enter_context(opened)
        self.about = unpack(self.socket.recv(60))

    def __call__(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.socket.send(pack({"type": kind, **fields}))
        return self.receive()

    def receive(self) -> Any:
        """The next message."""
        return unpack(self.socket.recv(60))

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
