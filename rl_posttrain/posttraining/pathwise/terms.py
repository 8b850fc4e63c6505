"""The rewards of a pathwise run, their weights, and what is trained along with the world model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from policy_eval.judge.inverse_dynamics import InverseDynamics
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.rewards.decoded import DecodedActions
from rl_posttrain.rewards.extra import parsed, resolved, rewards_read
from rl_posttrain.rewards.perceptual import Perceptual
from rl_posttrain.rewards.predictions import CheckedPictures, PictureReward, WeightedPictures
from rl_posttrain.rewards.realism import Realism
from worldmodel.fidelity.perceptual import Trunk, missing_reason
from worldmodel.model.codec import PixelCodec
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class PictureTerms:
    """Rewards with a gradient.

    Attributes:
        rewards: By name.
        weights: Length of the gradient of each, relative to that of the regression.
        realism: The one that is trained along, or `None`.
    """

    rewards: Mapping[str, PictureReward]
    weights: Mapping[str, float]
    realism: Realism | None

    @property
    def learned(self) -> dict[str, nn.Module]:
        """Networks that are trained along, by name; their weights belong to the state of a run."""
        return {} if self.realism is None else {"realism": self.realism}

    def optimizers(self, rate: float) -> list[torch.optim.Optimizer]:
        """Optimisers of these networks."""
        return [
            torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.0, 0.99)) for network in self.learned.values()
        ]


KNOWN = ("perceptual", "realism", "agreement")
"""Names of the rewards of this package, whether they are used or not."""
NO_TERMS = PictureTerms({}, {}, None)
"""What the other objectives have."""


def terms_of(config: PosttrainConfig, base: WorldModel, pictures: WeightedPictures | None) -> PictureTerms:
    """The rewards with a gradient, of which only the objective pathwise has any.

    Raises:
        ValueError: Another objective is given some, or they do not fit.
    """
    if config.differentiable:
        return build_terms(config.pathwise, base, config.inverse_dynamics, pictures)
    if pictures or config.pathwise.extra:
        names = ", ".join([*config.pathwise.extra, *(pictures or {})])
        raise ValueError(f"objective={config.objective}: only pathwise has rewards with a gradient, got {names}")
    return NO_TERMS


def build_terms(
    config: PathwiseConfig,
    world: WorldModel,
    inverse_dynamics: str | Path | None,
    given: WeightedPictures | None = None,
) -> PictureTerms:
    """The rewards whose weights are not 0 and whose inputs are there; prints which are left out.

    Args:
        config: Weights and settings.
        world: The base model.
        inverse_dynamics: Folder, or `None`.
        given: Rewards that were passed in Python, by name.

    Raises:
        ValueError: A reward needs pixels and the world model has an autoencoder, or two rewards have the same name.
    """
    weights, device, rewards = dict(config.weights), world.device, {}
    reason = missing_reason(config.trunk)
    if "perceptual" in weights and reason is not None:
        print(f"The perceptual reward is left out: {reason}")
        del weights["perceptual"]
    if "perceptual" in weights:
        rewards["perceptual"] = Perceptual(Trunk(config.trunk, device))
    if "realism" in weights:
        rewards["realism"] = Realism(config.realism_penalty).to(device)
    if "agreement" in weights and inverse_dynamics is not None:
        dynamics = InverseDynamics.load(inverse_dynamics, device).requires_grad_(False)
        rewards["agreement"] = DecodedActions(dynamics)
    yours = [(name, *pair) for name, pair in (given or {}).items()]
    for name, reward, weight in [*extra_pictures(config.extra), *yours]:
        if name in (*rewards, *KNOWN):
            raise ValueError(f"two rewards are called {name!r}")
        rewards[name], weights[name] = CheckedPictures(name, reward), weight
    if rewards and not isinstance(world.codec, PixelCodec):
        raise ValueError(
            f"rewards with a gradient ({', '.join(rewards)}) look at pixels, and this world model has an autoencoder; "
            "pass their weights as 0"
        )
    return PictureTerms(rewards, weights, rewards.get("realism"))


def terms_read(config: PathwiseConfig, given: WeightedPictures | None = None) -> dict[str, str]:
    """What a run notes about these rewards, so that it is resumed with the same ones only."""
    found = rewards_read(config.extra, given, "pathwise.extra")
    if config.perceptual and missing_reason(config.trunk) is not None:
        found["pathwise.perceptual"] = "left out"
    return found


def extra_pictures(extra: tuple[str, ...]) -> list[tuple[str, PictureReward, float]]:
    """The rewards of `--pathwise.extra` with their weights, each named by the part behind the colon.

    Raises:
        ValueError: An entry has another form, or there is no such reward.
    """
    entries = [parsed(text, "--pathwise.extra") for text in extra]
    return [(spec.partition(":")[2], resolved(spec), weight) for spec, weight in entries]
