"""Driving a world model by hand, one frame at a time, without any user interface."""

from collections.abc import Collection

import torch
from einops import rearrange, repeat
from jaxtyping import Float32, UInt8
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.envs import make_env
from worldmodel.fidelity_windows import CONTEXT_FRAMES, holding_actions
from worldmodel.world_model import WorldModel

KEYS = (("left", "right"), ("up", "down"), ("s", "w"), ("a", "d"), ("q", "e"), ("z", "x"))
"""The negative and the positive key of each action dim in turn; up is negative, as in pictures."""


def key_bindings(action_dim: int) -> dict[str, tuple[int, int]]:
    """The keys of a robot: key -> (action dim, sign).

    Action dims beyond the sixth have no keys and stay at rest.
    """
    return {
        key: (dim, sign)
        for dim, pair in enumerate(KEYS[:action_dim])
        for key, sign in zip(pair, (-1, 1), strict=True)
    }


class DriveSession:
    """A dream of a world model and the hand that steers it.

    Args:
        world: The world model.
        context: The frames the dream starts from, with a batch axis of one.

    Other Arguments:
        num_steps: Denoising steps per frame; may be changed at any time.
        speed: How far a key pushes, 0..1 of the half range of the recorded actions (of their
            displacements from the state, for actions in `relative_to`).
        seed: Two sessions with equal seeds and keys dream the same frames.

    Attributes:
        frames: Every frame since the start, the last context frame first.
        states: The predicted states, likewise; empty when the world model has none.

    Raises:
        ValueError: The world model was trained without actions, so nothing can steer it.
    """

    def __init__(
        self, world: WorldModel, context: Clip, *, num_steps: int = 2, speed: float = 0.7,
        seed: int = 0,
    ):  # fmt: skip
        if world.action_dim == 0:
            raise ValueError("this world model has action_dim 0: nothing can steer it")
        self.world = world
        self.context = context
        self.num_steps = num_steps
        self.speed = speed
        self.seed = seed
        self.bindings = key_bindings(world.action_dim)
        self.reset()

    def reset(self) -> None:
        """Begin again from the context frames."""
        self._rollout = self.world.start(self.context, seed=self.seed)
        self.frames: list[UInt8[Tensor, "v H W 3"]] = [self.context.frames[0, -1]]
        has_states = self.context.states is not None
        self.states = [self.context.states[0, -1]] if has_states else []

    @property
    def num_frames(self) -> int:
        """Frames dreamt since the start."""
        return len(self.frames) - 1

    def action(self, keys: Collection[str]) -> Float32[Tensor, "a"]:
        """The raw action of the pressed keys; opposite keys cancel, no key is rest.

        A dim of `relative_to` aims at the predicted state plus the push. Any other dim is set to
        rest (zero, or the nearest recorded value) plus the push, within the recorded range.

        Raises:
            ValueError: A key has no meaning for this robot.
        """
        if unknown := set(keys) - set(self.bindings):
            raise ValueError(f"keys {sorted(unknown)}: this robot has {sorted(self.bindings)}")
        conditioner = self.world.conditioner
        center, scale = conditioner.action_center.cpu(), conditioner.action_scale.cpu()
        push = torch.zeros(self.world.stride, self.world.action_dim)
        for dim, sign in (self.bindings[key] for key in set(keys)):
            push[:, dim] += sign * self.speed
        push = torch.clamp(push.flatten() * scale, center - scale, center + scale)
        hold = holding_actions(
            repeat(push, "a -> 1 1 a"),
            self.states[-1][None].cpu() if self.states else None,
            relative_to=self.world.relative_to,
            stride=self.world.stride,
        )
        return hold[0, 0] + push

    @torch.inference_mode()
    def step(self, keys: Collection[str] = ()) -> UInt8[Tensor, "v H W 3"]:
        """Dream one frame under the pressed keys."""
        actions = repeat(self.action(keys), "a -> 1 a").to(self.context.frames.device)
        observation, self._rollout = self.world.step(
            self._rollout, actions, num_steps=self.num_steps
        )
        self.frames.append(observation.frames[0])
        if observation.states is not None:
            self.states.append(observation.states[0])
        return self.frames[-1]


def context_from_data(
    source: EpisodeSource, world: WorldModel, *, episode: int, start: int = 0
) -> Clip:
    """Eight recorded frames from `start` on, fewer where the episode ends.

    Raises:
        ValueError: The episode ends at or before `start`.
    """
    length = source.lengths[episode]
    if start >= length:
        raise ValueError(
            f"{source.name}: episode {episode} has {length} frames, none at start {start}"
        )
    stop = min(start + (CONTEXT_FRAMES - 1) * world.stride + 1, length)
    clip = source.read(episode, start, stop, world.stride)
    return clip.map(lambda tensor: tensor[None])


def context_from_environment(name: str, world: WorldModel, *, seed: int) -> Clip:
    """A fresh episode of an embedded environment, standing still for eight frames.

    Raises:
        ValueError: The environment lacks a camera that the world model was trained on.
    """
    environment = make_env(name, size=world.size[0])
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
    keys = [f"observation.images.{view}" for view in world.views]
    if missing := [key for key in keys if key not in observation]:
        raise ValueError(f"{name}: no {missing} among the observations {sorted(observation)}")
    pictures = [torch.stack([torch.as_tensor(seen[key]) for key in keys]) for seen in observations]
    states = [torch.as_tensor(seen["observation.state"]) for seen in observations]
    return Clip(
        frames=torch.stack(pictures)[None],
        actions=rearrange(torch.stack(actions), "(t k) a -> 1 t (k a)", k=world.stride),
        states=torch.stack(states)[None] if world.state_dim else None,
    )
