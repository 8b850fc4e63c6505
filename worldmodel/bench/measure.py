"""How fast a world model is, and what share of the hardware's peak speed it reaches: `worldmodel bench`."""

import copy
import os
import platform
import resource
import statistics
import time
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from worldmodel.bench.page import write_page
from worldmodel.bench.recompute import recomputed_step
from worldmodel.bench.report import plot_bench, print_bench
from worldmodel.bench.roof import best_gemm, plainly, step_flops, synchronize
from worldmodel.bench.timing import WARM_UP, ClockName, TimedStream, interleave, long_run, percentile
from worldmodel.bench.training import training_speed
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.data.clip import Clip
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.ranges import Count, check_ranges
from worldmodel.files import write_json
from worldmodel.model.folder import check_file
from worldmodel.model.precision import command_device, compute_dtype
from worldmodel.processes import run_in_processes, wait_for_the_others
from worldmodel.training.log import CLOCKS
from worldmodel.world_model import WorldModel

PASSES = (0, 2)
"""Passes of self-forwarding with which training is timed."""


@dataclass(frozen=True)
class BenchConfig:
    """What to time and where to write it."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it runs: auto is CUDA if there is a GPU, else the CPU with one thread; you can also name a device."""
    batch: tuple[Count, ...] = (1, 8, 32)
    """Numbers of streams that run side by side."""
    num_steps: tuple[Count, ...] = (1, 2, 4)
    """Numbers of denoising steps per frame."""
    context: tuple[Count, ...] = (8, 32)
    """Numbers of real frames before the dream."""
    out: Path | None = None
    """JSON file for the report, with a page and a plot beside it; by default only a table is printed."""
    plot: Path | None = None
    """Picture file for the plot; by default a PNG file beside the report."""
    data: DataPath | None = None
    """Data set to measure training on; by default training is not measured."""
    rounds: Count = 5
    """How often each combination is measured; the combinations take turns."""
    frames: Count = 6
    """Number of frames per turn."""
    long: Count = 1000
    """Length of the stream whose cost per step is plotted."""
    workers: tuple[Count, ...] = (1, 2)
    """Numbers of processes that dream at the same time, to see how throughput grows; only on a CPU."""
    clock: ClockName = "wall"
    """Clock that counts the seconds: wall time, or the CPU time of the process, which other programs do not disturb."""
    overwrite: bool = False
    """Replace a report and a plot that exist already."""

    @property
    def picture(self) -> Path | None:
        """The file of the plot."""
        return self.plot or (self.out and self.out.with_suffix(".png"))

    @property
    def page(self) -> Path | None:
        """The page, beside the report."""
        return self.out and self.out.with_suffix(".html")


def bench(config: BenchConfig) -> dict[str, Any]:
    """Measure, print the report, and write the files that `config` names; returns the report.

    Raises:
        ValueError: If a number is below 1, the device is not there, or a file to write is.
    """
    check_ranges(config)
    _check(config)
    for file in (config.out, config.picture, config.page):
        check_file(file, overwrite=config.overwrite)
    torch.set_num_threads(1)
    world = WorldModel.load(config.world, command_device(config.device))
    clock = CLOCKS[config.clock]
    roof = best_gemm(world.device, compute_dtype(world.device), clock=clock)
    grid = measure_grid(world, config, roof)
    first = {"num_steps": config.num_steps[0], "context": config.context[0]}
    rows = [row for row in grid if first.items() <= row.items()]
    run = long_run(
        world,
        noise_clip(world, rows[0]["batch"], first["context"]),
        first["num_steps"],
        frames=config.long,
        clock=clock,
    )
    report = {
        "frames_per_second": {str(row["batch"]): row["frames_per_second"] for row in rows},
        "roof_share": {str(row["batch"]): row["roof_share"] for row in rows},
        "latency_ms": rows[0]["latency_ms"],
        "step_1000_over_step_20": run.late_over_early,
        "grid": grid,
        "roof": {"gemm_flops_per_second": roof, "dtype": str(compute_dtype(world.device))},
        "long": {"seconds": run.seconds, "state_growth_bytes": run.memory_growth},
        "recompute": []
        if not world.dit.separable or world.chunk > 1
        else [measure_recompute(world, config, length) for length in config.context],
        "processes": measure_processes(config) if world.device.type == "cpu" else None,
        "training": None if config.data is None else measure_training(world, config),
        "peak_memory_bytes": peak_memory(world.device),
        "metadata": describe(world, config),
    }
    console = Console()
    print_bench(report, console)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(config.out, report)
    if config.picture is not None:
        plot_bench(report, config.picture)
    if config.page is not None:
        write_page(report, config.picture, config.page)
    return report


