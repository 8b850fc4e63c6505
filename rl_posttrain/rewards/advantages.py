"""Advantages within a group of candidates (GRPO), of numbers or of maps."""

from jaxtyping import Float
from torch import Tensor


def group_advantages(
    rewards: Float[Tensor, "b k *map"], eps: float = 1e-4, floor: float = 0.0
) -> Float[Tensor, "b k *map"]:
    """`A = (R - mean) / (std + floor typical + eps)`, mean and std over the group (PersistWorld).

    The standard deviation is that of the group as a whole, so a group of equal rewards gives 0. Every element of a map
    is compared with the same element of the other candidates.

    Args:
        rewards: One number for each candidate, or a map over any axes.
        eps: Keeps the division from failing.
        floor: Share of the root mean square deviation over the map. Above 0 an element in which the candidates hardly
            differ, such as a still background, has a small advantage.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    typical = deviation.flatten(1).square().mean(dim=1).sqrt() if floor else deviation.new_zeros(len(rewards))
    return centred / (deviation + floor * typical.reshape(-1, *[1] * (rewards.ndim - 1)) + eps)


def scaled_advantages(totals: Float[Tensor, "b k *map"], eps: float = 1e-4) -> Float[Tensor, "b k *map"]:
    """Sums of advantages, brought to a root mean square of 1 over candidates and map.

    Of one number for each candidate it is what `group_advantages` gives. Of a map it keeps quiet elements quiet.
    """
    centred = totals - totals.mean(dim=1, keepdim=True)
    scale = centred.flatten(1).square().mean(dim=1).sqrt()
    return centred / (scale.reshape(-1, *[1] * (totals.ndim - 1)) + eps)


def of_candidates(values: Float[Tensor, "b k *map"]) -> Float[Tensor, "b k"]:
    """One number for each candidate: its own, or the mean of its map."""
    return values.flatten(2).mean(dim=2) if values.ndim > 2 else values
