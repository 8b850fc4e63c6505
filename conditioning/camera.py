"""Embedding of the camera that a token belongs to, and of the token's position in the picture."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CameraEmbedding(nn.Module):
    """Learned embedding of view and of grid position; all views share the position embedding."""

    def __init__(self, num_views: int, grid: tuple[int, int], width: int):
        super().__init__()
        self.view = nn.Parameter(0.02 * torch.randn(num_views, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], width))

    def forward(self) -> Float[Tensor, "n d"]:
        """Embedding of every token of a frame, views outermost."""
        return (self.view + self.position).flatten(0, 1)
