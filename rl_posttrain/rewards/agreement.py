"""Rewards of agreement: of states, of actions decoded from the frames, of the energy of motion, of noise seeds."""

from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from conditioning.angles import Angles, shortest
from policy_eval.judge.inverse_dynamics import InverseDynamics
from rl_posttrain.rewards.credit import Credit, Values
from rl_posttrain.rewards.reward import Rollout


@dataclass(frozen=True)
class StateAgreement:
    """Minus the mean square error of the predicted states, in units of `scale`.

    Attributes:
        scale: What counts as 1 in every dim, e.g. the usual displacement between two frames.
        angles: State dims that are angles.
    """

    scale: Float[Tensor, "s"]
    angles: Angles = field(default_factory=dict)

    def __call__(self, rollout: Rollout) -> Float[Tensor, "b"]:
        """Scores, 0 is best."""
        difference = shortest(rollout.imagined.states - rollout.reference.states, self.angles)
        error = difference[:, 1:] / self.scale
        return -error.square().mean(dim=(1, 2))


def motion_energy(frames: UInt8[Tensor, "b t v H W 3"]) -> Float[Tensor, "b"]:
    """Mean absolute change between consecutive frames, on [0, 255]."""
    return frames.float().diff(dim=1).abs().mean(dim=(1, 2, 3, 4, 5))


def motion_agreement(rollout: Rollout, floor: float = 0.1) -> Float[Tensor, "b"]:
    """`-|log((energy + floor) / (recorded energy + floor))|`: 0 if as much moves as was recorded.

    A video that stands still to avoid errors is punished, and so is one that flickers.
    """
    energies = [motion_energy(c.frames) + floor for c in (rollout.imagined, rollout.reference)]
    return -(energies[0] / energies[1]).log().abs()


def seed_agreement(rollout: Rollout) -> Float[Tensor, "b"]:
    """`exp(-d)`: 1 if the dreams of a start under other noise agree; it needs no recording.

    `d` is the mean square distance of a candidate from the mean of its group, over pixels on [0, 1], times
    `k / (k - 1)` with `k` candidates. Its mean over the group is their unbiased variance, whose `exp(-v)` is the reward
    of Vista (2405.17398); there it compares actions, here it compares the candidates of one start. A group has the same
    first frame and the same actions; a candidate without others has 1. Whoever rewards it gets dreams that differ less,
    right or wrong: measure first whether disagreement predicts the error, with `worldmodel fidelity --uncertainty`.

    On the command line: `--reward.extra rl_posttrain.rewards.agreement:seed_agreement=0.5`.
    """
    clip = rollout.imagined
    dreamed = rearrange(clip.frames[:, 1:], "b t v h w c -> b (t v h w c)").float() / 255
    told = [clip.frames[:, 0].flatten(1).float()]
    told += [] if clip.actions is None else [clip.actions.flatten(1).float()]
    _, group, counts = torch.cat(told, dim=1).unique(dim=0, return_inverse=True, return_counts=True)
    means = torch.zeros(len(counts), dreamed.shape[1], device=dreamed.device).index_add(0, group, dreamed)
    apart = (dreamed - (means / counts[:, None])[group]).square().mean(dim=1)
    return (-apart * (counts / (counts - 1).clamp(min=1))[group]).exp()


@dataclass(frozen=True)
class Agreement:
    """Minus the mean square distance of decoded and commanded actions, in their standard deviations.

    A motionless video, which is smooth and within all limits, decodes to other actions than those
    commanded. Relative targets are relative to the imagined state. Only the moments and dims count
    which `visible_in` names, so that a dream gains nothing by losing the robot.

    Attributes:
        dynamics: Decodes the frames.
        credit: `clip` for one number; with any other one each frame has the score of the action that leads to it.
    """

    dynamics: InverseDynamics
    credit: Credit = "clip"

    def __call__(self, rollout: Rollout) -> Values:
        """Scores, 0 is best; 0 as well where nothing is visible."""
        seen = visible_in(rollout, self.dynamics)
        if self.credit == "clip":
            return -self.dynamics.disagreement(rollout.imagined, seen).nan_to_num()
        errors = torch.where(seen, self.dynamics.errors(rollout.imagined).square(), 0.0)
        return -(errors.sum(dim=2) / seen.sum(dim=2).clamp(min=1))[..., None, None, None]


def visible_in(rollout: Rollout, dynamics: InverseDynamics) -> Bool[Tensor, "b m a"]:
    """Where the recorded frames show the action; the imagined ones decide only where there is no recording."""
    return dynamics.visible(rollout.imagined if rollout.reference is None else rollout.reference)
