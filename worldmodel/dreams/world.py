"""What dreams need of a world model (a simulator can have it, too), and contexts of two lengths."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from einops import repeat
from jaxtyping import Float
from torch import Tensor

from worldmodel.data import Clip, stack_clips
from worldmodel.streaming.state import Observation


@runtime_checkable
class RunningStream(Protocol):
    """The part of `worldmodel.streaming.stream.Stream` that dreams use."""

    observation: Observation

    def step(self, actions: Float[Tensor, "b a"], *, num_steps: int) -> Observation:
        """Apply one raw action per stream."""
        ...

    def reset(self, streams: Sequence[int], context: Clip, *, seeds: Sequence[int]) -> None:
        """Begin the given streams anew."""
        ...


@runtime_checkable
class World(Protocol):
    """The part of a world model that dreams use.

    Attributes:
        views: Names of the cameras.
        stride: Actions of the data per frame; `RunningStream.step` takes them side by side.
    """

    views: Sequence[str]
    stride: int

    def stream(self, context: Clip, *, seeds: Sequence[int]) -> RunningStream:
        """Begin one stream per clip."""
        ...


def held(actions: Float[Tensor, "b a"], stride: int) -> Float[Tensor, "b chunk"]:
    """One action per stream, held for the `stride` actions of a frame."""
    return repeat(actions, "b a -> b (k a)", k=stride)


def begin(world: World, clips: Sequence[Clip], seeds: Sequence[int]) -> RunningStream:
    """Start a stream per clip; clips may have one frame, and all longer ones have the same length."""
    stream = world.stream(stack_clips([final_frame(clip) for clip in clips]), seeds=list(seeds))
    long = [i for i, clip in enumerate(clips) if len(clip.frames) > 1]
    if long:
        stream.reset(long, stack_clips([clips[i] for i in long]), seeds=[seeds[i] for i in long])
    return stream


def final_frame(clip: Clip) -> Clip:
    """The last frame alone."""
    return Clip(
        frames=clip.frames[-1:],
        states=None if clip.states is None else clip.states[-1:],
        view_mask=clip.view_mask,
        pixel_mask=clip.pixel_mask,
        task=clip.task,
    )
