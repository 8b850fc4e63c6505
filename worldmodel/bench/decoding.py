"""How fast pictures are decoded, and whether a training step waits for them."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from math import prod

from rich.table import Table

from worldmodel.bench.timing import Clock
from worldmodel.bench.training import training_speed
from worldmodel.data.cache import piece_frames
from worldmodel.data.clip import EpisodeSource
from worldmodel.data.sample import sample_clips
from worldmodel.world_model import WorldModel

STEPS = 3  # timed training steps


@dataclass(frozen=True)
class DecodingSpeed:
    """How fast some threads decode together; a frame has the pictures of all cameras.

    Attributes:
        workers: Number of threads.
        frames_per_second: Of whole episodes, read from front to back, as the cache of decoded frames is made.
        episodes_per_second: Of the same, for episodes of the mean length.
        clip_frames_per_second: Of random clips, as training reads frames that no cache holds.
    """

    workers: int
    frames_per_second: float
    episodes_per_second: float
    clip_frames_per_second: float


@dataclass(frozen=True)
class StepNeed:
    """What a training step takes.

    Attributes:
        name: Of the world model, for people.
        device: Where it ran.
        frames: Number of frames that a step reads.
        seconds: Of one step, without reading.
    """

    name: str
    device: str
    frames: int
    seconds: float

    @property
    def frames_per_second(self) -> float:
        """Frames that must be read in a second so that no step waits."""
        return self.frames / self.seconds


def decoding_speed(
    source: EpisodeSource,
    *,
    workers: int,
    seconds: float,
    frames: int,
    stride: int = 1,
    clock: Clock = time.perf_counter,
) -> DecodingSpeed:
    """Decode with `workers` threads, `seconds` for whole episodes and as long for random clips of `frames` frames.

    Files behind a URL are fetched on the way, so a first measurement of them is one of the network. `clock` returns the
    seconds that count for the thread that calls it.
    """
    piece, episodes = piece_frames(source), count()
    span = min(frames, (max(source.lengths) - 1) // stride + 1)

    def episode() -> int:
        number = next(episodes) % len(source)
        length = source.lengths[number]
        for start in range(0, length, piece):
            source.read(number, start, min(start + piece, length))
        return length

    def clip() -> int:
        number = next(episodes)
        sample_clips(
            source, batch=1, length=span, stride=stride, seed=0, index=number, episodes=range(len(source)), gap=1
        )
        return span

    whole, clips = (_rate(read, workers, seconds, clock) for read in (episode, clip))
    mean = sum(source.lengths) / len(source)
    return DecodingSpeed(workers, whole, whole / mean, clips)


def _rate(read: Callable[[], int], workers: int, seconds: float, clock: Clock) -> float:
    """Frames per second of all workers together, after one reading each, which opens files; the last one counts."""

    def work() -> tuple[int, float]:
        read()
        begin, done = clock(), read()
        while clock() - begin < seconds:
            done += read()
        return done, clock() - begin

    with ThreadPoolExecutor(workers) as pool:
        results = [future.result() for future in [pool.submit(work) for _ in range(workers)]]
    return sum(done / spent for done, spent in results)


def step_need(
    world: WorldModel, source: EpisodeSource, *, name: str, batch: int, frames: int, clock: Clock = time.perf_counter
) -> StepNeed:
    """Time training steps of `world` with `batch` clips of `frames` frames, without the time of reading."""
    frames = min(frames, (max(source.lengths) - 1) // world.stride + 1)
    speed = training_speed(world, source, steps=STEPS, clock=clock, batch=batch, frames=frames)
    step = batch * (frames - 1) / speed.frames_per_second
    return StepNeed(name, str(world.device), batch * frames, step * (1 - speed.data_wait))


def speed_table(speeds: Sequence[DecodingSpeed]) -> Table:
    """One row for each number of workers."""
    table = Table("workers", "whole episodes, frames/s", "episodes/s", "random clips, frames/s", title="decoding")
    for speed in speeds:
        rates = (speed.frames_per_second, speed.episodes_per_second, speed.clip_frames_per_second)
        table.add_row(str(speed.workers), *map(number, rates))
    return table


def in_words(
    need: StepNeed, speeds: Sequence[DecodingSpeed], *, frames: int, views: int, size: tuple[int, int]
) -> list[str]:
    """What a step needs, which waits for which, and what the cache of decoded frames costs.

    Args:
        need: Of a training step.
        speeds: For each number of workers.
        frames: Number of frames of the data set.
        views: Number of cameras.
        size: `(H, W)` of a picture as trained on.
    """
    wanted, pixels = need.frames_per_second, views * prod(size) * 3
    lines = [
        f"a training step of {need.name} on {need.device} takes {need.seconds:.3g} s for {need.frames} frames: "
        f"it needs {number(wanted)} frames/s"
    ]
    enough = next((speed for speed in speeds if speed.clip_frames_per_second >= wanted), None)
    if enough is not None:
        times = enough.clip_frames_per_second / wanted
        lines.append(
            f"decoding waits for training: {threads(enough.workers)} can decode {number(times)} times as many frames "
            "as training needs, even without the cache of decoded frames"
        )
    else:
        best = max(speeds, key=lambda speed: speed.clip_frames_per_second)
        share = 1 - best.clip_frames_per_second / wanted
        lines.append(
            f"training waits for decoding where the cache does not hold the frames: {threads(best.workers)} can decode "
            f"{number(best.clip_frames_per_second)} frames/s of random clips, so {share:.0%} of the time is waiting"
        )
    best = max(speeds, key=lambda speed: speed.frames_per_second)
    seconds = frames / best.frames_per_second
    lines.append(
        f"the cache decodes all frames once: {number(seconds)} s with {threads(best.workers)}, "
        f"{number(frames * pixels / 1e9)} GB on the disk"
    )
    return lines


def number(value: float) -> str:
    """Three digits, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def threads(workers: int) -> str:
    """`1 thread`, `2 threads`."""
    return f"{workers} thread{'s' if workers > 1 else ''}"
