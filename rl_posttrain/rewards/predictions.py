"""Rewards with a gradient: what they see of a self-rollout, and how you plug in one of yours."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import softshrink

from rl_posttrain.rewards.reward import failure
from worldmodel.data.clip import Clip
from worldmodel.resolve import kind_of

UNSEEN = 3 / 127.5
"""Differences of up to so much, in pictures in [-1, 1], count as none where a reward looks at what can be seen: three
levels of 255."""


@dataclass(frozen=True)
class Predictions:
    """Predicted next frames beside the recorded ones; pictures are in [-1, 1], channels first.

    Attributes:
        predicted: The next frames; the gradient of a reward is taken with respect to them.
        recorded: The recorded frames in their place.
        context: The frame before each of them, as the model saw it: its own prediction or a recorded one.
        states: The state of the first context frame, then the predicted ones; `None` without states.
        picked: Indices into the pictures `(b t v)` that costly rewards look at.
        clip: The recorded stretch, with its actions, states and masks.
    """

    predicted: Float[Tensor, "b t v c h w"]
    recorded: Float[Tensor, "b t v c h w"]
    context: Float[Tensor, "b t v c h w"]
    states: Float[Tensor, "b t+1 s"] | None
    picked: Int64[Tensor, "n"]
    clip: Clip

    def pick(self, pictures: Float[Tensor, "b t v c h w"]) -> Float[Tensor, "n c h w"]:
        """The pictures that costly rewards look at."""
        return rearrange(pictures, "b t v c h w -> (b t v) c h w")[self.picked]

    @property
    def visible(self) -> Float[Tensor, "n c h w"]:
        """The picked predicted pictures without differences from the recorded ones that nobody sees.

        Networks see them: on a white background an error of a third of a level can be most of a distance of
        normalised features, and tells a discriminator all that it wants to know.
        """
        recorded = self.pick(self.recorded)
        return recorded + softshrink(self.pick(self.predicted) - recorded, UNSEEN)


@runtime_checkable
class PictureReward(Protocol):
    """A reward whose own gradient improves the pictures; a plain function is enough.

    See `docs/extend/reward.md` for rewards of yours.
    """

    def __call__(self, predictions: Predictions) -> Float[Tensor, "..."]:
        """Any number of values, e.g. one for each picture; their mean counts, higher is better."""
        ...


WeightedPictures = Mapping[str, tuple[PictureReward, float]]
"""Rewards with a gradient by name, each with its weight."""


@dataclass(frozen=True)
class CheckedPictures:
    """A reward of the user; what it returns is checked, so that a mistake in it gives a message of one line.

    Attributes:
        name: How the user named it, for the messages.
        reward: The reward.
    """

    name: str
    reward: PictureReward

    def __call__(self, predictions: Predictions) -> Float[Tensor, "..."]:
        """The values that the reward gives.

        Raises:
            ValueError: The reward raises an error, or returns no finite numbers with a gradient.
        """
        try:
            values = self.reward(predictions)
        except Exception as error:
            raise ValueError(failure(self.name, error)) from error
        said = f"reward {self.name}: returns a torch.Tensor of finite numbers with a gradient"
        if not isinstance(values, Tensor):
            raise ValueError(f"{said}, got {kind_of(values)}")
        nothing = len(predictions.picked) and not values.numel()  # another process may have all the picked pictures
        if not values.is_floating_point() or nothing or not values.isfinite().all():
            raise ValueError(f"{said}, got {tuple(values.shape)} of {values.dtype}, or a value is not finite")
        if not values.requires_grad:
            raise ValueError(f"{said}; these do not depend on the predicted pictures in a way that can be derived")
        return values


def picked_pictures(number: int, count: int, generator: torch.Generator) -> Int64[Tensor, "n"]:
    """`count` of `number` pictures at random, without repetition; all if there are fewer."""
    return torch.randperm(number, generator=generator)[:count]
