"""Hand a connection that one process has accepted over to another one."""

import socket
from contextlib import suppress

WORD = b"."


def hand_over(connection: socket.socket, channel: socket.socket) -> None:
    """Give the process at the other end of `channel` a connection; the caller closes its own copy.

    Raises:
        OSError: That process has ended, or has not taken the last ones yet.
    """
    socket.send_fds(channel, [WORD], [connection.fileno()])


class HandedOver(socket.socket):
    """A socket that accepts the connections that `hand_over` sends, as one that listens accepts new ones.

    Args:
        channel: The end of a pair of stream sockets; it belongs to this one from then on.
    """

    def __init__(self, channel: socket.socket):
        super().__init__(fileno=channel.detach())

    def listen(self, backlog: int = 0, /) -> None:
        """Do nothing, since the other process listens."""

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection, and the address of the visitor if he is still there.

        Raises:
            BlockingIOError: There is none at the moment.
        """
        _, found, _, _ = socket.recv_fds(self, len(WORD), 1)
        if not found:
            raise BlockingIOError("the process that listens has ended")
        connection = socket.socket(fileno=found[0])
        address = None
        with suppress(OSError):
            address = connection.getpeername()
        return connection, address
