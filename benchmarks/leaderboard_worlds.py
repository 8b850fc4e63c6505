"""The worlds of the leaderboard: what is named on the command line, and two controls."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.data import Clip
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.dreams.world import World
from worldmodel.fidelity.windows import holding_actions
from worldmodel.resolve import is_spec, made, resolve
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel

COPY, HOLD = "copy-last", "hold"
"""Prefixes of the controls: `copy-last:FOLDER` and `hold:FOLDER`."""


class Entrant(World, Protocol):
    """What the leaderboard needs of a world: anybody's class that has these attributes and streams.

    Attributes:
        size: Height and width of its frames.
        fps: Frames per second of the data, before striding.
        action_dim: Width of one action of the data.
        state_dim: Width of the robot's state, which its observations have, too, because policies read it.
    """

    size: tuple[int, int]
    fps: float
    action_dim: int
    state_dim: int


class HoldingStream:
    """A stream that is never told what the robot does: every action asks it to stay where it is."""

    def __init__(self, stream: Any, world: WorldModel):
        self.stream, self.world = stream, world

    @property
    def observation(self) -> Observation:
        """What the cameras show."""
        return self.stream.observation

    def step(self, actions: Float[Tensor, "b a"], *, num_steps: int) -> Observation:
        """Ask the robot to stay."""
        relative = {"relative_to": self.world.relative_to, "stride": self.world.stride}
        hold = holding_actions(actions[:, None].cpu(), _cpu(self.observation.states), **relative)
        return self.stream.step(hold[:, 0], num_steps=num_steps)

    def reset(self, streams: Sequence[int], context: Clip, *, seeds: Sequence[int]) -> None:
        """Begin the given streams anew."""
        self.stream.reset(streams, context, seeds=seeds)


class HoldingWorld:
    """A world model without its actions: the control for what can be dreamed without knowing them."""

    def __init__(self, world: WorldModel):
        self.world = world
        self.views, self.size, self.fps, self.stride = world.views, world.size, world.fps, world.stride
        self.action_dim, self.state_dim, self.train_data = world.action_dim, world.state_dim, world.train_data

    def stream(self, context: Clip, *, seeds: Sequence[int]) -> HoldingStream:
        """Begin one stream per clip."""
        return HoldingStream(self.world.stream(context, seeds=seeds), self.world)


def _cpu(states: Tensor | None) -> Tensor | None:
    return None if states is None else states.cpu()


def load_entrant(spec: str, device: torch.device) -> Entrant:
    """The world that a command line names.

    Args:
        spec: A folder or `hf://USER/NAME@REV` of a world model; `copy-last:` or `hold:` before one for a control; or
            `module:name` of something that makes a world of yours when it is called without arguments.
        device: Where world models run; a world of yours decides by itself.

    Raises:
        ValueError: There is no such world, or it lacks something.
    """
    kind, _, folder = spec.partition(":")
    if kind == COPY:
        return CopyLastWorld.load(folder, device)
    if kind == HOLD:
        return HoldingWorld(WorldModel.load(folder, device))
    if is_spec(spec) and not Path(spec).exists():
        return checked(made(resolve(spec, "world"), spec, "world"), spec)
    return WorldModel.load(spec, device)


def checked(world: Any, spec: str) -> Entrant:
    """The world, if it has all that is needed.

    Raises:
        ValueError: It lacks an attribute.
    """
    needed = ("views", "size", "fps", "stride", "action_dim", "state_dim", "stream")
    missing = [name for name in needed if not hasattr(world, name)]
    if missing:
        raise ValueError(f"world {spec}: it has no {', no '.join(missing)}; a world has {', '.join(needed)}")
    return world


def context_for(world: Entrant, clip: Clip) -> Clip:
    """The clip without the actions or states that a world does not use."""
    return replace(
        clip, actions=clip.actions if world.action_dim else None, states=clip.states if world.state_dim else None
    )
