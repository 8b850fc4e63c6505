"""The plain difference in pixels to pictures of the goal, as a baseline."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass
class NearestPicture:
    """How alike a frame and the nearest goal are, pixel by pixel.

    It needs no training. Reports show it as the baseline beside a trained judge; it is no judge for use, since it
    hardly notices a small object.

    Args:
        goals: Pictures of success.
        threshold: Score above which a frame is called a success.
    """

    goals: UInt8[Tensor, "g v H W 3"]
    threshold: float = -0.05

    def score(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n"]:
        """Minus the root mean square difference to the nearest goal in grey levels over 255, -1 to 0."""
        pictures, goals = (each.flatten(1).float() / 255 for each in (frames, self.goals))
        return -(torch.cdist(pictures, goals.to(pictures.device)) / pictures.shape[1] ** 0.5).amin(1)
