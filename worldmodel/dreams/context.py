"""The context of a dream, and a check that data and world model fit."""

from typing import Protocol, runtime_checkable

from worldmodel.data.clip import Clip, EpisodeSource

CONTEXT_FRAMES = 8
"""Recorded frames that a world model reads before it dreams."""


def context_of(clip: Clip) -> Clip:
    """The first 8 frames of `clip` with the actions between them."""
    return clip.head(CONTEXT_FRAMES)


@runtime_checkable
class Reader(Protocol):
    """What reads recordings: a world model, ours or another one.

    Attributes:
        views: Names of the cameras, in order.
        size: Height and width of its frames.
        action_dim: Width of one action of the data; 0 for none.
        state_dim: Width of the robot's state; 0 for none.
    """

    views: tuple[str, ...]
    size: tuple[int, int]
    action_dim: int
    state_dim: int


def check_views(world: Reader, source: EpisodeSource) -> None:
    """Raise a `ValueError` with both values when the data does not fit the world model.

    A world model without actions or states can read data that has some; they are not used.
    """
    pairs = {
        "views": (tuple(source.views), tuple(world.views)),
        "size": (tuple(source.size), tuple(world.size)),
        "state_dim": (source.state_dim if world.state_dim else 0, world.state_dim),
        "action_dim": (source.action_dim if world.action_dim else 0, world.action_dim),
    }
    for name, (data, model) in pairs.items():
        if data != model:
            raise ValueError(f"{source.name}: {name} is {data}, the world model has {model}")
