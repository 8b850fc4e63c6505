"""Many visitors who each make a step now and then, for a long time: `python benchmarks/serve.py load`.

Every visitor has a connection and a session of one dream, and makes a step every `--interval` seconds; the first steps
are spread over one interval. All leave when the time is over, also if the server is too slow for all of their steps.
From a fifth of the time on until the visitors leave, memory is compared with what it was then. The resident memory is
that of all processes of the server together, as Linux counts it; what they share counts several times. The CPU time of
a step, of the server and of the visitors, says how many steps a second the cores could do if nothing else ran on them.

A server that is too slow should stay fair: no errors, and the same number of steps for each visitor. The fewest and the
most steps of a visitor are in the table.
"""

import asyncio
import os
import time
from dataclasses import dataclass, field

import numpy as np
import psutil
from serve import Served, server
from websockets.asyncio.client import connect

from worldmodel.model.card import table
from worldmodel.wire.messages import pack, unpack

WARM = 0.2
"""Share of the time after which memory should stay as it is."""
LOOKS = 5.0
"""Seconds between two looks at the memory."""
HEADS = (
    "visitors, processes, batch, minutes",
    "steps made",
    "of a visitor",
    "errors",
    "late steps",
    "a step, ms: median, 99th percentile",
    "CPU time of a step, ms: server + visitors",
    "steps/s that the cores allow",
    "memory, MB, and its change",
)


@dataclass(frozen=True)
class Load(Served):
    """Errors, waiting times and memory while many visitors make a step now and then."""

    sessions: int = 200
    """Visitors, each with a connection and a session of one dream."""
    minutes: float = 10.0
    """How long they stay."""
    interval: float = 2.0
    """Seconds between two steps of a visitor."""
    processes: int = 2
    """Processes of the server."""
    batch: int = 1
    """Rows that are computed together. With 1, steps are answered soonest while the cores have time left. Visitors who
    wait for a busy server share a pass, so that a larger batch makes more steps."""
    num_steps: int = 1
    """Denoising steps per frame."""


@dataclass
class Seen:
    """What the visitors saw.

    Attributes:
        seconds: How long each step took.
        late: Steps that began after the time at which the next one was due.
        errors: What went wrong.
        memory: Seconds since the beginning and the memory then, in MB.
        steps: The number of steps of each visitor.
        cpu: CPU time between the first step and the last, in seconds: of the server, and of the visitors.
    """

    seconds: list[float] = field(default_factory=list)
    steps: dict[int, int] = field(default_factory=dict)
    cpu: tuple[float, float] = (0.0, 0.0)
    late: int = 0
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


async def visitor(config: Load, url: str, index: int, seen: Seen, start: asyncio.Event, entered: list[int]) -> None:
    """One visitor, who stays to the end unless something goes wrong."""
    rng = np.random.default_rng(index)
    try:
        async with connect(url, compression=None, max_size=None, open_timeout=120, ping_timeout=120) as socket:
            about = unpack(await socket.recv())
            fields = {"starts": [index % about["starts"]], "batch": config.batch, "num_steps": config.num_steps}
            session = (await ask(socket, "create", **fields))["session"]
            entered.append(index)
            await start.wait()
            began = time.monotonic() + config.interval * rng.random()
            for number in range(round(60 * config.minutes / config.interval)):
                due = began + number * config.interval
                seen.late += time.monotonic() > due + config.interval
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                asked = time.monotonic()
                if asked > began + 60 * config.minutes:  # the server is too slow for so many
                    return
                action = rng.uniform(about["action_low"], about["action_high"])[None]
                await ask(socket, "step", session=session, action=action)
                seen.seconds.append(time.monotonic() - asked)
                seen.steps[index] = seen.steps.get(index, 0) + 1
    except Exception as error:
        seen.errors.append(f"visitor {index}: {type(error).__name__}: {error}")
        entered.append(index)


async def ask(socket, kind: str, **fields: object) -> dict:
    """The reply to a message.

    Raises:
        ValueError: It is an error.
    """
    await socket.send(pack({"type": kind, **fields}))
    reply = unpack(await socket.recv())
    if reply["type"] == "error":
        raise ValueError(reply["error"])
    return reply


