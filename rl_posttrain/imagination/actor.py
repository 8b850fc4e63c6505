"""A cloned policy made stochastic, so that imagination can tell good actions from bad ones."""

import copy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from policy_eval.policies.cloned import ClonedPolicy


class Actor(nn.Module):
    """A Gaussian around the action of a cloned policy, with its own learned spread.

    Only the perceptron and the spread are trained. The convolutions stay as they were cloned from
    real pictures: frames are encoded once for actor, prior and critic, and the features cannot adapt
    to the artefacts of a dream (Dreamer 4, 2509.24527, likewise learns heads on a frozen
    trunk). Actions are the policy's normalised ones; `raw` turns them into commands.

    Args:
        policy: The policy to improve; its weights are copied.
        std: Spread at the beginning, in standard deviations of the demonstrated actions.

    Raises:
        ValueError: The policy plans several actions at once, or `std` is not positive.
    """

    def __init__(self, policy: ClonedPolicy, std: float):
        super().__init__()
        if policy.config.chunk != 1:
            raise ValueError(
                f"imagination improves policies that look at every frame: chunk is 1, the policy "
                f"has {policy.config.chunk}"
            )
        if not std > 0:
            raise ValueError(f"std is above 0, got {std}")
        self.policy = copy.deepcopy(policy)
        self.policy.encoders.requires_grad_(False)
        action_dim = policy.config.action_dim
        self.log_std = nn.Parameter(torch.full((action_dim,), std).log())

    @property
    def std(self) -> Float[Tensor, "a"]:
        """Spread of the normalised actions."""
        return self.log_std.exp()

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return self.policy.head[0].in_features

    @torch.no_grad()
    def features(self, frames: UInt8[Tensor, "n v H W 3"], states: Float[Tensor, "n s"] | None) -> Float[Tensor, "n f"]:
        """What the policy sees: keypoints of its own cameras, `frames`, and its state."""
        return self.policy.features(frames, states)

    def forward(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n a"]:
        """The most likely normalised action."""
        return self.policy.head(features)

    def raw(self, actions: Float[Tensor, "n a"], states: Float[Tensor, "n s"] | None) -> Float[Tensor, "n a"]:
        """Commands in the units of the data, relative dims added to the state."""
        return self.policy.commands(actions[:, None], states)[:, 0]