def measure_grid(world: WorldModel, config: BenchConfig, roof: float) -> list[dict[str, Any]]:
    """One row for every batch, number of steps and context, measured in turns."""
    clock, cells = CLOCKS[config.clock], []
    for batch, num_steps, context in product(config.batch, config.num_steps, config.context):
        stream = TimedStream(world, noise_clip(world, batch, context), num_steps, clock)
        cells.append((batch, num_steps, context, stream))
    interleave([cell[-1] for cell in cells], rounds=config.rounds, frames=config.frames)
    rows = []
    for batch, num_steps, context, stream in cells:
        total = statistics.median(stream.timings.total)
        flops = step_flops(stream.stream, stream.actions, num_steps)
        milliseconds = [1000 * seconds for seconds in stream.timings.total]
        parts = {
            name: 1000 * statistics.median(getattr(stream.timings, name)) for name in ("model", "codec", "conversion")
        }
        rows.append(
            {
                "batch": batch,
                "num_steps": num_steps,
                "context": context,
                "frames_per_second": batch / total,
                "model_frames_per_second": 1000 * batch / parts["model"],
                "latency_ms": {"median": 1000 * total, "p99": percentile(milliseconds, 0.99), **parts},
                "flops_per_frame": flops / batch,
                "roof_share": flops / total / roof,
            }
        )
    return rows


def measure_recompute(world: WorldModel, config: BenchConfig, length: int) -> dict[str, Any]:
    """Seconds per frame with the cache and without it, in turns, at the first number of steps.

    `plain` streams with the modules themselves, without the fast engine. It is the fair comparison,
    because recomputing runs the modules, too.
    """
    clock, num_steps = CLOCKS[config.clock], config.num_steps[0]
    context = noise_clip(world, 1, length)
    actions = None if context.actions is None else context.actions[:, -1]
    seconds: dict[str, list[float]] = {"cached": [], "plain": [], "recomputed": []}
    ways = {
        "cached": lambda: streams["cached"].step(actions, num_steps=num_steps),
        "plain": lambda: streams["plain"].step(actions, num_steps=num_steps),
        "recomputed": lambda: recomputed_step(world, context, actions, num_steps=num_steps),
    }
    streams = {"cached": world.stream(context), "plain": plainly(world).stream(context)}
    begun = {name: stream.snapshot() for name, stream in streams.items()}
    for turn in range(WARM_UP + config.rounds):
        for name, way in ways.items():
            if name in streams:
                streams[name].restore(begun[name])
            synchronize(world.device)
            begin = clock()
            way()
            synchronize(world.device)
            if turn >= WARM_UP:
                seconds[name].append(clock() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "context": length,
        "num_steps": num_steps,
        "ms": {name: 1000 * value for name, value in medians.items()},
        "recomputed_over_cached": medians["recomputed"] / medians["cached"],
        "recomputed_over_plain": medians["recomputed"] / medians["plain"],
    }


def measure_processes(config: BenchConfig) -> list[dict[str, Any]]:
    """Frames per second of all processes together, for each number of them."""
    batch = config.batch[min(1, len(config.batch) - 1)]
    rows = []
    for workers in config.workers:
        arguments = (config.world, batch, config.num_steps[0], config.rounds * config.frames)
        rates = run_in_processes(stream_rate, [arguments] * workers)
        rows.append({"workers": workers, "batch": batch, "frames_per_second": sum(rates)})
    return rows


def stream_rate(folder: str | Path, batch: int, num_steps: int, frames: int) -> float:
    """Frames per second of wall time in this process, while the other processes run."""
    world = WorldModel.load(folder)
    stream = TimedStream(world, noise_clip(world, batch, 2), num_steps, time.perf_counter)
    stream.advance(2)
    wait_for_the_others()
    begin = time.perf_counter()
    stream.advance(frames)
    return batch * frames / (time.perf_counter() - begin)


def measure_training(world: WorldModel, config: BenchConfig) -> dict[str, Any]:
    """Training speed without self-forwarding, and with two passes of it."""
    recorded = open_episodes(config.data, world.size, world.views, config.reading)
    source = EpisodeCache(recorded, cache_gb=config.reading.cache_gb)
    settings = {"steps": config.rounds, "clock": CLOCKS[config.clock]}
    speeds = [training_speed(copy.deepcopy(world), source, passes=passes, **settings) for passes in PASSES]
    return {"passes": {str(passes): asdict(speed) for passes, speed in zip(PASSES, speeds, strict=True)}}


def noise_clip(world: WorldModel, batch: int, frames: int) -> Clip:
    """Random pictures with actions and states at the centre of their range."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, frames, len(world.views), *world.size, 3)
    width, told = world.config.conditioner.told_dim, world.conditioner
    actions = torch.zeros(batch, frames - 1, width) if width else None
    states = told.state_center.cpu().expand(batch, frames, -1).clone() if world.state_dim else None
    pictures = torch.randint(96, 160, shape, dtype=torch.uint8, generator=generator)
    return Clip(frames=pictures, actions=actions, states=states).to(world.device)


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: on the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe(world: WorldModel, config: BenchConfig) -> dict[str, Any]:
    """Facts about the world model and the machine of a measurement."""
    cpu = platform.processor() or platform.machine()
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else cpu
    return {
        "world": str(config.world),
        "device": str(world.device),
        "machine": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": config.clock,
        "views": len(world.views),
        "size": list(world.size),
        "weights": sum(parameter.numel() for parameter in world.dit.parameters()),
        "load_average": os.getloadavg()[0],
    }


def _check(config: BenchConfig) -> None:
    for name in ("batch", "num_steps", "context", "workers"):
        if not getattr(config, name):
            raise ValueError(f"--{name.replace('_', '-')} names no number")
