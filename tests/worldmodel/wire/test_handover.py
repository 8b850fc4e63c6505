"""Connections that one socket accepts and another one serves."""

import asyncio
import socket

from served import small_world, starts

from worldmodel.wire.handover import HandedOver, hand_over
from worldmodel.wire.host import WorldHost
from worldmodel.wire.messages import unpack
from worldmodel.wire.served import ServedWorld
from worldmodel.wire.server import Door, Server
from worldmodel.wire.tally import Tally


async def visit(url: str) -> str:
    """The kind of the first message, or the status of the refusal."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    try:
        async with connect(url, compression=None) as connection:
            return unpack(await connection.recv())["type"]
    except InvalidStatus as error:
        return str(error.response.status_code)


def test_a_connection_is_served_where_it_was_not_accepted():
    counts = [0, 3]  # another process has three connections

    async def run(limit: int) -> list[str]:
        ours, theirs = socket.socketpair()
        host = WorldHost(ServedWorld(small_world(), starts(), None))
        door = Door("127.0.0.1", 7, connections=limit)
        server = asyncio.create_task(Server(host, door, Tally(counts, 0)).run(urls.append, HandedOver(theirs)))
        said = []
        with ours, socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            visitor = asyncio.create_task(visit(f"ws://127.0.0.1:{listener.getsockname()[1]}"))
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
            with connection:
                hand_over(connection, ours)
            said.append(await visitor)
        server.cancel()
        await asyncio.wait([server])
        return said

    urls: list[str] = []
    assert asyncio.run(run(4)) == ["info"] and urls == ["ws://127.0.0.1:7"]
    assert asyncio.run(run(3)) == ["503"] and counts == [0, 3]
