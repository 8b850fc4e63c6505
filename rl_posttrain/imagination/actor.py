"""A cloned policy made stochastic, so that imagination can tell good actions from bad ones."""

import copy

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from policy_eval.policies.cloned import ClonedPolicy


class Actor(nn.Module):
    """A Gaussian around the plan of a cloned policy, with its own learned spread.

    An action of the actor is a whole plan: the `k` normalised actions of a chunk, side by side. A policy that looks
    at every frame has a chunk of one action. Only the perceptron and the spread are trained. The convolutions stay
    as they were cloned from real pictures: frames are encoded once for actor, prior and critic, and the features
    cannot adapt to the artefacts of a dream (Dreamer 4, 2509.24527, likewise learns heads on a frozen trunk). `raw`
    turns a plan into commands.

    Args:
        policy: The policy to improve; its weights are copied.
        std: Spread at the beginning, in standard deviations of the demonstrated actions.

    Raises:
        ValueError: `std` is not positive.
    """

    def __init__(self, policy: ClonedPolicy, std: float):
        super().__init__()
        if not std > 0:
            raise ValueError(f"std is above 0, got {std}")
        self.policy = copy.deepcopy(policy)
        self.policy.encoders.requires_grad_(False)
        self.chunk = policy.config.carried
        self.log_std = nn.Parameter(torch.full((self.chunk * policy.config.action_dim,), std).log())

    @property
    def std(self) -> Float[Tensor, "p"]:
        """Spread of the normalised actions of a plan, `p = k a`."""
        return self.log_std.exp()

    @property
    def num_features(self) -> int:
        """Width of the features."""
        return self.policy.num_features

    @torch.no_grad()
    def features(self, frames: UInt8[Tensor, "n v H W 3"], states: Float[Tensor, "n s"] | None) -> Float[Tensor, "n f"]:
        """What the policy sees: keypoints of its own cameras, `frames`, and its state."""
        return self.policy.features(frames, states)

    def forward(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n p"]:
        """The most likely normalised plan; of a flow, that of zero noise."""
        plans = self.policy.plans(features.flatten(0, -2))[:, : self.chunk]
        return rearrange(plans, "n k a -> n (k a)").unflatten(0, features.shape[:-1])

    def raw(self, plans: Float[Tensor, "n p"], states: Float[Tensor, "n s"] | None) -> Float[Tensor, "n k a"]:
        """Commands in the units of the data, relative dims added to the state in which the plan was made."""
        return self.policy.commands(rearrange(plans, "n (k a) -> n k a", k=self.chunk), states)
