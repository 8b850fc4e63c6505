"""Gates between kinds of rewards: one counts only for candidates that are good in the other (G-RA).

`R = R_main + [R_main >= median R_main] R_other`. A candidate that erases the robot cannot earn by smooth motion, and
one whose actions cannot be decoded cannot earn by its likeness to the recording.
"""

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from rl_posttrain.rewards.advantages import of_candidates

Gate = Literal["none", "actions", "fidelity", "both"]
"""The kind of rewards that are gated."""
ACTIONS = ("agreement", "executability")
"""Rewards of decoded actions; `agreement` opens the gates of the others."""
FIDELITY = ("fidelity", "moving_area", "on_track")
"""Rewards of likeness to the recording; `fidelity` opens the gates of the others."""


def gates(terms: Mapping[str, Float[Tensor, "b k *map"]], gate: Gate) -> dict[str, Float[Tensor, "b k"]]:
    """For each gated reward 1 where its gate is open and 0 where it is closed.

    Args:
        terms: All rewards; `fidelity` and `agreement` among them unless the gate is `none`.
        gate: The kind of rewards that are gated.
    """
    found = {}
    if gate in ("actions", "both"):
        found |= dict.fromkeys(ACTIONS, at_least_median(terms["fidelity"]))
    if gate in ("fidelity", "both"):
        found |= dict.fromkeys(FIDELITY, at_least_median(terms["agreement"]))
    return found


def at_least_median(values: Float[Tensor, "b k *map"]) -> Float[Tensor, "b k"]:
    """1 for candidates that are at least as good as the median of their group, else 0; of a map its mean decides."""
    mean = of_candidates(values)
    return (mean >= mean.quantile(0.5, dim=1, keepdim=True)).float()
