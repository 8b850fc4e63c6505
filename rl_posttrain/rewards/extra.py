"""Rewards of yours: found by `module:name=WEIGHT`, or passed in Python, and checked at every call."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_posttrain.rewards.credit import Values
from rl_posttrain.rewards.reward import Reward, Rollout, failure
from worldmodel.resolve import kind_of, one_line, resolve, source_hash

Weighted = Mapping[str, tuple[Reward, float]]
"""Rewards by name, each with its weight; with a weight below 0 less of it is better, with 0 it is only measured."""


@dataclass(frozen=True)
class ExtraRewards:
    """Rewards beside those that this package has."""

    extra: tuple[str, ...] = ()
    """Rewards of yours, each as module:name=WEIGHT; with a weight below 0, less is better."""


@dataclass(frozen=True)
class CheckedReward:
    """A reward of the user; what it returns is checked, so that a mistake in it gives a message of one line.

    Attributes:
        name: How the user named it, for the messages.
        reward: The reward.
    """

    name: str
    reward: Reward

    def __call__(self, rollout: Rollout) -> Values:
        """The numbers or the map that the reward gives, on the device of the rollout.

        Raises:
            ValueError: The reward raises an error, or returns neither one finite number for each candidate nor a
                map of finite numbers that fits the frames.
        """
        try:
            values = self.reward(rollout)
        except Exception as error:
            none = "; in imagine there is no recording, so rollout.reference is None" * (rollout.reference is None)
            raise ValueError(failure(self.name, error) + none) from error
        frames = rollout.imagined.frames
        said = f"reward {self.name}: returns one finite number for each candidate, a torch.Tensor of the shape"
        said += f" ({len(frames)},), or a map of them"
        if not isinstance(values, Tensor):
            raise ValueError(f"{said}, got {kind_of(values)}")
        if not (values.shape == (len(frames),) or _is_map(values, frames)) or values.is_complex():
            raise ValueError(f"{said}, {_map_shape(frames)}, got {tuple(values.shape)} of {values.dtype}")
        values = values.detach().to(frames.device, torch.float32)
        if not values.isfinite().all():
            index = (~values.isfinite()).nonzero()[0].tolist()
            raise ValueError(f"{said}, got {float(values[tuple(index)])} for candidate {index[0]}")
        return values


def _is_map(values: Tensor, frames: Tensor) -> bool:
    """Whether the shape is that of a map: `b t v h w` with cells that fill the frames, or 1 for an axis."""
    if values.ndim != 5 or len(values) != len(frames):
        return False
    dreamed, (views, height, width) = frames.shape[1] - 1, frames.shape[2:5]
    _, t, v, h, w = values.shape
    return t in (1, dreamed) and v in (1, views) and min(h, w) > 0 and height % h == 0 and width % w == 0


def _map_shape(frames: Tensor) -> str:
    """What `_is_map` expects, in words."""
    batch, dreamed, views, height, width = len(frames), frames.shape[1] - 1, *frames.shape[2:5]
    return f"({batch}, {dreamed} or 1, {views} or 1, a divisor of {height}, a divisor of {width})"


def find_rewards(extra: Sequence[str], given: Weighted | None = None) -> dict[str, tuple[CheckedReward, float]]:
    """The rewards of `--reward.extra` and those that were passed in Python, by name.

    Args:
        extra: Each as `module:name=WEIGHT`; its name is the part behind the colon. A class is instantiated.
        given: Rewards that were passed in Python.

    Raises:
        ValueError: An entry has another form, there is no such reward, or two have the same name.
    """
    found: dict[str, tuple[CheckedReward, float]] = {}
    for text in extra:
        spec, weight = parsed(text)
        name = spec.partition(":")[2]
        if name in found:
            raise ValueError(f"--reward.extra: two rewards are called {name!r}: {found[name][0].name} and {spec}")
        found[name] = CheckedReward(spec, resolved(spec)), weight
    for name, (reward, weight) in (given or {}).items():
        if name in found:
            raise ValueError(f"two rewards are called {name!r}: {found[name][0].name} and one that was passed")
        if not callable(reward):
            raise ValueError(f"reward {name}: a reward is a function of the rollout, got {kind_of(reward)}")
        found[name] = CheckedReward(name, reward), _finite(weight, f"reward {name}")
    return found


def rewards_read(
    extra: Sequence[str], given: Mapping[str, tuple[object, float]] | None = None, option: str = "reward.extra"
) -> dict[str, str]:
    """What a run notes about its extra rewards: names, weights, and a hash of their modules; empty without any.

    A run that is resumed with other ones is refused. Code that was passed in Python is known by name alone.
    """
    said = [f"{text} {source_hash(parsed(text)[0], 'reward')}" for text in extra]
    said += [f"{name}={weight:g}" for name, (_, weight) in (given or {}).items()]
    return {option: ", ".join(said)} if said else {}


def parsed(text: str, option: str = "--reward.extra") -> tuple[str, float]:
    """`module:name` and the weight of `module:name=WEIGHT`.

    Raises:
        ValueError: The text has another form.
    """
    spec, equals, weight = text.rpartition("=")
    where = f"{option} {text}"
    if not equals:
        raise ValueError(f"{where}: has no weight, expected module:name=WEIGHT, as in my_rewards:still=0.5")
    try:
        number = float(weight)
    except ValueError as error:
        raise ValueError(f"{where}: the weight is {weight!r}, expected a number, as in {spec}=0.5") from error
    return spec, _finite(number, where)


def _finite(weight: float, where: str) -> float:
    if not math.isfinite(weight):
        raise ValueError(f"{where}: the weight is {weight}, expected a finite number")
    return float(weight)


def resolved(spec: str) -> Reward:
    """The reward that `module:name` names.

    Raises:
        ValueError: There is none, or it is a class that cannot be made without arguments.
    """
    found = resolve(spec, "reward")
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise ValueError(f"reward {spec}: the class cannot be made without arguments: {one_line(error)}") from error
    if not callable(found):
        raise ValueError(f"reward {spec}: expected a function of the rollout, found {kind_of(found)}")
    return found
