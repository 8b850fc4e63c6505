"""Where something is in a picture: expected coordinates of feature maps."""

import torch
from jaxtyping import Float
from torch import Tensor


def expected_places(weights: Float[Tensor, "n k h w"]) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Mean x and mean y, in [-1, 1], under weights that sum to 1 over every map.

    With a softmax over the places of a map it is the spatial softmax of Levine et al. 2016 (arXiv 1504.00702,
    section 5.1).
    """
    height, width = weights.shape[-2:]
    x = (weights.sum(-2) * torch.linspace(-1, 1, width, device=weights.device)).sum(-1)
    y = (weights.sum(-1) * torch.linspace(-1, 1, height, device=weights.device)).sum(-1)
    return x, y
