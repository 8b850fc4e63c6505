"""A websocket server that lets visitors in, reads their messages and sends the replies.

What is served is a `Host`: a world model, or a policy.
"""

import asyncio
import contextlib
import hmac
import http
import ipaddress
import logging
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as open_websockets
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.http11 import Request, Response

from worldmodel.resolve import one_line
from worldmodel.wire.fields import MOST_CHARACTERS
from worldmodel.wire.messages import pack, unpack
from worldmodel.wire.tally import Tally

QUIET = logging.getLogger("worldmodel.wire")
QUIET.setLevel(logging.CRITICAL)  # a refused or broken connection is no event for the terminal
HEALTH = "/healthz"
"""A plain HTTP request for this path is answered with OK."""


@runtime_checkable
class Guest(Protocol):
    """One connection, as a host sees it."""

    def hello(self) -> dict[str, Any]:
        """The first message."""
        ...

    async def answer(self, message: Any) -> dict[str, Any]:
        """The reply to a message; a `ValueError` becomes a message about the error."""
        ...

    def leave(self) -> None:
        """The connection is gone."""
        ...


@runtime_checkable
class Host(Protocol):
    """What is served."""

    def enter(self) -> Guest:
        """A new connection."""
        ...

    async def run(self) -> None:
        """The work that goes on beside the connections, without an end."""
        ...

    def error(self, message: str) -> dict[str, Any] | str:
        """What is sent in place of a reply; after a text, the connection is closed."""
        ...


@dataclass(frozen=True)
class Door:
    """Where a server listens, and whom it lets in.

    Attributes:
        host: The address to listen on.
        port: The port; 0 takes one that is free.
        token: What visitors have to send; `None` lets anybody in.
        origins: Web pages whose scripts may connect.
        connections: Most connections at a time.
        message_bytes: Largest message of a visitor.
        idle_seconds: A connection without messages for longer is closed.

    Raises:
        ValueError: The port is none, or the token is empty or has characters that a header cannot hold.
    """

    host: str
    port: int
    token: str | None = None
    origins: tuple[str, ...] = ()
    connections: int = 64
    message_bytes: int = 1 << 24
    idle_seconds: float = 300.0

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port is within 0..65535, got {self.port}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise ValueError(f"--token is a text of printable ASCII characters, got {self.token!r}")

    @property
    def open_to_all(self) -> bool:
        """Whether other machines reach the server, and no token is asked for."""
        try:
            local = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            local = self.host == "localhost"
        return self.token is None and not local


class Server:
    """A websocket server for one host.

    Args:
        host: What is served.
        door: Where it listens, and whom it lets in.
        visitors: Counts the connections; by default there is no other process that serves.
    """

    def __init__(self, host: Host, door: Door, visitors: Tally | None = None):
        self.host, self.door = host, door
        self.visitors = Tally() if visitors is None else visitors

    async def run(self, started: Callable[[str], None], listener: socket.socket | None = None) -> None:
        """Serve until the task is cancelled; `started` is called with the URL as soon as it listens.

        Connections come from `listener`, if one is given, in place of the host and the port of the door.

        Raises:
            OSError: The port is taken, or the host is not one of this machine.
        """
        options = {
            "origins": [None, *self.door.origins],
            "process_request": self._refusal,
            "compression": None,  # a small message could become a large one
            "max_size": self.door.message_bytes,
            "max_queue": 8,
            "ping_timeout": 60,
            "logger": QUIET,
        }
        where = {"host": self.door.host, "port": self.door.port} if listener is None else {"sock": listener}
        async with open_websockets(self._serve, **where, **options) as server:
            port = self.door.port if listener is not None else next(iter(server.sockets)).getsockname()[1]
            started(url_of(self.door.host, port))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.host.run())
                tasks.create_task(server.serve_forever())

    def _refusal(self, connection: ServerConnection, request: Request) -> Response | None:
        """An answer to a request that does not become a connection."""
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self.door.token is not None and not _has_token(request, self.door.token):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "the token is missing or wrong\n")
        if self.visitors.total >= self.door.connections:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, _full(self.door))
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        """One connection, from the first message to the last."""
        if not self.visitors.take(1, self.door.connections):  # several were let in at the same time
            await connection.close(1013, _full(self.door).strip())
            return
        guest = self.host.enter()
        try:
            await connection.send(pack(guest.hello()))
            while True:
                data = await asyncio.wait_for(connection.recv(), self.door.idle_seconds)
                reply = await _unless_closed(connection, self._reply(guest, data))
                await asyncio.wait_for(connection.send(reply), self.door.idle_seconds)
                if isinstance(reply, str):
                    await connection.close(1011, "the error is in the message before")
                    return
        except TimeoutError:
            await connection.close(1001, f"idle for {self.door.idle_seconds:g} s")
        except ConnectionClosed:
            return
        finally:
            self.visitors.give_back(1)
            guest.leave()

    async def _reply(self, guest: Guest, data: bytes | str) -> bytes | str:
        """The reply to the bytes of a message, whatever they are."""
        tag = None
        try:
            message = unpack(data)
            tag = _tag(message)
            reply = await guest.answer(message)
        except ValueError as error:
            reply = self.host.error(" ".join(str(error).split()))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reply = self.host.error(f"the server failed: {one_line(error)}")
        if isinstance(reply, str):
            return reply
        return pack(reply if tag is None else reply | {"id": tag})


def url_of(host: str, port: int) -> str:
    """The address of a server."""
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


@contextlib.contextmanager
def serving(host: Host, door: Door) -> Iterator[str]:
    """Serve in a thread of this process; gives the URL.

    Raises:
        OSError: The port is taken, or the host is not one of this machine.
    """
    loop, address = asyncio.new_event_loop(), []
    listens, task = threading.Event(), None

    def started(url: str) -> None:
        address.append(url)
        listens.set()

    async def run() -> None:
        """Serve until the task is cancelled; what goes wrong before it listens is raised in the other thread."""
        nonlocal task
        task = asyncio.current_task()
        try:
            await Server(host, door).run(started)
        except asyncio.CancelledError:
            return
        except BaseException as error:
            address.append(error)
            listens.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), name="server", daemon=True)
    thread.start()
    listens.wait()
    if isinstance(address[0], BaseException):
        raise address[0]
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


async def _unless_closed(connection: ServerConnection, work: Coroutine[Any, Any, bytes | str]) -> bytes | str:
    """The result of `work`, which is cancelled when the visitor leaves.

    Raises:
        ConnectionClosed: The visitor has left.
    """
    answer, gone = asyncio.ensure_future(work), asyncio.ensure_future(connection.wait_closed())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionClosedError(None, None)
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()


def _has_token(request: Request, token: str) -> bool:
    """Whether the header `Authorization` holds the token, as `Bearer` or, as openpi sends it, as `Api-Key`."""
    sent = [value.partition(" ") for value in request.headers.get_all("Authorization")]
    if len(sent) != 1 or sent[0][0].lower() not in ("bearer", "api-key"):
        return False
    return hmac.compare_digest(sent[0][2].strip().encode("utf-8", "surrogateescape"), token.strip().encode())


def _tag(message: Any) -> int | str | None:
    """The `id` of a message, which its reply repeats.

    Raises:
        ValueError: It is neither a number nor a short text.
    """
    tag = message.get("id") if isinstance(message, dict) else None
    if tag is None or type(tag) is int or (isinstance(tag, str) and len(tag) <= MOST_CHARACTERS):
        return tag
    raise ValueError(f"id is a whole number or a text of at most {MOST_CHARACTERS} characters")


def _full(door: Door) -> str:
    return f"the server has {door.connections} connections and takes no more\n"
