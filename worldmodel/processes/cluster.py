"""Work on a Ray cluster: one actor per CPU, which owns what it has loaded, and calls that are queued to the actors.

Ray keeps the queue, places the actors, and restarts those that a killed process or a lost node took with it; a call
that was running there is made again. Ray is imported where it is used.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from worldmodel.processes.workers import RAY, Workers

Result = TypeVar("Result")
RESTARTS = 3
"""How often a worker may be lost and started again before the work ends with an error."""
SECONDS = 5.0
"""How long the address of a cluster is given to answer."""
LOCAL = "local"
"""The address that is a new cluster of this machine."""
OBJECT_STORE = 100_000_000
"""Bytes of memory for what is on its way between processes, where Ray is started here."""


class Worker:
    """A process of the cluster, which is set up with its first call.

    Args:
        start: Called once, as in every process of `work_through`.
        start_with: Its arguments.
        folder: The current folder of the process that asks, against which relative paths count.
    """

    def __init__(self, start: Callable[..., None], start_with: tuple[Any, ...], folder: str):
        self.start: tuple[Callable[..., None], tuple[Any, ...]] | None = (start, start_with)
        self.lacks = "" if os.path.isdir(folder) else folder
        if not self.lacks:
            os.chdir(folder)

    def call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """`function(argument)`.

        Raises:
            ValueError: The function or the set-up raises it; where this node lacks the folder, the message says so.
        """
        try:
            if self.start is not None:
                start, start_with = self.start
                start(*start_with)
                self.start = None
            return function(argument)
        except ValueError as error:
            if not self.lacks:
                raise
            raise ValueError(
                f"{error} (the node {socket.gethostname()} of the Ray cluster has no folder {self.lacks}, in which the "
                "command was called; the nodes need the same folders)"
            ) from error

    def numbered(self, number: int, function: Callable[[Any], Any], argument: Any) -> tuple[int, Any]:
        """`function(argument)` after the number of the call."""
        return number, self.call(function, argument)


def work_on_cluster(
    function: Callable[[Any], Result],
    calls: Sequence[Any],
    *,
    workers: Workers,
    start: Callable[..., None],
    start_with: tuple[Any, ...],
) -> Iterator[tuple[int, Result]]:
    """`work_through` on a Ray cluster; every actor has one call at a time.

    Raises:
        ValueError: The cluster does not answer or has no such GPUs, or a worker was lost several times.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends reports about its use otherwise
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util import ActorPool

    with connected(workers):
        number = min(len(calls), places(ray.cluster_resources(), workers))
        options = {"num_cpus": 1, "num_gpus": workers.gpus, "max_restarts": RESTARTS}
        # Ray asks a lost worker again and again before it knows that it is lost, so its questions are not counted.
        actor = ray.remote(**options, max_task_retries=-1)(Worker)
        actors = [actor.remote(start, start_with, os.getcwd()) for _ in range(number)]
        pool = ActorPool(actors)
        try:
            for each in enumerate(calls):
                pool.submit(lambda worker, call: worker.numbered.remote(call[0], function, call[1]), each)
            while pool.has_next():
                done = pool.get_next_unordered()
                idle = pool.pop_idle()
                if idle is not None:  # its CPU may be what an actor of a lost node waits for
                    ray.kill(idle)
                yield done
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise ValueError(
                f"a worker of the Ray cluster was lost for good ({type(error).__name__}), after {RESTARTS} restarts or "
                "with its cluster, perhaps for lack of memory; what is finished is kept"
            ) from error
        finally:
            for each in actors:
                ray.kill(each)


def places(resources: dict[str, float], workers: Workers) -> int:
    """How many workers a cluster with these resources has room for.

    Raises:
        ValueError: It has no CPU, or not the GPUs that a worker asks for.
    """
    cpus, gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    if cpus < 1:
        raise ValueError(f"--workers {workers.cluster}: the Ray cluster has no CPU for a worker")
    if not workers.gpus:
        return cpus
    room = int(gpus / workers.gpus + 1e-6)
    if room < 1:
        raise ValueError(f"--gpus-per-worker {workers.gpus:g}: the Ray cluster has {gpus:g} GPUs")
    return min(cpus, room)


@contextmanager
def connected(workers: Workers) -> Iterator[None]:
    """Join the cluster, or start one of this machine; a connection that is there already is taken, and left open.

    Raises:
        ValueError: The cluster does not answer.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    check_address(workers)
    before = signal.getsignal(signal.SIGTERM)
    try:
        join(workers)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own handler ends the process with another status
        have = ray.cluster_resources()
        nodes = sum(each["Alive"] for each in ray.nodes())
        print(f"Ray: {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs on {nodes} nodes", flush=True)
        yield
    finally:
        ray.shutdown()


def join(workers: Workers) -> None:
    """Connect to the named or the running cluster, or start one of this machine; `RAY_ADDRESS=local` always does.

    Raises:
        ValueError: The cluster takes no connection, or does not start.
    """
    import ray

    options = {"log_to_driver": False, "logging_level": "error"}
    try:
        if workers.address != LOCAL:
            ray.init(workers.address or "auto", **options)
            return
    except ConnectionError as error:
        if workers.address:
            raise ValueError(f"--workers {workers.cluster}: the Ray cluster takes no connection: {error}") from error
    try:
        ray.init(LOCAL, include_dashboard=False, object_store_memory=OBJECT_STORE, **options)
    except Exception as slow:  # Ray raises nothing more precise where its processes do not start in time
        reason = " ".join(str(slow).split())
        raise ValueError(f"--workers {workers.cluster}: Ray did not start on this machine: {reason}") from slow


def check_address(workers: Workers) -> None:
    """Look whether anybody listens at the address; Ray itself tries for minutes.

    Raises:
        ValueError: Nobody does.
    """
    where = workers.host_and_port
    if where is None:
        return
    try:
        socket.create_connection(where, SECONDS).close()
    except OSError as error:
        name = f"RAY_ADDRESS={workers.address}" if workers.cluster == RAY else workers.address
        raise ValueError(f"--workers {workers.cluster}: no Ray cluster answers at {name}: {error}") from error
