"""Many futures of one moment: the same frames, other actions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from demos.driving.session import DriveSession, steer
from worldmodel.dreams.verdict import Judge

MAX_FUTURES = 16
MAX_HORIZON = 60
TURN_FRAMES = 4
"""Frames for which a random action is held."""


@dataclass(frozen=True)
class Futures:
    """K futures of one moment.

    Attributes:
        names: What is done in each of them.
        frames: The moment itself, then what follows.
        scores: The judge's reward for the last frame of each; `None` without a judge.
    """

    names: tuple[str, ...]
    frames: UInt8[Tensor, "k t v H W 3"]
    scores: Float[Tensor, "k"] | None

    @property
    def best(self) -> int | None:
        """The future with the highest score."""
        return None if self.scores is None else int(self.scores.argmax())


def proposals(
    bindings: Mapping[str, tuple[int, int]], *, k: int, horizon: int, speed: float, seed: int
) -> dict[str, Float32[Tensor, "m a"]]:
    """`k` sequences of pushes in -1..1: every key held, then rest, then random ones.

    A random one holds a direction, uniform on the sphere of the action dims, for four frames.

    Raises:
        ValueError: A number is out of range.
    """
    if not 2 <= k <= MAX_FUTURES or not 1 <= horizon <= MAX_HORIZON:
        raise ValueError(f"2 to {MAX_FUTURES} futures of 1 to {MAX_HORIZON} frames, got {k} of {horizon}")
    action_dim = 1 + max(dim for dim, _ in bindings.values())
    held = {}
    for key, (dim, sign) in bindings.items():
        held[f"hold {key}"] = torch.zeros(horizon, action_dim)
        held[f"hold {key}"][:, dim] = sign * speed
    held["rest"] = torch.zeros(horizon, action_dim)
    rng = np.random.default_rng(seed)
    for number in range(1, k + 1):
        turns = rng.normal(size=(-(-horizon // TURN_FRAMES), action_dim)).astype(np.float32)
        turns *= speed / np.linalg.norm(turns, axis=1, keepdims=True)
        held[f"random {number}"] = torch.from_numpy(turns.repeat(TURN_FRAMES, 0)[:horizon])
    return dict(list(held.items())[:k])


@torch.inference_mode()
def imagine_futures(
    session: DriveSession,
    pushes: Mapping[str, Float32[Tensor, "m a"]],
    judge: Judge | None = None,
    progress: Callable[[int], None] | None = None,
) -> Futures:
    """Dream every sequence of pushes from the current frame of the session, which does not change.

    All futures share the session's noise, so they differ only by their actions.

    Args:
        session: Where the futures begin.
        pushes: Name and pushes of each future.
        judge: Gives the rewards of the last frames.
        progress: Called with the number of frames that each future has so far; an error that it raises ends all.
    """
    world, now, count = session.world, session.now, len(pushes)
    stream = session.stream.branch(count)
    columns = torch.stack(list(pushes.values()), dim=1)
    states = None if now.states is None else now.states.expand(count, -1)
    frames = [now.frames.expand(count, *now.frames.shape)]
    for number, push in enumerate(columns, start=1):
        actions = steer(world, states, push)
        observation = stream.step(actions, num_steps=session.num_steps)
        states = observation.states
        frames.append(observation.frames.cpu())
        if progress is not None:
            progress(number)
    scores = None if judge is None else judge(observation).rewards.float().cpu()
    return Futures(tuple(pushes), torch.stack(frames, dim=1), scores)
