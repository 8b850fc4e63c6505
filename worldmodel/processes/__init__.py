"""Work in several processes with one thread each, and what Ctrl-C and SIGTERM do to a process.

PyTorch is imported where it is used, since the command line needs this module before anything else.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.synchronize import Barrier
from types import FrameType, TracebackType
from typing import Any, TypeVar

from worldmodel.processes.workers import Workers

Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_barrier: Barrier | None = None
SAME_SIGNAL = 2.0
"""Seconds within which a second signal to a launched process is the same request."""


SPINS = 10_000
"""How often a thread of OpenMP looks whether the others are ready before it sleeps."""


def launched_index() -> int:
    """The number of this process among those that `accelerate launch` or `torchrun` started; 0 where nothing did."""
    return int(os.environ.get("RANK", "0"))


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop; its state is saved, and it goes on with `resume`. The message says after which step."""


class StopRequest:
    """A context manager that turns Ctrl-C and SIGTERM into a flag, which a loop reads once per step.

    The second signal raises `KeyboardInterrupt` at once; in launched processes only if it comes more than a moment
    later, because a launcher passes on the signal that the terminal has sent to all processes already. A signal that
    the process ignores stays ignored; `nohup` and shells set this for processes in the background. Outside the main
    thread nothing happens, because Python allows handlers only there.

    Attributes:
        requested: Whether a signal has come.
    """

    def __init__(self):
        self.requested, self.since = False, 0.0
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                if signal.getsignal(each) != signal.SIG_IGN:
                    self.before[each] = signal.signal(each, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if "RANK" in os.environ and time.monotonic() - self.since < SAME_SIGNAL:
                return
            raise KeyboardInterrupt
        self.requested, self.since = True, time.monotonic()
        if launched_index():
            return
        os.write(2, b"\nstopping after this step; a second Ctrl-C stops at once\n")  # safe within any print


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt`, as Ctrl-C does, so that files are closed and removed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    ours = threading.current_thread() is threading.main_thread() and before not in (signal.SIG_IGN, None)
    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the end, so that files that belong together are all written."""
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in SIGNALS}
    for each in before:
        signal.signal(each, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        if came:
            os.kill(os.getpid(), came[0])


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Keep Ctrl-C, which a terminal sends to all processes, from those that are started inside."""
    resource_tracker.ensure_running()  # its start would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def work_through(
    function: Callable[[Any], Result],
    calls: Sequence[Any],
    *,
    workers: Workers,
    start: Callable[..., None],
    start_with: tuple[Any, ...] = (),
) -> Iterator[tuple[int, Result]]:
    """Call `function` with each of `calls` in new processes; yields the index and the result of each as it ends.

    The processes are on this machine, or on the nodes of a Ray cluster. When the iterator is closed early, or an error
    or Ctrl-C passes through it, they end at once and print nothing. Close it with `contextlib.closing`.

    Args:
        function: Defined at module level, so that a new process can import it.
        calls: The arguments; they and the results are pickled.
        workers: Who makes the calls; of the processes of this machine, not more than there are calls.
        start: Called once in every process.
        start_with: Its arguments.

    Raises:
        ValueError: A process was killed, or there is no such Ray cluster.
    """
    if not calls:
        return
    if workers.cluster:
        from worldmodel.processes.cluster import work_on_cluster

        yield from work_on_cluster(function, calls, workers=workers, start=start, start_with=start_with)
    else:
        yield from _work_here(function, calls, min(workers.number, len(calls)), (start, start_with))


def _work_here(
    function: Callable[[Any], Result], calls: Sequence[Any], processes: int, start: tuple[Any, ...]
) -> Iterator[tuple[int, Result]]:
    """`work_through` in a pool of processes of this machine."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start, start)
    try:
        with deaf_to_interrupts():
            waiting = {pool.submit(function, call): number for number, call in enumerate(calls)}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise ValueError("a worker process was killed, perhaps for lack of memory; use fewer --workers") from error
        raise
    pool.shutdown()


def _start(start: Callable[..., None], start_with: tuple[Any, ...]) -> None:
    """Set up a worker process, which ends when its parent ends, even if that one is killed."""
    end_with_parent()
    start(*start_with)


def wait_briefly() -> None:
    """Let the threads of OpenMP wait for each other actively for less than a millisecond, and then sleep.

    GNU's OpenMP lets a thread that waits use its core for many milliseconds. Where another program needs that core,
    the thread that is waited for does not run, and a dream of two threads falls to a tenth of its speed
    (`docs/log.md`). PyTorch reads the setting when it is imported. Where `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY` has
    been set, nothing changes.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


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
    with deaf_to_interrupts():
        pool = context.Pool(number, initializer=_begin, initargs=(barrier,))
    with pool:
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
    import torch

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
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
