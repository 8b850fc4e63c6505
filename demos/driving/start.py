"""Where a dream begins: recorded frames, or a fresh episode of an embedded environment."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.data.source import TableSource
from worldmodel.dreams.context import CONTEXT_FRAMES
from worldmodel.envs import is_embedded, make_env
from worldmodel.fidelity.windows import holding_actions
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Start:
    """The frames that a dream begins from.

    Attributes:
        context: Real frames with the actions between them, with a batch axis of one.
        environment: Embedded environment that they come from; empty when there is none.
        seed: Reset seed with which that environment begins at the first context frame.
    """

    context: Clip
    environment: str = ""
    seed: int | None = None

    @property
    def has_simulator(self) -> bool:
        """Whether the simulator can run beside the dream."""
        return bool(self.environment) and self.seed is not None

    @property
    def frames(self) -> UInt8[Tensor, "v H W 3"]:
        """The last context frame."""
        return self.context.frames[0, -1]


def start_from_data(source: TableSource, world: WorldModel, *, episode: int, start: int = 0) -> Start:
    """Eight recorded frames from `start` on, fewer where the episode ends.

    The simulator is known when the data was recorded from an embedded environment whose cameras
    have the size of the frames, without a shift, and `start` is 0.

    Raises:
        ValueError: The episode ends at or before `start`.
    """
    length = source.lengths[episode]
    if start >= length:
        raise ValueError(f"{source.name}: episode {episode} has {length} frames, none at start {start}")
    stop = min(start + (CONTEXT_FRAMES - 1) * world.stride + 1, length)
    clip = source.read(episode, start, stop, world.stride).map(lambda tensor: tensor[None])
    height, width = world.size
    same = is_embedded(source.robot_type) and height == width and not source.shift
    if start or not same or clip.actions is None:
        return Start(clip)
    return Start(clip, source.robot_type, source.reset_seed(episode))


def start_from_environment(name: str, world: WorldModel, *, seed: int) -> Start:
    """A fresh episode of an embedded environment, standing still for eight frames.

    Raises:
        ValueError: The environment lacks a camera that the world model was trained on, or the
            world model's frames are not square.
    """
    height, width = world.size
    if height != width:
        raise ValueError(f"{name} has square frames, the world model {height} x {width}")
    environment = make_env(name, size=height)
    observation, _ = environment.reset(seed=seed)
    observations, actions = [observation], []
    for _ in range((CONTEXT_FRAMES - 1) * world.stride):
        state = torch.as_tensor(observation["observation.state"])[None]
        hold = torch.zeros(1, 1, world.action_dim)
        hold = holding_actions(hold, state, relative_to=world.relative_to, stride=1)[0, 0]
        observation = environment.step(hold.numpy())[0]
        observations.append(observation)
        actions.append(hold)
    environment.close()
    observations = observations[:: world.stride]
    pictures = [camera_frames(name, seen, world.views) for seen in observations]
    states = [torch.as_tensor(seen["observation.state"]) for seen in observations]
    clip = Clip(
        frames=torch.stack(pictures)[None],
        actions=rearrange(torch.stack(actions), "(t k) a -> 1 t (k a)", k=world.stride),
        states=torch.stack(states)[None] if world.state_dim else None,
    )
    return Start(clip, name, seed)


def camera_frames(name: str, observation: Mapping[str, np.ndarray], views: Sequence[str]) -> UInt8[Tensor, "v H W 3"]:
    """What the cameras of an environment show.

    Raises:
        ValueError: The environment `name` lacks one of them.
    """
    keys = [f"observation.images.{view}" for view in views]
    if missing := [key for key in keys if key not in observation]:
        raise ValueError(f"{name}: no {missing} among the observations {sorted(observation)}")
    return torch.stack([torch.as_tensor(observation[key]) for key in keys])


def action_names(world: WorldModel, data: Path | None, environment: str) -> tuple[str, ...]:
    """What the action dims are called: by a LeRobot data set, the environment, or their numbers."""
    numbers = tuple(f"dim {dim + 1}" for dim in range(world.action_dim))
    info = None if data is None else data / "meta" / "info.json"
    if info is not None and info.is_file():
        names = json.loads(info.read_text())["features"]["action"].get("names")
        if isinstance(names, dict):  # as older LeRobot data has it: {"motors": [...]}
            names = next(iter(names.values()), None)
    elif is_embedded(environment):
        names = make_env(environment).action_names
    else:
        names = None
    fits = isinstance(names, list | tuple) and len(names) == world.action_dim
    return tuple(map(str, names)) if fits else numbers
