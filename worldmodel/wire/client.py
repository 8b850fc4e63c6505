"""A connection to a server, and one session on it: messages out, replies back."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import connect as open_websocket

from worldmodel.wire.messages import pack, unpack
from worldmodel.wire.pictures import decode

Reply = dict[str, Any]
PLAIN = {"compression": None, "max_size": None, "close_timeout": 2}
"""How a connection is opened: frames do not become smaller, and are as large as the server's limit."""


class Link:
    """A connection to a server of dreams; one message is answered before the next one is sent.

    Args:
        url: `ws://host:port`, or `wss://` behind a proxy with TLS.
        token: The server's token, if it has one.
        timeout: Seconds within which the server has to answer.

    Attributes:
        about: What the server said about its world.

    Raises:
        ValueError: The URL is none, the server refuses the token, or it serves something else.
        ConnectionError: There is no server, or it takes no more connections.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 60.0):
        self.url, self.timeout, self.users = url, timeout, 0
        self._lock, self._number, self._open = threading.Lock(), 0, ExitStack()
        headers = None if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._socket = self._open.enter_context(
                open_websocket(url, additional_headers=headers, open_timeout=timeout, **PLAIN)
            )
        except InvalidURI as error:
            raise ValueError(f"{url!r} is not the address of a server, such as ws://127.0.0.1:8000") from error
        except InvalidStatus as error:
            said = error.response.body.decode("utf-8", "replace").strip()
            kind = ValueError if error.response.status_code in (401, 403) else ConnectionError
            raise kind(f"{url}: the server refuses ({error.response.status_code}): {said}") from error
        except (OSError, InvalidHandshake) as error:
            raise ConnectionError(f"{url}: there is no server: {error}") from error
        self.about = self._receive()
        if not isinstance(self.about, dict) or self.about.get("type") != "info":
            self._open.close()
            raise ValueError(f"{url}: this server does not serve dreams; it may serve a policy")
        if self.about["protocol"] != 1:
            self._open.close()
            raise ValueError(f"{url}: the server speaks version {self.about['protocol']} of the messages, this is 1")

    def ask(self, kind: str, **fields: Any) -> Reply:
        """Send a message, and return the reply to it; fields that are `None` are left out.

        Raises:
            ValueError: The server says that the message does not fit, and why.
            ConnectionError: The connection is gone, or no answer came in time.
        """
        with self._lock:
            self._number += 1
            given = {name: value for name, value in fields.items() if value is not None}
            try:
                self._socket.send(pack({"type": kind, "id": self._number, **given}))
            except ConnectionClosed as error:
                raise self._closed(error) from error
            reply = self._receive()
            number = self._number
        if reply["type"] == "error":
            raise ValueError(f"{self.url}: {reply['error']}")
        assert reply.get("id") == number, f"{self.url}: a reply to message {reply.get('id')} came, not to {number}"
        return reply

    def close(self) -> None:
        """Close the connection; its sessions end."""
        self._open.close()

    def _receive(self) -> Any:
        try:
            return unpack(self._socket.recv(self.timeout))
        except TimeoutError as error:
            self._open.close()
            raise ConnectionError(f"{self.url}: no answer within {self.timeout:g} s") from error
        except ConnectionClosed as error:
            raise self._closed(error) from error

    def _closed(self, error: ConnectionClosed) -> ConnectionError:
        """What is said when the connection is gone; where the server did not say why, it broke off."""
        why = str(error)
        if error.rcvd is None:
            why = "it broke off, because the process that served it ended or the network failed; its dreams are lost"
        return ConnectionError(f"{self.url}: the connection is closed: {why}")


class RemoteSession:
    """Dreams on a server that are stepped together; made by `create` and `branch`.

    Args:
        link: The connection.
        reply: The reply to the message that made the session.

    Attributes:
        name: Its name on the server.
        streams: How many dreams.
    """

    def __init__(self, link: Link, reply: Reply):
        self.link, self.name, self.streams = link, reply["session"], len(reply["task"])
        link.users += 1

    @classmethod
    def create(cls, link: Link, **fields: Any) -> tuple["RemoteSession", Reply]:
        """A new session; the fields are those of the message `create`."""
        reply = link.ask("create", **fields)
        return cls(link, reply), _decoded(reply, link)

    def ask(self, kind: str, **fields: Any) -> Reply:
        """Send a message about this session; frames in the reply are arrays."""
        return _decoded(self.link.ask(kind, session=self.name, **fields), self.link)

    def branch(self, k: int, seeds: Sequence[int] | None = None, **form: Any) -> tuple["RemoteSession", Reply]:
        """A new session that goes on from here with `k` streams for each of this one."""
        asked = None if seeds is None else [int(seed) for seed in seeds]
        reply = self.link.ask("branch", session=self.name, k=k, seeds=asked, **form)
        return type(self)(self.link, reply), _decoded(reply, self.link)

    def close(self) -> None:
        """End the session; the last one of a connection closes it."""
        self.link.users -= 1
        if not self.link.users:
            self.link.close()
        else:
            with suppress(ConnectionError):
                self.link.ask("close", session=self.name)


def _decoded(reply: Reply, link: Link) -> Reply:
    """A reply whose frames are arrays, in whatever form they were sent."""
    seen = reply.get("observation")
    if seen is None:
        return reply
    size = tuple(link.about["size"])
    arrays: dict[str, np.ndarray] = {
        name: decode(value, size) if name.startswith("observation.images.") else value for name, value in seen.items()
    }
    return reply | {"observation": arrays}