def resident_mb(process: int) -> float:
    """Resident memory of a process and of those that it started, in MB."""
    parent = psutil.Process(process)
    return sum(each.memory_info().rss for each in [parent, *parent.children(recursive=True)]) / 2**20


def cpu_seconds(process: int) -> tuple[float, float]:
    """CPU time of a process and of those that it started, and of this one."""
    parent = psutil.Process(process)
    server = sum(sum(each.cpu_times()[:2]) for each in [parent, *parent.children(recursive=True)])
    return server, time.process_time()


async def visit(config: Load, url: str, process: int) -> Seen:
    """Let all visitors in, and watch the memory until they have left."""
    seen, start, entered = Seen(), asyncio.Event(), []
    visitors = [
        asyncio.create_task(visitor(config, url, index, seen, start, entered)) for index in range(config.sessions)
    ]
    while len(entered) < config.sessions:
        await asyncio.sleep(0.1)
    before = cpu_seconds(process)
    start.set()
    began = time.monotonic()
    while not all(each.done() for each in visitors):
        await asyncio.wait(visitors, timeout=LOOKS)
        seen.memory.append((time.monotonic() - began, resident_mb(process)))
        if len(seen.memory) % 12 == 0:
            gone, memory = seen.memory[-1]
            print(f"{gone:.0f} s: {len(seen.seconds)} steps, {len(seen.errors)} errors, {memory:.0f} MB", flush=True)
    server, visitors = (now - then for now, then in zip(cpu_seconds(process), before, strict=True))
    seen.cpu = server, visitors
    return seen


def load(config: Load) -> dict:
    """Measure; prints and returns the figures, and fails if a visitor met an error."""
    most = ["--limits.connections", str(config.sessions + 1), "--limits.rows", str(config.sessions * config.batch)]
    with server(config, "--processes", str(config.processes), *most) as (url, process):
        seen = asyncio.run(visit(config, url, process))
    figures = figures_of(config, seen)
    print(table(HEADS, [row_of(config, figures)]))
    if seen.errors:
        raise SystemExit("\n".join(seen.errors[:5]))
    return figures


def figures_of(config: Load, seen: Seen) -> dict:
    """What the visitors saw, in numbers."""
    over = 60 * config.minutes  # those who then leave give memory back
    warm = [memory for gone, memory in seen.memory if WARM * over <= gone <= over]
    p50, p99 = np.percentile(seen.seconds, [50, 99]) * 1000
    each = [seen.steps.get(index, 0) for index in range(config.sessions)]
    server, visitors = (1000 * spent / len(seen.seconds) for spent in seen.cpu)
    return {
        "steps": len(seen.seconds),
        "wanted": config.sessions * round(60 * config.minutes / config.interval),
        "errors": seen.errors,
        "late": seen.late,
        "steps_of_a_visitor": [min(each), max(each)],
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_ms": [server, visitors],
        "cores_allow": 1000 * len(os.sched_getaffinity(0)) / (server + visitors),
        "memory_mb": [warm[0], min(warm), max(warm)],
        "memory_change": max(abs(each / warm[0] - 1) for each in warm),
    }


def row_of(config: Load, figures: dict) -> list[str]:
    """The row of the table."""
    fewest, most = figures["steps_of_a_visitor"]
    server, visitors = figures["cpu_ms"]
    return [
        f"{config.sessions}, {config.processes}, {config.batch}, {config.minutes:g}",
        f"{figures['steps']} of {figures['wanted']}",
        f"{fewest} to {most}",
        f"{len(figures['errors'])}",
        f"{figures['late']}",
        f"{figures['p50_ms']:.0f}, {figures['p99_ms']:.0f}",
        f"{server:.1f} + {visitors:.1f}",
        f"{figures['cores_allow']:.0f}",
        f"{figures['memory_mb'][0]:.0f}, at most {figures['memory_change']:.1%}",
    ]
