"""Whether a robot could carry out what a video shows (EVA, 2603.17808)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import huber_loss

from policy_eval.judge.inverse_dynamics import InverseDynamics
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
        """Limits of decoded episodes."""
        parts = [motion(rows[None], displacement=displacement) for rows in decoded]
        velocity, acceleration, jerk = (torch.cat([part[i][0] for part in parts]) for i in range(3))
        actions = torch.cat(list(decoded))
        return cls(
            velocity=velocity.abs().quantile(PERCENTILE, dim=0).clamp_min(1e-6),
            acceleration=acceleration.abs().quantile(PERCENTILE, dim=0).clamp_min(1e-6),
            low=actions.quantile(1 - PERCENTILE, dim=0),
            high=actions.quantile(PERCENTILE, dim=0),
            acceleration_scale=acceleration.std(0, correction=0).clamp_min(1e-6),
            jerk_scale=jerk.std(0, correction=0).clamp_min(1e-6),
            displacement=displacement,
        )


def violations(actions: Float[Tensor, "b t a"], limits: Limits) -> Float[Tensor, "b"]:
    """Mean square excess over the limits of velocity, acceleration and action, in their units."""
    velocity, acceleration, _ = motion(actions, displacement=limits.displacement)
    span = (limits.high - limits.low).clamp_min(1e-6) / 2
    beyond = (actions - limits.high).clamp(min=0) + (limits.low - actions).clamp(min=0)
    excess = [
        (velocity.abs() / limits.velocity - 1).clamp(min=0),
        (acceleration.abs() / limits.acceleration - 1).clamp(min=0),
        beyond / span,
    ]
    return sum(part.square().mean(dim=(1, 2)) for part in excess)


def penalty(actions: Float[Tensor, "b t a"], limits: Limits) -> Float[Tensor, "b"]:
    """`P`: mean Huber of jerk and acceleration in their standard deviations, plus `violations`.

    EVA does not publish its weights and Huber widths: here all are 1, in units that real motion
    sets per dim.
    """
    _, acceleration, jerk = motion(actions, displacement=limits.displacement)
    smooth = (acceleration / limits.acceleration_scale, jerk / limits.jerk_scale)
    hubers = (huber_loss(x, torch.zeros_like(x), reduction="none") for x in smooth)
    return sum(x.mean(dim=(1, 2)) for x in hubers) + violations(actions, limits)


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
        """Scores; 1 is smooth and within the limits."""
        excess = penalty(self.dynamics.decode(rollout.imagined), self.limits) / self.typical
        return (1 + excess) ** -self.gamma
