"""Timing of streams. Measurements to compare are interleaved, because other programs disturb the timing."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from worldmodel.bench.roof import synchronize
from worldmodel.data.clip import Clip
from worldmodel.world_model import WorldModel

WARM_UP = 4  # frames; on a GPU the step of a stream is recorded within them
ClockName = Literal["wall", "cpu"]
Clock = Callable[[], float]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


@dataclass
class Timings:
    """Seconds of every step of one `TimedStream`.

    Attributes:
        total: From the raw action to NumPy pictures.
        codec: The part of it from latents to pictures.
        conversion: The part of it that moves pictures to the CPU and to NumPy.
    """

    total: list[float] = field(default_factory=list)
    codec: list[float] = field(default_factory=list)
    conversion: list[float] = field(default_factory=list)

    @property
    def model(self) -> list[float]:
        """The remaining time: that of the model alone."""
        parts = zip(self.total, self.codec, self.conversion, strict=True)
        return [total - codec - conversion for total, codec, conversion in parts]


class TimedStream:
    """`batch` dreams side by side with everything that is needed to continue them.

    Args:
        world: The world model.
        context: One clip of real frames for each stream.
        num_steps: Denoising steps per frame.
        clock: Returns the seconds.
    """

    def __init__(self, world: WorldModel, context: Clip, num_steps: int, clock: Clock):
        self.world, self.num_steps, self.clock = world, num_steps, clock
        self.actions = None if context.actions is None else context.actions[:, -1]
        self.stream = world.stream(context)
        self.timings = Timings()

    def advance(self, count: int = 1) -> None:
        """Dream `count` frames and time each."""
        world, clock, device = self.world, self.clock, self.world.device
        for _ in range(count):
            begin = clock()
            observation = self.stream.step(self.actions, num_steps=self.num_steps)
            synchronize(device)
            stepped = clock()
            observation.frames.cpu().numpy()
            converted = clock()
            with torch.no_grad():
                world.codec.decode(self.stream.latent)
            synchronize(device)
            decoded = clock()
            self.timings.total.append(converted - begin)
            self.timings.conversion.append(converted - stepped)
            self.timings.codec.append(decoded - converted)


def interleave(streams: Sequence[TimedStream], *, rounds: int, frames: int) -> None:
    """Advance all streams in turns, `frames` at a time, after a few untimed frames each."""
    for stream in streams:
        stream.advance(WARM_UP)
        stream.timings = Timings()
    for _ in range(rounds):
        for stream in streams:
            stream.advance(frames)


@dataclass(frozen=True)
class LongRun:
    """Seconds of each frame of one long stream, and how its end compares with its beginning.

    Attributes:
        seconds: Of frame 1, 2, ... of the stream.
        late_over_early: Median cost at the end over that at step 20, both measured in turns.
        memory_growth: Bytes by which the state grew between step 20 and the end.
    """

    seconds: list[float]
    late_over_early: float
    memory_growth: int


def long_run(
    world: WorldModel, context: Clip, num_steps: int, *, frames: int, clock: Clock, pairs: int = 40
) -> LongRun:
    """Dream `frames` frames in a row; at the end step 20 is repeated in turns with the last steps."""
    early_at = min(20, frames)
    stream = TimedStream(world, context, num_steps, clock)
    stream.advance(early_at)
    kept, size = stream.stream.snapshot(), stream.stream.num_bytes
    stream.advance(max(frames - early_at - pairs, 0))
    early = TimedStream(world, context, num_steps, clock)
    early.advance(WARM_UP)
    early.timings, late = Timings(), []
    for _ in range(pairs):
        early.stream.restore(kept)
        early.advance()
        stream.advance()
        late.append(stream.timings.total[-1])
    ratio = statistics.median(late) / statistics.median(early.timings.total)
    return LongRun(stream.timings.total[:frames], ratio, stream.stream.num_bytes - size)
