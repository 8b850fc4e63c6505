"""Dreams in several processes, one thread each: how a world model uses more cores than one."""

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
_barrier: Barrier | None = None


def run_in_processes(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]
) -> list[Result]:
    """`[function(*each) for each in arguments]`, every call in a process of its own.

    Small matrices share badly among threads; so each process has one thread, and all of them
    begin together when they call `wait_for_the_others`.

    Args:
        function: At module level, so that a fresh process finds it.
        arguments: What each process calls it with; they and the results are pickled.
    """
    context = multiprocessing.get_context("spawn")
    number = len(arguments)
    barrier = context.Barrier(number)
    with context.Pool(number, initializer=_begin, initargs=(barrier,)) as pool:
        return pool.starmap(function, arguments, chunksize=1)


def wait_for_the_others() -> None:
    """Wait until every process of `run_in_processes` is here; alone, go on at once.

    Raises:
        threading.BrokenBarrierError: If another one is not here after ten minutes.
    """
    if _barrier is not None:
        _barrier.wait(timeout=600)


def _begin(barrier: Barrier) -> None:
    global _barrier
    torch.set_num_threads(1)
    _barrier = barrier
