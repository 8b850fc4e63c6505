"""Objects that vanish from the frames that a prediction starts from, so that the network learns to draw them again."""

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor


def erased_patches(latent: tuple[int, ...], share: float, generator: torch.Generator) -> Bool[Tensor, "b t v 1 h w"]:
    """Draw a rectangle for a share of the clips' cameras, from some frame after the first to the last.

    Where a dream has lost an object, the frames that it reads show the background instead. The
    network can learn to draw the object again, from the state and older frames, only if this happens
    in training. The sides are an eighth to a half of the picture's.
    """
    batch, frames, views, _, *sides = latent
    cameras = (batch, views)
    chosen = torch.rand(*cameras, generator=generator) < share
    begin = torch.rand(*cameras, generator=generator) * (frames - 1)
    erased = chosen[:, None] & (torch.arange(frames)[:, None] > begin[:, None])
    inside = []
    for side in sides:
        width = 0.125 + 0.375 * torch.rand(*cameras, generator=generator)
        low = torch.rand(*cameras, generator=generator) * (1 - width)
        place = (torch.arange(side) + 0.5) / side - low[..., None]
        inside.append((place >= 0) & (place < width[..., None]))
    patch = rearrange(inside[0], "b v h -> b 1 v 1 h 1") & rearrange(inside[1], "b v w -> b 1 v 1 1 w")
    return rearrange(erased, "b t v -> b t v 1 1 1") & patch
