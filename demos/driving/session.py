"""Driving a world model by hand, one frame at a time, without any user interface."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Float32, UInt8
from torch import Tensor

from demos.driving.simulation import Simulation
from demos.driving.start import Start
from worldmodel.fidelity.windows import holding_actions
from worldmodel.streaming.stream import Snapshot
from worldmodel.world_model import WorldModel

KEYS = (
    ("left", "right"),
    ("up", "down"),
    ("f", "r"),
    ("q", "e"),
    ("g", "t"),
    ("z", "x"),
    ("h", "y"),
    ("c", "v"),
    ("j", "u"),
    ("b", "n"),
    ("k", "i"),
    ("l", "o"),
)
"""The negative and the positive key of each action dim in turn; up is negative, as in pictures.

W, A, S and D are not listed here, because they are other names of the arrows.
"""
MAX_MOMENTS = 600
"""Frames that a session remembers, for recordings."""
UNDO_DEPTH = 12
UNDO_FRAMES = 10
"""Maximum number of frames that one undo takes back; the rollout is copied at least this often."""
MAX_SEED = 2**31 - 1


def key_bindings(action_dim: int) -> dict[str, tuple[int, int]]:
    """The keys of a robot: key -> (action dim, sign).

    Action dims beyond the twelfth have no key of a keyboard, but names like `13-` and `13+` for
    the buttons on the screen.
    """
    named = [(f"{dim + 1}-", f"{dim + 1}+") for dim in range(len(KEYS), action_dim)]
    return {
        key: (dim, sign)
        for dim, pair in enumerate([*KEYS, *named][:action_dim])
        for key, sign in zip(pair, (-1, 1), strict=True)
    }


def steer(
    world: WorldModel, states: Float32[Tensor, "b s"] | None, push: Float32[Tensor, "b a"]
) -> Float32[Tensor, "b ka"]:
    """Raw actions of a push of -1..1 in every action dim, repeated over the stride.

    A dim of `relative_to` aims at the predicted state plus the push. Any other dim is set to rest
    (zero, or the nearest recorded value) plus the push. A push of 1 is half of the recorded range
    (of the displacements from the state, for dims in `relative_to`); actions stay within this range.
    """
    conditioner = world.conditioner
    center, scale = conditioner.action_center.cpu(), conditioner.action_scale.cpu()
    wanted = repeat(push, "b a -> b (k a)", k=world.stride) * scale
    wanted = torch.clamp(wanted, center - scale, center + scale)
    hold = holding_actions(
        wanted[:, None], None if states is None else states.cpu(), relative_to=world.relative_to, stride=world.stride
    )
    return hold[:, 0] + wanted


@dataclass(frozen=True)
class Moment:
    """One frame of a drive.

    Attributes:
        frames: What the world model shows.
        states: The predicted state, when the world model has one.
        truth: What the simulator shows after the same actions, when there is one.
        actions: The raw action that led here; `None` at the start.
    """

    frames: UInt8[Tensor, "v H W 3"]
    states: Float32[Tensor, "s"] | None
    truth: UInt8[Tensor, "v H W 3"] | None
    actions: Float32[Tensor, "a"] | None


@dataclass(frozen=True)
class Checkpoint:
    """Where an undo leads back to."""

    num_frames: int
    snapshot: Snapshot


class DriveSession:
    """A dream of a world model that a user steers.

    Args:
        world: The world model.
        start: Where the dream begins.

    Other Arguments:
        num_steps: Denoising steps per frame; may be changed at any time.
        speed: How far a key pushes, 0..1 of the half range of the recorded actions (of their
            displacements from the state, for actions in `relative_to`).
        seed: Two sessions with equal seeds and keys dream the same frames; a new seed counts from the next `reset` on.
        beside: Run the simulator on the same actions, when the start comes from one.

    Attributes:
        stream: The dream itself.
        moments: The last frames since the start, at most `MAX_MOMENTS`; the first one of a new
            dream is the last context frame.
        num_frames: Frames dreamed since the start.

    Raises:
        ValueError: The world model was trained without actions, so nothing can steer it.
    """

    def __init__(
        self,
        world: WorldModel,
        start: Start,
        *,
        num_steps: int = 2,
        speed: float = 0.7,
        seed: int = 0,
        beside: bool = False,
    ):
        if world.action_dim == 0:
            raise ValueError("this world model has action_dim 0: nothing can steer it")
        self.world, self.start = world, start
        self.bindings = key_bindings(world.action_dim)
        self.set(num_steps=num_steps, speed=speed, seed=seed)
        self.simulation = Simulation(start, world) if beside and start.has_simulator else None
        self.reset()

    def set(self, *, num_steps: int, speed: float, seed: int) -> None:
        """Change the settings.

        Raises:
            ValueError: One is out of range.
        """
        if num_steps not in self.world.allowed_steps:
            raise ValueError(f"num_steps is one of {self.world.allowed_steps}, got {num_steps}")
        if not 0 < speed <= 1:
            raise ValueError(f"speed is above 0 and at most 1, got {speed}")
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed is 0 to {MAX_SEED}, got {seed}")
        self.num_steps, self.speed, self.seed = num_steps, speed, seed

    def reset(self) -> None:
        """Begin again from the context frames."""
        context = self.start.context
        self.stream = self.world.stream(context, seeds=self.seed)
        self.num_frames = 0
        self._checkpoints: deque[Checkpoint] = deque(maxlen=UNDO_DEPTH)
        self._keys: frozenset[str] | None = None
        truth = None
        if self.simulation is not None:
            self.simulation.begin()
            truth = self.simulation.frames
        states = None if context.states is None else context.states[0, -1].cpu()
        self.moments = [Moment(context.frames[0, -1].cpu(), states, truth, None)]

    @property
    def now(self) -> Moment:
        """The latest frame."""
        return self.moments[-1]

    def push(self, keys: Collection[str]) -> Float32[Tensor, "a"]:
        """The push of the pressed keys, -1..1; opposite keys cancel, no key is rest.

        Raises:
            ValueError: A key has no meaning for this robot.
        """
        if unknown := set(keys) - set(self.bindings):
            raise ValueError(f"keys {sorted(unknown)}: this robot has {sorted(self.bindings)}")
        push = torch.zeros(self.world.action_dim)
        for dim, sign in (self.bindings[key] for key in set(keys)):
            push[dim] += sign * self.speed
        return push

    def action(self, keys: Collection[str]) -> Float32[Tensor, "a"]:
        """The raw action of the pressed keys; see `push` and `steer`."""
        return self._raw(self.push(keys))

    def step(self, keys: Collection[str] = ()) -> Moment:
        """Dream one frame under the pressed keys."""
        return self.advance(self.push(keys), frozenset(keys))

    @torch.inference_mode()
    def advance(self, push: Float32[Tensor, "a"], move: frozenset[str]) -> Moment:
        """Dream one frame under a push of -1..1; frames of the same `move` in a row are taken back together."""
        actions = self._raw(push)
        self._remember(move)
        observation = self.stream.step(actions[None], num_steps=self.num_steps)
        truth = None if self.simulation is None else self.simulation.step(actions)
        states = None if observation.states is None else observation.states[0].cpu()
        self.moments.append(Moment(observation.frames[0].cpu(), states, truth, actions))
        del self.moments[:-MAX_MOMENTS]
        self.num_frames += 1
        return self.now

    def undo(self) -> None:
        """Take back the last move: the frames since the keys changed, at most `UNDO_FRAMES`.

        Raises:
            ValueError: There is no move left to take back.
        """
        if not self._checkpoints:
            raise ValueError("there is no move left to take back")
        if self.simulation is not None:
            self.simulation.rewind(self._checkpoints[-1].num_frames)
        checkpoint = self._checkpoints.pop()
        self.stream.restore(checkpoint.snapshot)
        del self.moments[len(self.moments) - (self.num_frames - checkpoint.num_frames) :]
        self.num_frames = checkpoint.num_frames
        self._keys = None

    def close(self) -> None:
        """Close the simulator."""
        if self.simulation is not None:
            self.simulation.close()

    def _raw(self, push: Float32[Tensor, "a"]) -> Float32[Tensor, " ka"]:
        states = None if self.now.states is None else self.now.states[None]
        return steer(self.world, states, push[None])[0]

    def _remember(self, keys: frozenset[str]) -> None:
        """Copy the rollout before a new move, so that `undo` can return to it."""
        last = self._checkpoints[-1].num_frames if self._checkpoints else -UNDO_FRAMES
        if keys != self._keys or self.num_frames - last >= UNDO_FRAMES:
            self._checkpoints.append(Checkpoint(self.num_frames, self.stream.snapshot()))
        self._keys = keys
