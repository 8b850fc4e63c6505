"""What others need of a world model, so that a simulator may stand in for it; streams from clips of two lengths."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from worldmodel.data import Clip, stack_clips
from worldmodel.streaming.state import Observation


@runtime_checkable
class World(Protocol):
    """What imagination needs of a world model; a simulator may stand in for it."""

    views: Sequence[str]

    def start(self, context: Clip, *, seed: int | Sequence[int]) -> object:
        """Begin one stream per clip."""
        ...

    def step(self, state: object, actions: Float[Tensor, "b a"], *, num_steps: int) -> tuple[Observation, object]:
        """Apply one raw action per stream."""
        ...


def begin(world: World, clips: Sequence[Clip], seeds: Sequence[int]) -> object:
    """Start a stream per clip; they are of one frame, or all longer ones of the same length."""
    state = world.start(stack_clips([final_frame(clip) for clip in clips]), seed=list(seeds))
    long = [i for i, clip in enumerate(clips) if len(clip.frames) > 1]
    if long:
        fresh = world.start(stack_clips([clips[i] for i in long]), seed=[seeds[i] for i in long])
        state.put(long, fresh)
    return state


def final_frame(clip: Clip) -> Clip:
    """The last frame alone."""
    return Clip(
        frames=clip.frames[-1:],
        states=None if clip.states is None else clip.states[-1:],
        view_mask=clip.view_mask,
        pixel_mask=clip.pixel_mask,
    )
