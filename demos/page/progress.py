"""The progress of long work on the page: steps so far and the time left, in Gradio's bar."""

import time
from collections.abc import Callable
from typing import Any

from worldmodel.display.progress import time_left


class Steps:
    """Counts steps and shows each of them.

    Args:
        show: Gradio's progress of the request: it takes a share and a description.
        total: Number of steps, at least 1.
        name: What is done.
        clock: Gives the time in seconds.
    """

    def __init__(self, show: Callable[..., Any], total: int, name: str, clock: Callable[[], float] = time.monotonic):
        self.show, self.total, self.name, self.clock = show, max(total, 1), name, clock
        self.done, self.begun = 0, clock()
        self._say()

    def advance(self, *_: object) -> None:
        """Count one step more."""
        self.done = min(self.done + 1, self.total)
        self._say()

    def _say(self) -> None:
        left = time_left(self.clock() - self.begun, self.done, self.total - self.done)
        facts = [f"{self.name}: {self.done} of {self.total} steps", left]
        self.show(self.done / self.total, desc=", ".join(fact for fact in facts if fact))
