"""Which camera, and which place in its picture, a token belongs to."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class CameraEmbedding(nn.Module):
    """Learned embedding of view and of grid position, shared positions across views."""

    def __init__(self, num_views: int, grid: tuple[int, int], width: int):
        super().__init__()
        self.view = nn.Parameter(0.02 * torch.randn(num_views, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, grid[0] * grid[1], width))

    def forward(self) -> Float[Tensor, "n d"]:
        """Embedding of every token of a frame, views outermost."""
        return (self.view + self.position).flatten(0, 1)
