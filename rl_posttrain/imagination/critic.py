"""The value of what a policy sees, as a distribution over symlog bins."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rl_posttrain.imagination.estimators import expected_value, symlog, two_hot

LIMIT = 10.0
"""Larger returns are put on the outermost bin."""


class Critic(nn.Module):
    """Categorical value (DreamerV3, 2301.04104; "Stop Regressing", 2403.03950).

    A perceptron on the features of pictures and state that the policy acts on; its value is 0
    everywhere at first.

    Args:
        num_features: Width of the features.
        width: Of the perceptron.
        num_bins: Bins between `symlog(-10)` and `symlog(10)`, an odd number.
    """

    def __init__(self, num_features: int, width: int, num_bins: int = 51):
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(num_features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, num_bins)
        )
        edge = float(symlog(torch.tensor(LIMIT)))
        self.register_buffer("bins", torch.linspace(-edge, edge, num_bins))
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n k"]:
        """Logits over the bins."""
        return self.head(features)

    def value(self, features: Float[Tensor, "*n f"]) -> Float[Tensor, "*n"]:
        """Expected return."""
        return expected_value(self(features), self.bins)

    def loss(
        self, features: Float[Tensor, "n f"], returns: Float[Tensor, "n"], weights: Float[Tensor, "n"]
    ) -> Float[Tensor, ""]:
        """Weighted cross-entropy with the two-hot returns, in nats."""
        targets = two_hot(symlog(returns), self.bins)
        losses = cross_entropy(self(features), targets, reduction="none")
        return (losses * weights).sum() / weights.sum().clamp_min(1e-8)
