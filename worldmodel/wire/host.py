"""A world model as the host of a server."""

import asyncio
from typing import Any

from worldmodel.wire.served import ServedWorld
from worldmodel.wire.sessions import Visitor


class WorldHost:
    """Lets visitors dream in a world model.

    Args:
        served: The world model, its starts and its judge.
    """

    def __init__(self, served: ServedWorld):
        self.served = served
        self._visitors: set[_Counted] = set()

    def enter(self) -> Visitor:
        """A visitor without sessions."""
        visitor = _Counted(self.served, self._visitors)
        self._visitors.add(visitor)
        return visitor

    async def run(self) -> None:
        """Compute the steps, and free the sessions that nobody uses."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.served.turns.run())
                tasks.create_task(self._sweep())
        finally:
            self.served.turns.thread.shutdown(wait=False, cancel_futures=True)

    def error(self, message: str) -> dict[str, Any]:
        """An error, as a message like any other."""
        return {"type": "error", "error": message}

    async def _sweep(self) -> None:
        loop, idle = asyncio.get_running_loop(), self.served.limits.idle_seconds
        while True:
            await asyncio.sleep(idle / 4)
            for visitor in list(self._visitors):
                visitor.free_idle(loop.time() - idle)


class _Counted(Visitor):
    """A visitor who removes itself from the list when it leaves."""

    def __init__(self, served: ServedWorld, among: set["_Counted"]):
        super().__init__(served)
        self._among = among

    def leave(self) -> None:
        super().leave()
        self._among.discard(self)
