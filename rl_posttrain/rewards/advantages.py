"""Advantages within a group of candidates (GRPO)."""

from jaxtyping import Float
from torch import Tensor


def group_advantages(rewards: Float[Tensor, "b k"], eps: float = 1e-4) -> Float[Tensor, "b k"]:
    """`A = (R - mean) / (std + eps)`, both over the group (PersistWorld).

    The standard deviation is that of the group as a whole, so a group of equal rewards gives 0.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, correction=0, keepdim=True) + eps)
