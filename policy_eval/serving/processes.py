"""Several processes that serve behind one port.

One process listens, accepts the connections and hands each over to the process that has the fewest. A session belongs
to a connection, so it stays in one process. Connections and rows are counted in memory that the processes share, so
the limits hold for their sum.
"""

import asyncio
import contextlib
import itertools
import multiprocessing
import socket
import sys
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from worldmodel.processes import deaf_to_interrupts
from worldmodel.wire.handover import hand_over
from worldmodel.wire.server import Door, url_of

ENDING_SECONDS = 20.0
"""How long a process is given to close its connections."""
BACKLOG = 1024

Serve = Callable[[MutableSequence[int], MutableSequence[int], int, socket.socket, Connection], None]


@dataclass(frozen=True)
class Share:
    """One of the processes.

    Attributes:
        process: The process.
        channel: Takes connections to it.
        answer: It sends `None` as soon as it serves, or the error for which it cannot.
    """

    process: BaseProcess
    channel: socket.socket
    answer: Connection


class Processes:
    """Processes that share the visitors of one port.

    Args:
        serve: What each process does: it gets the rows and the connections of all processes, its own place in them, a
            channel from which connections come, and where to say that it serves. Defined at module level.
        number: How many processes.
        door: Where to listen.
    """

    def __init__(self, serve: Serve, number: int, door: Door):
        self.serve, self.number, self.door = serve, number, door
        self.context = multiprocessing.get_context("spawn")
        self.rows: Any = self.context.RawArray("q", number)
        self.visitors: Any = self.context.RawArray("q", number)
        self.shares: dict[int, Share] = {}
        self.ready: set[int] = set()
        self._turn, self._last = itertools.count(1), [0] * number

    async def run(self, started: Callable[[str], None]) -> None:
        """Serve until the task is cancelled; `started` is called with the URL as soon as all processes serve.

        Raises:
            OSError: The port is taken, or the host is not one of this machine.
            Exception: A process cannot serve; the error is that of the process.
        """
        try:
            with await listening(self.door) as listener:
                await asyncio.gather(*(self._begin(place) for place in range(self.number)))
                started(url_of(self.door.host, listener.getsockname()[1]))
                tasks = [asyncio.create_task(self._accept(listener))]
                tasks += [asyncio.create_task(self._keep(place)) for place in range(self.number)]
                try:
                    await asyncio.gather(*tasks)
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            self._end()

    async def _begin(self, place: int) -> None:
        """Start a process, and wait until it serves."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        hear, tell = self.context.Pipe(duplex=False)
        arguments = (self.rows, self.visitors, place, theirs, tell)
        with deaf_to_interrupts(), theirs, tell:
            process = self.context.Process(target=self.serve, args=arguments, name=f"serve-{place}")
            process.start()
        self.shares[place] = Share(process, ours, hear)
        try:
            problem = await asyncio.to_thread(hear.recv)
        except EOFError:
            process.join()
            problem = ValueError(f"a process of the server ended before it served, with the status {process.exitcode}")
        if problem is not None:
            raise problem
        self.ready.add(place)

    async def _keep(self, place: int) -> None:
        """Start a process anew whenever it has ended."""
        while True:
            share = self.shares[place]
            await _ended(share.process)
            self.ready.remove(place)
            lost, self.rows[place], self.visitors[place] = self.visitors[place], 0, 0
            share.process.join()
            share.channel.close()
            print(
                f"a process of the server ended with the status {share.process.exitcode}, and with it the sessions of "
                f"{lost} connections; it is started again",
                file=sys.stderr,
                flush=True,
            )
            await self._begin(place)

    async def _accept(self, listener: socket.socket) -> None:
        """Accept connections and hand them over."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            with connection:
                self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        """Hand a connection over to the process with the fewest; of several to the one that got none for longest."""
        for place in sorted(self.ready, key=lambda place: (self.visitors[place], self._last[place])):
            with contextlib.suppress(OSError):  # it has just ended
                hand_over(connection, self.shares[place].channel)
                self._last[place] = next(self._turn)
                return

    def _end(self) -> None:
        """End all processes."""
        for share in self.shares.values():
            share.process.terminate()
        for share in self.shares.values():
            share.process.join(ENDING_SECONDS)
            if share.process.exitcode is None:
                share.process.kill()
                share.process.join()
            share.channel.close()


async def listening(door: Door) -> socket.socket:
    """A socket that listens where the door is.

    Raises:
        OSError: The port is taken, or the host is not one of this machine.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.create_server(address, family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


async def _ended(process: BaseProcess) -> None:
    """Wait for the end of a process."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(process.sentinel, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(process.sentinel)
