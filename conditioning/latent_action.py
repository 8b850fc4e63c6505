"""Latent actions describe what happened between two frames of video that has no recorded actions.

An inverse-dynamics encoder reads two frames and describes what happened in a few numbers. The world
model sees the first frame and these numbers and has to predict the second ("Learning Latent Action
World Models in the Wild", 2601.05230). If the numbers could carry much information, the encoder
would copy the second frame into them. A Gaussian bottleneck prevents this (the paper's noisy
continuous latent, DreamDojo's KL): the latent is sampled, and the loss has a penalty on its
information in nats. A small controller then turns the real actions of a robot into latent ones.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from conditioning.noise import FourierMLP

GRID = 8  # cells along the longer side of a picture from which the latent is read
LATENT_RANGE = 3.0  # standard deviations of the prior that are mapped to [-1, 1]


class LatentActionEncoder(nn.Module):
    """Inverse dynamics: map two consecutive frames to a Gaussian over latent actions.

    Args:
        latent_shape: `(c, h, w)` of one view's latent.
        num_views: Cameras.
        latent_dim: Width `a` of a latent action.
        width: Channels of the convolutions, and an eighth of the hidden layer's width.
    """

    def __init__(self, latent_shape: tuple[int, int, int], num_views: int, latent_dim: int, width: int = 32):
        super().__init__()
        channels, height, rows = latent_shape
        layers, last = [], 2 * channels
        while not layers or max(height, rows) > GRID:
            layers += [nn.Conv2d(last, width, 3, stride=2, padding=1), nn.SiLU()]
            last, height, rows = width, -(-height // 2), -(-rows // 2)
        self.pictures = nn.Sequential(*layers, nn.Conv2d(last, width // 2, 1), nn.SiLU())
        self.hidden = nn.Linear(num_views * (width // 2) * height * rows, 8 * width)
        self.out = nn.Linear(8 * width, 2 * latent_dim)
        with torch.no_grad():
            self.out.bias[latent_dim:] = -4.0  # little noise at first, so that the latent is used

    def forward(
        self, latents: Float[Tensor, "b t v c h w"]
    ) -> tuple[Float[Tensor, "b t-1 a"], Float[Tensor, "b t-1 a"]]:
        """Mean and log-variance of the latent action between every two consecutive frames."""
        batch, views = len(latents), latents.shape[2]
        change = latents[:, 1:] - latents[:, :-1]
        pairs = torch.cat([latents[:, :-1], change], dim=3)
        cells = self.pictures(rearrange(pairs, "b t v c h w -> (b t v) c h w"))
        cells = rearrange(cells, "(b t v) c h w -> b t (v c h w)", b=batch, v=views)
        hidden = nn.functional.silu(self.hidden(cells))
        mean, log_variance = self.out(hidden).float().chunk(2, dim=-1)
        return mean, log_variance.clamp(-12.0, 4.0)


class LatentController(nn.Module):
    """Map a real action and the state to the latent action with the same effect; two hidden layers.

    Args:
        action_dim: Width of the real action.
        state_dim: Width of the state; 0 when there is none.
        latent_dim: Width of the latent action.
    """

    def __init__(self, action_dim: int, state_dim: int, latent_dim: int, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            FourierMLP(action_dim + state_dim, width, num_octaves=3), nn.SiLU(), nn.Linear(width, latent_dim)
        )

    def forward(self, actions: Float[Tensor, "*b a"], states: Float[Tensor, "*b s"] | None) -> Float[Tensor, "*b l"]:
        """Latent actions of normalised actions and states, roughly in [-1, 1]."""
        told = actions if states is None else torch.cat([actions, states], dim=-1)
        return self.layers(told).float()


def sample_latent(
    mean: Float[Tensor, "*b a"], log_variance: Float[Tensor, "*b a"], noise: Float[Tensor, "*b a"]
) -> Float[Tensor, "*b a"]:
    """`mean + exp(log_variance / 2) noise`: the reparametrised sample (1312.6114)."""
    return mean + (0.5 * log_variance).exp() * noise


def information(mean: Float[Tensor, "*b a"], log_variance: Float[Tensor, "*b a"]) -> Float[Tensor, "*b"]:
    """The most nats that a latent action can carry: its KL divergence from the standard normal.

    `KL = 1/2 sum_i (mean_i^2 + var_i - log var_i - 1)` (1312.6114, appendix B); its average is an
    upper bound on the mutual information of frames and latent.
    """
    return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1)


def spread_error(mean: Float[Tensor, "b t a"]) -> Float[Tensor, ""]:
    """Penalty on latent means whose standard deviation over a batch is below 1, or whose average is not 0.

    `mean_i max(0, 1 - std_i)^2 + average_i^2`, the variance term of VICReg (2105.04906) and a mean
    term, as in 2601.05230. Without this penalty the world model ignores an encoder whose outputs
    differ by less than its noise, and then the encoder never learns to vary its outputs. The number
    of nats does not show this failure, because a constant mean counts as nats, too.
    """
    rows = mean.flatten(0, 1)
    lacking = (1 - rows.std(0, correction=0)).clamp(min=0)
    return (lacking.square() + rows.mean(0).square()).mean()
