"""Where things are in a picture: the encoder that policies and judges have for each camera."""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from conditioning.words import zero_linear
from worldmodel.model.keypoints import expected_places


class KeypointEncoder(nn.Module):
    """Where things are in the picture: expected coordinates of learned feature maps.

    It is the spatial softmax of Levine et al. 2016 (End-to-End Training of Deep Visuomotor Policies,
    arXiv 1504.00702, section 5.1), at a quarter of the picture's resolution, together with
    each map's maximum. An encoder that is told the task looks for other things in each: the vector of the task scales
    and shifts the channels before the last layer (FiLM, Perez et al. 2018, arXiv 1709.07871).

    Args:
        num_keypoints: Number of maps.
        told: Width of the vector of the task; 0 for an encoder that is not told.
    """

    def __init__(self, num_keypoints: int = 32, told: int = 0):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, num_keypoints, 1),
        ).to(memory_format=torch.channels_last)
        self.num_features = 3 * num_keypoints
        self.film = zero_linear(told, 2 * self.convolutions[-1].in_channels) if told else None

    def forward(
        self, frames: UInt8[Tensor, "n H W 3"], told: Float[Tensor, "n q"] | None = None
    ) -> Float[Tensor, "n k"]:
        """Coordinates in [-1, 1] and maxima of every map."""
        pictures = rearrange(frames, "n h w c -> n c h w").float() / 127.5 - 1
        if self.film is None:
            maps = self.convolutions(pictures).float()
        else:
            scale, shift = rearrange(self.film(told), "n (two c) -> two n c 1 1", two=2)
            seen = self.convolutions[:-1](pictures)
            maps = self.convolutions[-1](seen * (1 + scale) + shift).float()
        weights = maps.flatten(2).softmax(-1).view(maps.shape)
        return torch.cat([*expected_places(weights), maps.flatten(2).amax(-1).tanh()], dim=-1)
