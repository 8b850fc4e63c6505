"""Dreams in several processes, one thread each: how a world model uses more cores than one."""

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

    Small matrices share badly among threads; so each process has one thread. Calls that use
    `wait_for_the_others` go on together, each in a process of its own; when one of them fails
    before, the others fail at once, too.

    Args:
        function: At module level, so that a fresh process finds it.
        arguments: What each process calls it with; they and the results are pickled.
    """
    context = multiprocessing.get_context("spawn")
    number = len(arguments)
    barrier = context.Barrier(number)
    with context.Pool(number, initializer=_begin, initargs=(barrier,)) as pool:
        return pool.starmap(_call, [(function, each) for each in arguments], chunksize=1)


def wait_for_the_others() -> None:
    """Wait until every process of `run_in_processes` is here; alone, go on at once.

    Raises:
        threading.BrokenBarrierError: If another one failed, or is not here after ten minutes.
    """
    if _barrier is not None:
        _barrier.wait(timeout=600)


def end_with_parent() -> None:
    """Let this process end when the one that started it does, killed or not."""
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
    """PyTorch with one thread: frames this small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
