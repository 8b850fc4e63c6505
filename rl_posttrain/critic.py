"""A value of pictures and states, as a distribution over symlog bins."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from policy_eval.behaviour_cloning import ClonedPolicy, KeypointEncoder
from rl_posttrain.estimators import expected_value, symlog, two_hot

LIMIT = 10.0
"""Returns beyond this are put on the outermost bin."""


class Critic(nn.Module):
    """Categorical value (DreamerV3, 2301.04104; "Stop Regressing", 2403.03950).

    Keypoints of the policy's cameras and its state, then a perceptron. It begins from the policy's
    convolutions, which know already where things are, and with a value of 0 everywhere.

    Args:
        policy: Whose value it is.
        num_bins: Bins between `symlog(-10)` and `symlog(10)`, an odd number.
    """

    def __init__(self, policy: ClonedPolicy, num_bins: int = 51):
        super().__init__()
        config = policy.config
        self.encoders = nn.ModuleList([KeypointEncoder() for _ in config.views])
        self.encoders.load_state_dict(policy.encoders.state_dict())
        num_features = sum(e.num_features for e in self.encoders) + config.state_dim
        self.head = nn.Sequential(
            nn.Linear(num_features, config.width), nn.SiLU(),
            nn.Linear(config.width, config.width), nn.SiLU(),
            nn.Linear(config.width, num_bins),
        )  # fmt: skip
        edge = float(symlog(torch.tensor(LIMIT)))
        self.register_buffer("bins", torch.linspace(-edge, edge, num_bins))
        self.register_buffer("state_mean", policy.state_mean.clone())
        self.register_buffer("state_std", policy.state_std.clone())
        nn.init.zeros_(self.head[-1].weight)
        nn.init.zeros_(self.head[-1].bias)

    def forward(
        self, frames: UInt8[Tensor, "n v H W 3"], states: Float[Tensor, "n s"] | None
    ) -> Float[Tensor, "n k"]:
        """Logits over the bins."""
        features = [encode(frames[:, i]) for i, encode in enumerate(self.encoders)]
        if len(self.state_mean):
            features.append((states - self.state_mean) / self.state_std)
        return self.head(torch.cat(features, dim=-1))

    def value(self, logits: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
        """Expected return of what `forward` gave."""
        return expected_value(logits, self.bins)

    def loss(
        self, logits: Float[Tensor, "n k"], returns: Float[Tensor, "n"],
        weights: Float[Tensor, "n"],
    ) -> Float[Tensor, ""]:  # fmt: skip
        """Weighted cross-entropy with the two-hot returns, in nats."""
        targets = two_hot(symlog(returns), self.bins)
        losses = cross_entropy(logits, targets, reduction="none")
        return (losses * weights).sum() / weights.sum().clamp_min(1e-8)
