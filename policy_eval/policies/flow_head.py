"""A head that samples plans: rectified flow over a chunk of actions."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.flow import add_noise, sample

LEVELS = 8
"""Features of the noise level: sine and cosine of as many frequencies as half this number."""


class FlowHead(nn.Module):
    """From noise to a chunk of actions, in a few steps, given the features of what a policy sees.

    Rectified flow (Liu et al. 2022, arXiv 2209.03003) over action chunks, as in pi-zero (Black et al. 2024,
    arXiv 2410.24164), with a perceptron of residual blocks in the place of a transformer. The network predicts the
    clean plan, as the world model predicts clean frames: `z = tau x + (1 - tau) noise`, see `worldmodel.model.flow`.

    Args:
        num_features: Width of the features.
        chunk: Actions of a plan.
        action_dim: Width of an action.
        width: Width of the hidden layers.
        num_steps: Integration steps from noise to a plan.
        blocks: Residual blocks.
    """

    def __init__(self, num_features: int, chunk: int, action_dim: int, width: int, num_steps: int, blocks: int = 2):
        super().__init__()
        self.chunk, self.num_steps = chunk, num_steps
        self.seen = nn.Linear(num_features, width)
        self.noisy = nn.Linear(chunk * action_dim + LEVELS, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, chunk * action_dim))

    def forward(
        self, seen: Float[Tensor, "n d"], noisy: Float[Tensor, "n k a"], tau: Float[Tensor, "n"]
    ) -> Float[Tensor, "n k a"]:
        """The clean plan predicted from a noisy one; `seen` is what `self.seen` makes of the features."""
        hidden = seen + self.noisy(torch.cat([rearrange(noisy, "n k a -> n (k a)"), level_features(tau)], dim=-1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return rearrange(self.out(hidden), "n (k a) -> n k a", k=self.chunk)

    def loss(
        self,
        features: Float[Tensor, "n f"],
        plans: Float[Tensor, "n k a"],
        noise: Float[Tensor, "n r k a"],
        tau: Float[Tensor, "n r"],
    ) -> Float[Tensor, "n"]:
        """Mean squared error of the predicted plan, a mean over the `r` draws of noise and noise level of each row."""
        draws = tau.shape[1]
        clean = repeat(plans, "n k a -> n r k a", r=draws)
        noisy = add_noise(clean, noise, tau)
        seen = repeat(self.seen(features), "n d -> (n r) d", r=draws)
        predicted = self(seen, rearrange(noisy, "n r k a -> (n r) k a"), rearrange(tau, "n r -> (n r)"))
        errors = (rearrange(predicted, "(n r) k a -> n r k a", r=draws).float() - clean).square()
        return errors.mean((1, 2, 3))

    def plans(self, features: Float[Tensor, "n f"], noise: Float[Tensor, "n k a"]) -> Float[Tensor, "n k a"]:
        """The plans that the noise leads to; the noise decides which of the possible plans it is."""
        seen = self.seen(features)

        def predict(noisy: tuple[Tensor, ...], tau: float, _: float) -> tuple[Tensor, ...]:
            return (self(seen, noisy[0], torch.full(noise.shape[:1], tau, device=noise.device)),)

        return sample(predict, (noise,), self.num_steps)[0]


def level_features(tau: Float[Tensor, "n"]) -> Float[Tensor, "n l"]:
    """Sine and cosine of the noise level, 0 to 1, at frequencies that double from a half turn on."""
    turns = torch.pi * 2.0 ** torch.arange(LEVELS // 2, device=tau.device)
    angles = tau[:, None] * turns
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
