"""Show the progress of a command: a bar in a terminal, elsewhere a plain line every 30 seconds."""

import sys
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from worldmodel.files import naming

INTERVAL = 30.0
"""Seconds between two lines where there is no terminal, and in the log file."""
LOG = "train.log"
"""Name of the log file in the folder of a run."""


def time_left(elapsed: float, done: int | float, rest: int | float) -> str:
    """The time that the rest takes at the speed so far, in words; empty at the start and at the end.

    Args:
        elapsed: Seconds since the start.
        done: How much was done in them.
        rest: How much is to do.
    """
    if done <= 0 or rest <= 0:
        return ""
    return f"about {timedelta(seconds=round(elapsed * rest / done))} left"


class ProgressLine:
    """The progress of one piece of work, on stderr and, if asked for, in a log file.

    In a terminal it is a bar with the time left. Where stderr is not a terminal (a log file, `nohup`,
    CI), it is one plain line every 30 seconds and one at the end, with the same facts. The log file
    gets these lines in both cases. It is a context manager; any thread may report.

    Args:
        name: What is done, at the start of the line.
        total: When it is done; 1.0 where the progress is a share.
        unit: What is counted, such as `frames`; without one, only the percentage is shown.
        completed: How much was done before.
        log: File to append lines to.
        disable: Show and write nothing.
        interval: Seconds between two lines.
    """

    def __init__(
        self,
        name: str,
        total: int | float,
        *,
        unit: str = "",
        completed: int | float = 0,
        log: Path | None = None,
        disable: bool = False,
        interval: float | None = None,
    ):
        self.name, self.total, self.unit = name, total, unit
        self.completed, self.before, self.note = completed, completed, ""
        self.log, self.disable = log, disable
        self.interval = INTERVAL if interval is None else interval
        self.lock = threading.Lock()

    def __enter__(self) -> "ProgressLine":
        """Begin to count the time."""
        self.started = self.shown = time.monotonic()
        self.bar = None
        if not self.disable and sys.stderr.isatty():
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=2)
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=self.total, completed=self.completed, note=self._facts())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show where it ended."""
        if self.bar is not None:
            self.bar.stop()
        self._write()

    def advance(self, amount: int | float = 1, note: str = "") -> None:
        """Count `amount` more; `note` says more about it."""
        with self.lock:
            self._show(self.completed + amount, note)

    def update(self, completed: int | float, note: str = "") -> None:
        """Say how much is done; `note` says more about it."""
        with self.lock:
            self._show(completed, note)

    def _show(self, completed: int | float, note: str) -> None:
        self.completed, self.note = completed, note or self.note
        if self.bar is not None:
            self.bar.update(self.task, completed=completed, note=self._facts())
        if time.monotonic() - self.shown >= self.interval:
            self._write()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started

    @property
    def line(self) -> str:
        """The progress as one line: facts, time so far, time left."""
        gone = str(timedelta(seconds=round(self.elapsed)))
        facts = [fact for fact in (self._facts(), f"{gone} gone", self._left()) if fact]
        return f"{self.name}: {', '.join(facts)}"

    def _facts(self) -> str:
        counted = f"{self.completed:g} of {self.total:g} {self.unit}" if self.unit else ""
        return "  ".join(part for part in (counted, self.note) if part)

    def _left(self) -> str:
        """The time left, by the speed since the beginning."""
        share = f"{self.completed / self.total:.0%}" if self.total and not self.unit else ""
        done, rest = self.completed - self.before, self.total - self.completed
        if done <= 0 or rest <= 0:
            return share
        left = time_left(self.elapsed, done, rest)
        return f"{share}, {left}" if share else left

    def _write(self) -> None:
        self.shown = time.monotonic()
        if self.disable:
            return
        if self.bar is None:
            print(self.line, file=sys.stderr, flush=True)
        if self.log is not None:
            with naming(self.log), self.log.open("a") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {self.line}\n")
