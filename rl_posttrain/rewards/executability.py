"""Whether a robot could carry out what a video shows (EVA, 2603.17808)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import huber_loss

from policy_eval.judge.inverse_dynamics import InverseDynamics, mean_where
from rl_posttrain.rewards.agreement import visible_in
from rl_posttrain.rewards.reward import Rollout

PERCENTILE = 0.99
"""Share of real motion that lies within the limits."""


def motion(
    actions: Float[Tensor, "b t a"], *, displacement: bool
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """Velocity, acceleration and jerk, per control step.

    EVA takes actions for positions: their differences are velocities. A displacement action is a
    velocity itself, so its differences are accelerations.
    """
    velocity = actions if displacement else actions.diff(dim=1)
    acceleration = velocity.diff(dim=1)
    return velocity, acceleration, acceleration.diff(dim=1)


def shortest(displacement: bool) -> int:
    """Least number of actions that have a jerk."""
    return 3 if displacement else 4


@dataclass(frozen=True)
class Limits:
    """The limits of real motion, per action dim; measured on actions decoded from real video.

    Attributes:
        velocity, acceleration: 99th percentile of the absolute values.
        low, high: 1st and 99th percentile of the actions.
        acceleration_scale, jerk_scale: Standard deviations.
        displacement: Whether the actions are displacements.
    """

    velocity: Float[Tensor, "a"]
    acceleration: Float[Tensor, "a"]
    low: Float[Tensor, "a"]
    high: Float[Tensor, "a"]
    acceleration_scale: Float[Tensor, "a"]
    jerk_scale: Float[Tensor, "a"]
    displacement: bool

    @classmethod
    def of(cls, decoded: Sequence[Float[Tensor, "_ a"]], *, displacement: bool) -> "Limits":
        """Limits of decoded episodes; NaN where an action is not visible, and for a dim that never is."""
        parts = [motion(rows[None], displacement=displacement) for rows in decoded]
        velocity, acceleration, jerk = (torch.cat([part[i][0] for part in parts]) for i in range(3))
        actions = torch.cat(list(decoded))
        return cls(
            velocity=velocity.abs().nanquantile(PERCENTILE, dim=0).clamp_min(1e-6),
            acceleration=acceleration.abs().nanquantile(PERCENTILE, dim=0).clamp_min(1e-6),
            low=actions.nanquantile(1 - PERCENTILE, dim=0),
            high=actions.nanquantile(PERCENTILE, dim=0),
            acceleration_scale=_deviation(acceleration),
            jerk_scale=_deviation(jerk),
            displacement=displacement,
        )


def _deviation(values: Float[Tensor, "n a"]) -> Float[Tensor, "a"]:
    """Standard deviation without the NaN."""
    return (values - values.nanmean(0)).square().nanmean(0).sqrt().clamp_min(1e-6)


def seen_motion(
    seen: Bool[Tensor, "b t a"], *, displacement: bool
) -> tuple[Bool[Tensor, "b ..."], Bool[Tensor, "b ..."], Bool[Tensor, "b ..."]]:
    """Where velocity, acceleration and jerk are of actions that are all seen."""
    velocity = seen if displacement else seen[:, 1:] & seen[:, :-1]
    acceleration = velocity[:, 1:] & velocity[:, :-1]
    return velocity, acceleration, acceleration[:, 1:] & acceleration[:, :-1]


def violations(
    actions: Float[Tensor, "b t a"], limits: Limits, seen: Bool[Tensor, "b t a"] | None = None
) -> Float[Tensor, "b"]:
    """Mean square excess over the limits of velocity, acceleration and action, in their units.

    Args:
        actions: Decoded actions.
        limits: Limits of real motion.
        seen: Where the actions count; everywhere by default.
    """
    seen = torch.ones_like(actions, dtype=torch.bool) if seen is None else seen
    velocity, acceleration, _ = motion(actions, displacement=limits.displacement)
    masks = (*seen_motion(seen, displacement=limits.displacement)[:2], seen)
    span = (limits.high - limits.low).clamp_min(1e-6) / 2
    beyond = (actions - limits.high).clamp(min=0) + (limits.low - actions).clamp(min=0)
    excess = [
        (velocity.abs() / limits.velocity - 1).clamp(min=0),
        (acceleration.abs() / limits.acceleration - 1).clamp(min=0),
        beyond / span,
    ]
    return sum(_mean(part.square(), mask) for part, mask in zip(excess, masks, strict=True))


def penalty(
    actions: Float[Tensor, "b t a"], limits: Limits, seen: Bool[Tensor, "b t a"] | None = None
) -> Float[Tensor, "b"]:
    """`P`: mean Huber of jerk and acceleration in their standard deviations, plus `violations`.

    EVA does not publish its weights and Huber widths: here all are 1, in units that real motion
    sets per dim.

    Args:
        actions: Decoded actions.
        limits: Limits of real motion.
        seen: Where the actions count; everywhere by default.
    """
    seen = torch.ones_like(actions, dtype=torch.bool) if seen is None else seen
    _, acceleration, jerk = motion(actions, displacement=limits.displacement)
    masks = seen_motion(seen, displacement=limits.displacement)[1:]
    smooth = (acceleration / limits.acceleration_scale, jerk / limits.jerk_scale)
    hubers = (huber_loss(x, torch.zeros_like(x), reduction="none") for x in smooth)
    smoothness = sum(_mean(x, mask) for x, mask in zip(hubers, masks, strict=True))
    return smoothness + violations(actions, limits, seen)


def _mean(values: Float[Tensor, "b ..."], seen: Bool[Tensor, "b ..."]) -> Float[Tensor, "b"]:
    """Mean where seen; 0 for a row that shows nothing."""
    return mean_where(values, seen).nan_to_num()


@dataclass(frozen=True)
class Executability:
    """`(1 + P / P0)^-gamma` of the decoded actions (EVA, equation 9), in (0, 1].

    Attributes:
        dynamics: Decodes the frames.
        limits: Limits of real motion.
        typical: `P0`, the median penalty of the base model's rollouts, above 0.
        gamma: Steepness.
    """

    dynamics: InverseDynamics
    limits: Limits
    typical: float
    gamma: float = 1.0

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """Scores; 1 is smooth and within the limits, or shows nothing of the actions."""
        return (1 + self.excess(rollout) / self.typical) ** -self.gamma

    def excess(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """`P`, of the actions that the recording shows."""
        return penalty(self.dynamics.decode(rollout.imagined), self.limits, visible_in(rollout, self.dynamics))
