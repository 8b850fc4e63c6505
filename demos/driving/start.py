"""Where a dream begins: recorded frames, or a fresh episode of an environment."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.data.options import DataPath
from worldmodel.data.source import TableSource
from worldmodel.dreams.context import CONTEXT_FRAMES
from worldmodel.envs import has_simulator, make_simulator
from worldmodel.envs.protocol import IMAGES, STATE, begin, describe
from worldmodel.fidelity.windows import holding_actions
from worldmodel.files import shipped
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Start:
    """The frames that a dream begins from.

    Attributes:
        context: Real frames with the actions between them, with a batch axis of one.
        environment: Environment that they come from; empty if it cannot be made here.
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


def start_from_data(source: EpisodeSource, world: WorldModel, *, episode: int, start: int = 0) -> Start:
    """Eight recorded frames from `start` on, fewer where the episode ends.

    The simulator is known when the data is one data set that was recorded, without a shift, from an environment that
    can be made here and whose pictures have the size of the frames, and `start` is 0.

    Raises:
        ValueError: The episode ends at or before `start`.
    """
    length = source.lengths[episode]
    if start >= length:
        raise ValueError(f"{source.name}: episode {episode} has {length} frames, none at start {start}")
    stop = min(start + (CONTEXT_FRAMES - 1) * world.stride + 1, length)
    clip = source.read(episode, start, stop, world.stride).map(lambda tensor: tensor[None])
    same = (
        isinstance(source, TableSource)
        and not source.shift
        and has_simulator(source.robot_type)
        and shows(source.robot_type, tuple(world.size))
    )
    if start or not same or clip.actions is None:
        return Start(clip)
    return Start(clip, source.robot_type, source.reset_seed(episode))


def start_from_environment(name: str, world: WorldModel, *, seed: int) -> Start:
    """A fresh episode of an environment, standing still for eight frames.

    Raises:
        ValueError: The environment lacks a camera that the world model was trained on, its pictures
            have another size, or it ends while it stands still.
    """
    environment = make_simulator(name, size=world.size[0])
    goes_on = describe(environment).stops_on_success is not None
    observations, actions = [begin(environment, seed, name)], []
    for number in range((CONTEXT_FRAMES - 1) * world.stride):
        hold = torch.zeros(1, 1, world.action_dim)
        state = torch.as_tensor(observations[-1][STATE])[None] if world.state_dim else None
        hold = holding_actions(hold, state, relative_to=world.relative_to, stride=1)[0, 0]
        observation, _, terminated, truncated, _ = environment.step(hold.numpy())
        if (terminated or truncated) and not goes_on:
            raise ValueError(f"{name}: with the reset seed {seed} it ends after {number + 1} steps of standing still")
        observations.append({key: value.copy() for key, value in observation.items()})
        actions.append(hold)
    task = describe(environment).task  # an environment of several tasks draws one in reset
    environment.close()
    observations = observations[:: world.stride]
    pictures = [camera_frames(name, seen, world) for seen in observations]
    states = [torch.as_tensor(seen[STATE]) for seen in observations] if world.state_dim else []
    clip = Clip(
        frames=torch.stack(pictures)[None],
        actions=rearrange(torch.stack(actions), "(t k) a -> 1 t (k a)", k=world.stride),
        states=torch.stack(states)[None] if world.state_dim else None,
        task=task,
    )
    return Start(clip, name, seed)


@functools.cache
def shows(name: str, size: tuple[int, int]) -> bool:
    """Whether the pictures of an environment have a size, or can be made in it."""
    environment = make_simulator(name, size=size[0])
    views = describe(environment).views
    environment.close()
    return set(views.values()) == {size}


def camera_frames(name: str, observation: Mapping[str, np.ndarray], world: WorldModel) -> UInt8[Tensor, "v H W 3"]:
    """What an environment shows to the cameras of a world model.

    Raises:
        ValueError: The environment `name` lacks one of them, or its pictures have another size.
    """
    keys = [IMAGES + view for view in world.views]
    if missing := [key for key in keys if key not in observation]:
        raise ValueError(f"{name}: no {missing} among the observations {sorted(observation)}")
    pictures = [torch.as_tensor(observation[key]) for key in keys]
    for key, picture in zip(keys, pictures, strict=True):
        if tuple(picture.shape[:2]) != tuple(world.size):
            raise ValueError(
                f"{name}: {key} is {tuple(picture.shape[:2])} pixels, the world model's are {tuple(world.size)}"
            )
    return torch.stack(pictures)


def action_names(world: WorldModel, data: DataPath | None, environment: str) -> tuple[str, ...]:
    """What the action dims are called: by a LeRobot data set, the environment, or their numbers."""
    numbers = tuple(f"dim {dim + 1}" for dim in range(world.action_dim))
    first = data[0] if isinstance(data, tuple) else data
    info = None if first is None else shipped(first) / "meta" / "info.json"
    if info is not None and info.is_file():
        names = json.loads(info.read_text())["features"].get("action", {}).get("names")
        if isinstance(names, dict):  # as older LeRobot data has it: {"motors": [...]}
            names = next(iter(names.values()), None)
        if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
            names = names[0]
    elif has_simulator(environment):
        names = describe(make_simulator(environment)).action_names
    else:
        names = None
    fits = isinstance(names, list | tuple) and len(names) == world.action_dim
    return tuple(map(str, names)) if fits else numbers
