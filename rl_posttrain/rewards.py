"""Rewards of imagined rollouts: each a callable from a `Rollout` to one number per candidate.

Fidelity to the recording on every camera (PersistWorld, 2603.25685), actions that a robot could
execute (EVA, 2603.17808) and that are the commanded ones, the state, and the energy of motion.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import huber_loss

from policy_eval.judge.inverse_dynamics import InverseDynamics
from rl_posttrain.branches import Rollout
from rl_posttrain.losses import group_advantages
from worldmodel.data.clip import Clip
from worldmodel.fidelity.metrics import MSE_FLOOR, Lpips, change_mask, psnr, ssim, valid_region

Reward = Callable[[Rollout], Float[Tensor, "b"]]

PERCENTILE = 0.99
"""Share of real motion that lies within the limits."""


@dataclass(frozen=True)
class Fidelity:
    """`-LPIPS + SSIM + PSNR / 32`, the mean over frames, then over the cameras that are there.

    PersistWorld's reward. Without LPIPS weights it is SSIM + PSNR / 32.

    Attributes:
        lpips: The network, or `None`.
    """

    lpips: Lpips | None = None

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """Scores, higher is better; about 1 at 25 dB."""
        frames, truth = rollout.imagined.frames[:, 1:], rollout.reference.frames[:, 1:]
        mask, scores = rollout.reference.pixel_mask, []
        for view in range(frames.shape[2]):
            rows, columns = (slice(None),) * 2 if mask is None else valid_region(mask[0, view])
            pair = [x[:, :, view, rows, columns] for x in (frames, truth)]
            score = ssim(*pair) + psnr(*pair) / 32
            if self.lpips is not None:
                score = score - self.lpips(*pair)
            scores.append(score.mean(dim=1))
        return mean_over_views(torch.stack(scores, dim=1), rollout.reference)


def mean_over_views(values: Float[Tensor, "b v"], clip: Clip) -> Float[Tensor, "b"]:
    """The mean over the cameras that are there."""
    if clip.view_mask is None:
        return values.mean(dim=1)
    return (values * clip.view_mask).sum(dim=1) / clip.view_mask.sum(dim=1).clamp(min=1)


def moving_fidelity(rollout: Rollout) -> Float[Tensor, "b"]:
    """PSNR where something moves, in dB, the mean over the cameras that are there.

    What counts is the `change_mask` of recording and dream against the recorded frame at which the
    dream begins, so a small object weighs as much as a large background. The squared error in it,
    over all frames, is divided by the area that changes in the recording alone: a masked PSNR would
    rise with every faint change that a dream invents, because they dilute the other errors. 50 dB
    where nothing changes.
    """
    frames, truth = rollout.imagined.frames[:, 1:], rollout.reference.frames[:, 1:]
    start, padding = rollout.reference.frames[:, :1].expand_as(truth), rollout.reference.pixel_mask
    moving, counted = (change_mask(truth, x, start) for x in ({}, {"dream": frames}))
    if padding is not None:
        counted = counted & padding[:, None]
    error = ((frames.float() - truth.float()) / 255).square().mean(dim=-1) * counted
    area = moving.sum(dim=(1, 3, 4)).clamp(min=1)
    decibel = -10 * (error.sum(dim=(1, 3, 4)) / area).clamp_min(MSE_FLOOR).log10()
    return mean_over_views(decibel, rollout.reference)


@dataclass(frozen=True)
class StateAgreement:
    """Minus the mean square error of the predicted states, in units of `scale`.

    Attributes:
        scale: What counts as 1 in every dim, e.g. the usual displacement between two frames.
    """

    scale: Float[Tensor, "s"]

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """Scores, 0 is best."""
        error = (rollout.imagined.states - rollout.reference.states)[:, 1:] / self.scale
        return -error.square().mean(dim=(1, 2))


def motion_energy(frames: UInt8[Tensor, "b t v H W 3"]) -> Float[Tensor, "b"]:
    """Mean absolute change between consecutive frames, on [0, 255]."""
    return frames.float().diff(dim=1).abs().mean(dim=(1, 2, 3, 4, 5))


def motion_agreement(rollout: Rollout, floor: float = 0.1) -> Float[Tensor, "b"]:
    """`-|log((energy + floor) / (recorded energy + floor))|`: 0 where as much moves as it should.

    A video that stands still to avoid errors is punished, and so is one that flickers.
    """
    energies = [motion_energy(c.frames) + floor for c in (rollout.imagined, rollout.reference)]
    return -(energies[0] / energies[1]).log().abs()


# Inverse dynamics


def motion(
    actions: Float[Tensor, "b t a"], *, displacement: bool
) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."], Float[Tensor, "b ..."]]:
    """Velocity, acceleration and jerk, per control step.

    EVA takes actions for positions: their differences are velocities. A displacement action is a
    velocity itself, so everything moves one order up.
    """
    velocity = actions if displacement else actions.diff(dim=1)
    acceleration = velocity.diff(dim=1)
    return velocity, acceleration, acceleration.diff(dim=1)


def shortest(displacement: bool) -> int:
    """Least number of actions that have a jerk."""
    return 3 if displacement else 4


@dataclass(frozen=True)
class Limits:
    """What real motion stays within, per action dim; from actions decoded from real video.

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
    """`P`: mean Huber of jerk and acceleration in their deviations, plus `violations`.

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
        limits: Of real motion.
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


@dataclass(frozen=True)
class Agreement:
    """Minus the mean square distance of decoded and commanded actions, in their deviations.

    A motionless video, which is smooth and within all limits, decodes to other actions than those
    commanded. Relative targets count from the imagined state.

    Attributes:
        dynamics: Decodes the frames.
    """

    dynamics: InverseDynamics

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """Scores, 0 is best."""
        return -self.dynamics.errors(rollout.imagined).square().mean(dim=(1, 2))


# Together


def weighted_sum(terms: Mapping[str, Float[Tensor, "b k"]], weights: Mapping[str, float]) -> Float[Tensor, "b k"]:
    """Standardise every term within each group, then add them up by weight.

    So a term counts by how it ranks the candidates of a group, not by its scale.
    """
    return sum(weights[name] * group_advantages(term) for name, term in terms.items())
