"""Run dreams in several processes with one thread each, so that a world model uses more than one core."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
_barrier: Barrier | None = None


def run_in_processes(function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> list[Result]:
    """`[function(*each) for each in arguments]` in as many processes as there are calls.

    Several threads hardly speed up the products of small matrices, so each process has one thread.
    Calls that use `wait_for_the_others` wait there for all other calls; when one of these fails
    before, the others fail at once, too.

    Args:
        function: Defined at module level, so that a new process can import it.
        arguments: The arguments of each call; they and the results are pickled.
    """
    context = multiprocessing.get_context("spawn")
    number = len(arguments)
    barrier = context.Barrier(number)
    with context.Pool(number, initializer=_begin, initargs=(barrier,)) as pool:
        return pool.starmap(_call, [(function, each) for each in arguments], chunksize=1)


def wait_for_the_others() -> None:
    """Wait until every process of `run_in_processes` has made this call; elsewhere, return at once.

    Raises:
        threading.BrokenBarrierError: Another process failed, or did not come within ten minutes.
    """
    if _barrier is not None:
        _barrier.wait(timeout=600)


def end_with_parent() -> None:
    """Let this process end when the process that started it ends, even if that one is killed."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _begin(barrier: Barrier) -> None:
    global _barrier
    torch.set_num_threads(1)
    _barrier = barrier


def _call(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    try:
        return function(*arguments)
    except BaseException:
        _barrier.abort()
        raise


@contextmanager
def single_thread() -> Iterator[None]:
    """Run PyTorch with one thread; frames this small are slower with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
