"""The visitors who drive: each one has a separate session, which is freed when the visitor leaves."""

import contextvars
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from demos.driving.session import DriveSession

Result = TypeVar("Result")


class Visitors:
    """The sessions of all visitors, and the one thread that works for them in turn.

    There is one thread, because a world model on a CPU gains nothing from two, and a simulator's
    graphics must not change threads.

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dream")

    def __len__(self) -> int:
        """Number of visitors."""
        return len(self._sessions)

    def work(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run `function` in the one thread, after all earlier requests.

        Call every method below except `close` in this thread.
        """
        context = contextvars.copy_context()  # Gradio's progress bars live in it
        return self._thread.submit(context.run, function, *arguments).result()

    def enter(self, visitor: str, session: Callable[[], DriveSession]) -> DriveSession:
        """Give a visitor a new session, in place of an earlier one.

        Raises:
            ValueError: Too many visitors are here, or the name is not plain letters and digits.
        """
        self.files(visitor)
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
        """
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
            ValueError: The visitor's name is not plain letters and digits.
        """
        if not visitor.isalnum():
            raise ValueError(f"a visitor is named by letters and digits, got {visitor!r}")
        return self.folder / visitor

    def close(self) -> None:
        """Free everything."""
        for visitor in list(self._sessions):
            self.work(self.leave, visitor)
        self._thread.shutdown()

    def _free_idle(self) -> None:
        now = self.clock()
        for visitor, seen in list(self._seen.items()):
            if now - seen > self.idle_seconds:
                self.leave(visitor)
