"""The visitors who drive: each one has a separate session, which is freed when the visitor leaves."""

import asyncio
import contextvars
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from demos.driving.session import DriveSession

Result = TypeVar("Result")
LONGEST_NAME = 64


class VisitorLeft(ValueError):
    """Something was to be done for a visitor whose page is not connected."""


class Visitors:
    """The sessions of all visitors, and the one thread that works for them in turn.

    There is one thread, because a world model on a CPU gains nothing from two, and a simulator's
    graphics must not change threads.

    A visitor is here as long as a page holds a connection under the visitor's name: a name that somebody
    invents gets no session, and a visitor who closes the page makes room at once.

    Args:
        folder: Where each visitor gets a folder for recordings.
        limit: Maximum number of visitors at a time.
        idle_seconds: A visitor who does nothing for longer makes room for another.
        clock: Returns the time in seconds; tests replace it.
    """

    def __init__(
        self, folder: Path, *, limit: int = 16, idle_seconds: float = 300.0, clock: Callable[[], float] = time.monotonic
    ):
        self.folder, self.limit, self.idle_seconds, self.clock = folder, limit, idle_seconds, clock
        self._sessions: dict[str, DriveSession] = {}
        self._seen: dict[str, float] = {}
        self._connections: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dream")

    def __len__(self) -> int:
        """Number of visitors."""
        return len(self._sessions)

    def connect(self, visitor: str) -> None:
        """Note a connection of a visitor's page; call it in any thread.

        Raises:
            ValueError: The name is not made of plain letters and digits, or is too long.
        """
        self.files(visitor)
        with self._lock:
            self._connections[visitor] += 1

    def disconnect(self, visitor: str) -> None:
        """Note the end of a connection; call it in any thread.

        With the last connection the visitor has left: long computations for this visitor stop at their next
        step, and the session is freed as soon as the one thread can do it.
        """
        with self._lock:
            self._connections[visitor] -= 1
            if self._connections[visitor] > 0:
                return
            del self._connections[visitor]
            if not self._closed:
                self._thread.submit(self.leave, visitor)

    def is_here(self, visitor: str) -> bool:
        """Whether a page of this visitor is connected."""
        return visitor in self._connections

    def check_here(self, visitor: str) -> None:
        """Raise `VisitorLeft` if no page of this visitor is connected; long computations call it at every step."""
        if not self.is_here(visitor):
            raise VisitorLeft("the connection of this page has ended; load the page anew")

    async def arrival(self, visitor: str, *, seconds: float = 20.0) -> None:
        """Wait until a page of this visitor is connected.

        Raises:
            VisitorLeft: It is not connected within `seconds`.
        """
        latest = self.clock() + seconds
        while not self.is_here(visitor) and self.clock() < latest:
            await asyncio.sleep(0.02)
        self.check_here(visitor)

    def work(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run `function` in the one thread, after all earlier requests.

        Call every method below except `files` and `close` in this thread.
        """
        context = contextvars.copy_context()  # Gradio's progress bars live in it
        return self._thread.submit(context.run, function, *arguments).result()

    def enter(self, visitor: str, session: Callable[[], DriveSession]) -> DriveSession:
        """Give a visitor a new session, in place of an earlier one.

        Raises:
            ValueError: Too many visitors are here.
            VisitorLeft: No page of this visitor is connected.
        """
        self.check_here(visitor)
        if visitor not in self._sessions and len(self) >= self.limit:
            self._free_idle()
        if visitor not in self._sessions and len(self) >= self.limit:
            raise ValueError(f"{self.limit} visitors are driving already; try again in a minute")
        if visitor in self._sessions:
            self._sessions[visitor].close()
        self._sessions[visitor] = session()
        self._seen[visitor] = self.clock()
        return self._sessions[visitor]

    def session(self, visitor: str) -> DriveSession:
        """The session of a visitor.

        Raises:
            ValueError: There is none, or it made room for another.
            VisitorLeft: No page of this visitor is connected.
        """
        self.check_here(visitor)
        if visitor not in self._sessions:
            raise ValueError("this session has ended; choose a start frame to begin anew")
        self._seen[visitor] = self.clock()
        return self._sessions[visitor]

    def leave(self, visitor: str) -> None:
        """Free the session and the files of a visitor."""
        if visitor in self._sessions:
            self._sessions.pop(visitor).close()
            del self._seen[visitor]
        shutil.rmtree(self.files(visitor), ignore_errors=True)

    def files(self, visitor: str) -> Path:
        """The folder for a visitor's recordings, which need not exist.

        Raises:
            ValueError: The visitor's name is not made of plain letters and digits, or is too long.
        """
        if not (visitor.isascii() and visitor.isalnum() and len(visitor) <= LONGEST_NAME):
            raise ValueError(f"a visitor is named by 1 to {LONGEST_NAME} letters and digits, got {visitor[:80]!r}")
        return self.folder / visitor

    def close(self) -> None:
        """Free everything."""
        with self._lock:
            self._closed = True
        for visitor in list(self._sessions):
            self.work(self.leave, visitor)
        self._thread.shutdown()

    def _free_idle(self) -> None:
        now = self.clock()
        for visitor, seen in list(self._seen.items()):
            if now - seen > self.idle_seconds:
                self.leave(visitor)
