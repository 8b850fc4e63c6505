"""Controlled shifts: what the environments have in common.

As in ACWM-Phys (2605.08567), a split differs from the training data in one respect only, so that a loss of fidelity has
one cause.
"""

from collections.abc import Sequence

NOISE = 2.0
"""The noise of `action-noise`, as a multiple of the noisy expert's."""


def check_shift(name: str, shift: str, known: Sequence[str]) -> None:
    """Raise a `ValueError` if `shift` is not among those `known` for the environment `name`.

    Empty means none and is always fine.
    """
    if shift and shift not in known:
        raise ValueError(f"{name} has no shift {shift!r}; known are {', '.join(known)}")
