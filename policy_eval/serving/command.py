"""Serve a world model or a policy. `worldmodel serve --world W`, `worldmodel serve --policy P`."""

import asyncio
import contextlib
import functools
import io
import signal
import socket
import sys
import threading
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from policy_eval.judge.find import load_judge
from policy_eval.policies.find import load_policy, policy_fingerprint
from policy_eval.serving.policy_host import PolicyHost
from policy_eval.serving.processes import Processes
from worldmodel.data import open_episodes
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.ranges import Count, Port, check_ranges
from worldmodel.dreams.starts import Starts
from worldmodel.model.precision import command_device
from worldmodel.processes import end_with_parent, terminate_as_interrupt
from worldmodel.wire.handover import HandedOver
from worldmodel.wire.host import WorldHost
from worldmodel.wire.limits import Limits
from worldmodel.wire.served import ServedWorld
from worldmodel.wire.server import Door, Host, Server
from worldmodel.wire.tally import Tally
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class ServeConfig:
    """Serve a world model to `worldmodel.connect` and to other clients, or a policy to clients of openpi's protocol.

    Give either a world model or a policy.
    """

    world: str | Path | None = None
    """Folder of the world model to serve, or hf://USER/NAME@REV."""
    judge: str | Path | None = None
    """Who gives reward and success: the folder of a judge (or hf://USER/NAME@REV), module:name of yours, or the address
    of a server. Without a judge there is no reward and no success."""
    data: DataPath | None = None
    """Recorded episodes. Dreams start from their first frames, and actions are clipped to their range. Without data,
    visitors send pictures to start from."""
    policy: str | Path | None = None
    """Folder of the policy to serve, hf://USER/NAME@REV, module:name for a policy of yours, or lerobot:FOLDER."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: Port = 8000
    """Port to listen on; with 0 any free one."""
    processes: Count = 1
    """Number of processes behind the port. Each loads the world model or the policy, and takes its share of the
    visitors; the limits hold for all of them together."""
    token: str | None = None
    """Text that visitors have to send as `Authorization: Bearer TOKEN`. Without a token everybody is let in."""
    origins: tuple[str, ...] = ()
    """Web pages whose scripts may connect, such as https://example.org; by default none."""
    batch: Count = 8
    """Number of dreams that are computed together: 1, 2, 4, 8 or 16. It changes what a dream shows by rounding errors
    only, and each session can choose another one. Other visitors change nothing."""
    num_steps: Count = 2
    """Denoising steps per frame; each session can choose another number."""
    plans: bool = False
    """Answer with all actions that the policy plans, not only with the next one."""
    keys: tuple[str, ...] = ()
    """Names that the visitors of a policy use, each as THEIRS=OURS, such as
    observation/image=observation.images.top."""
    limits: Limits = field(default_factory=Limits)
    """How much visitors may use."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def serve(config: ServeConfig) -> None:
    """Serve until the process is interrupted.

    Raises:
        ValueError: An option does not fit; the message names it.
    """
    check_ranges(config)
    check(config)
    door = door_of(config)
    if config.processes > 1:
        server = Processes(functools.partial(serve_share, config), config.processes, door)
    else:
        host, door = open_host(config, one_thread_beside(config))
        server = Server(host, door)

    def started(url: str) -> None:
        what = f"the world model {config.world}" if config.policy is None else f"the policy {config.policy}"
        print(f"{what} is served at {url}", flush=True)
        if config.processes > 1:
            print(f"{config.processes} processes share the visitors", flush=True)
        if door.open_to_all:
            print("anybody who reaches this port can use it; --token asks for a token", flush=True)

    try:
        asyncio.run(_until_interrupted(server, started))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def serve_share(
    config: ServeConfig,
    rows: MutableSequence[int],
    visitors: MutableSequence[int],
    place: int,
    channel: socket.socket,
    tell: Connection,
) -> None:
    """Serve the connections that come through `channel`, as one of several processes."""
    end_with_parent()
    once = contextlib.nullcontext() if place == 0 else contextlib.redirect_stdout(io.StringIO())
    try:
        threads = max(1, one_thread_beside(config) // config.processes)
        with once:  # all processes would say which device they use
            host, door = open_host(config, threads, Tally(rows, place))
    except Exception as error:
        tell.send(error)
        return
    server = Server(host, door, Tally(visitors, place))
    with terminate_as_interrupt(), contextlib.suppress(asyncio.CancelledError, KeyboardInterrupt):
        asyncio.run(_until_interrupted(server, lambda url: tell.send(None), HandedOver(channel)))


def one_thread_beside(config: ServeConfig) -> int:
    """The number of threads that PyTorch has for dreams, while this one, which serves, has no helpers.

    Dreams are computed in a thread of their own. If this one had helpers, too, there would be more threads than cores,
    and OpenMP would let all of them sleep wherever they wait.
    """
    threads = torch.get_num_threads()
    if config.world is not None:
        torch.set_num_threads(1)
    return threads


async def _until_interrupted(
    server: Server | Processes, started: Callable[[str], None], listener: HandedOver | None = None
) -> None:
    """Serve; SIGTERM ends it like Ctrl-C, between two steps of the loop.

    Raised in the middle of a step, an interrupt could leave a connection half closed, and the server would wait for it
    for ever.
    """
    ours = threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGTERM))
    if ours and sys.platform != "win32":
        task = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await (server.run(started) if listener is None else server.run(started, listener))
    except OSError as error:
        where = f"--host {server.door.host} --port {server.door.port}"
        raise ValueError(f"{where}: cannot listen there: {error.strerror or error}") from error


def check(config: ServeConfig) -> None:
    """Raise a `ValueError` for options that contradict each other."""
    if config.processes > 1 and not hasattr(socket, "send_fds"):
        raise ValueError(f"--processes {config.processes}: {sys.platform} cannot share a port; use 1")
    if (config.world is None) == (config.policy is None):
        raise ValueError(f"give one of --world and --policy, got {config.world} and {config.policy}")
    if config.policy is not None and (config.judge is not None or config.data is not None):
        raise ValueError(f"--judge and --data go with --world, got them with --policy {config.policy}")
    if config.world is not None and (config.plans or config.keys):
        raise ValueError(f"--plans and --keys go with --policy, got them with --world {config.world}")


def door_of(config: ServeConfig) -> Door:
    """Where the server listens, and whom it lets in.

    Raises:
        ValueError: An option does not fit; the message names it.
    """
    limits = config.limits
    return Door(
        config.host, config.port, config.token, config.origins, limits.connections, 1 << 24, limits.idle_seconds
    )


def open_host(config: ServeConfig, threads: int | None = None, rows: Tally | None = None) -> tuple[Host, Door]:
    """Load what is served.

    Args:
        config: The settings.
        threads: Threads that compute dreams; by default as many as PyTorch has.
        rows: Counts the rows of dreams; by default there is no other process that serves.

    Raises:
        ValueError: An option does not fit; the message names it.
    """
    check(config)
    door = door_of(config)
    if config.policy is not None:
        return _policy_host(config), door
    served = _served_world(config, threads, rows)
    door = Door(**{**vars(door), "message_bytes": served.message_bytes})
    return WorldHost(served), door


def _served_world(config: ServeConfig, threads: int | None, rows: Tally | None) -> ServedWorld:
    device = command_device(config.device)
    world = WorldModel.load(config.world, device)
    starts = judge = None
    if config.data is not None:
        starts = Starts(open_episodes(config.data, tuple(world.size), world.views, config.reading))
    if config.judge is not None:
        judge = load_judge(config.judge, device, views=world.views, size=tuple(world.size))
    return ServedWorld(
        world,
        starts,
        judge,
        name=Path(str(config.world)).name,
        batch=config.batch,
        num_steps=config.num_steps,
        limits=config.limits,
        threads=threads,
        rows=rows,
    )


def _policy_host(config: ServeConfig) -> PolicyHost:
    keys = {}
    for pair in config.keys:
        theirs, equals, ours = pair.partition("=")
        if not theirs or not equals or not ours.startswith("observation."):
            raise ValueError(f"--keys {pair}: expected THEIRS=OURS, such as observation/image=observation.images.top")
        keys[theirs] = ours
    spec = config.policy
    policy = load_policy(spec, command_device(config.device))
    metadata = {"policy": Path(str(spec)).name, "fingerprint": policy_fingerprint(spec)}
    return PolicyHost(policy, metadata, plans=config.plans, keys=keys)
