"""The batch of the next step, made while the current one is computed."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes the batch of a step while the step before it is computed, in a thread.

    Args:
        make: Makes the batch of a step from its number; must depend on nothing else.
        enabled: If False, a batch is made when it is requested. This is right for a CPU, where
            reading and computing would share the cores.
    """

    def __init__(self, make: Callable[[int], T], *, enabled: bool):
        self.make, self.enabled = make, enabled
        self.pool = ThreadPoolExecutor(1)
        self.coming: dict[int, Future[T]] = {}

    def __enter__(self) -> "Ahead[T]":
        """Nothing is made before the first call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop the batch that was not requested."""
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> T:
        """The batch of `step`; starts to make that of the next one. Errors of `make` are raised here."""
        if not self.enabled:
            return self.make(step)
        now = self.coming.pop(step, None) or self.pool.submit(self.make, step)
        self.coming = {step + 1: self.pool.submit(self.make, step + 1)}
        return now.result()
