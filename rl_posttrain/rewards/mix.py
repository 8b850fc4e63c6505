"""Which rewards a run uses, and their weighted sum."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from policy_eval.judge.inverse_dynamics import InverseDynamics
from rl_posttrain.rewards.advantages import group_advantages
from rl_posttrain.rewards.agreement import Agreement, StateAgreement, motion_agreement
from rl_posttrain.rewards.credit import Credit, Credited, Values, credited
from rl_posttrain.rewards.executability import Executability, Limits, shortest
from rl_posttrain.rewards.extra import ExtraRewards, Weighted
from rl_posttrain.rewards.fidelity import Fidelity, moving_fidelity
from rl_posttrain.rewards.gates import Gate, gates
from rl_posttrain.rewards.on_track import OnTrack
from rl_posttrain.rewards.outcome import OutcomeAgreement, check_outcomes
from rl_posttrain.rewards.reward import Reward, Rollout
from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.dreams.verdict import Judge
from worldmodel.fidelity.metrics import LPIPS_MIN_SIDE, Lpips
from worldmodel.world_model import WorldModel

LIMIT_EPISODES = 32
"""Recorded episodes whose decoded actions set the limits."""


@dataclass(frozen=True)
class RewardWeights(ExtraRewards):
    """How much each reward counts, in units of its spread within a group."""

    fidelity: float = 1.0
    """Similarity to the recording on every camera."""
    agreement: float = 1.0
    """Agreement of decoded and commanded actions; needs --inverse-dynamics."""
    executability: float = 0.5
    """Whether a robot could execute the decoded actions; needs --inverse-dynamics."""
    state: float = 0.0
    """Agreement of predicted and recorded states; with 0 it is measured but not rewarded."""
    motion: float = 0.0
    """Agreement of the amount of motion with the recording."""
    moving_area: float = 0.0
    """Similarity to the recording where something moves; small objects count as much as large ones."""
    on_track: float = 0.0
    """Similarity to the recording that counts only while the dream's objects, or its state where there are none to be
    found, are near the recorded ones."""
    outcome: float = 1.0
    """Agreement of the judge's verdict on each dreamed frame with the recorded success; needs --judge."""
    gate: Gate = "none"
    """Which rewards count only for candidates that are at least as good as the median of their group in the other kind
    (G-RA). actions: agreement and executability, by fidelity. fidelity: fidelity, moving-area and on-track, by
    agreement. both: each by the other."""


KNOWN = tuple(field.name for field in fields(RewardWeights) if field.name not in ("extra", "gate"))
"""Names of the rewards of this package."""
FLOOR = 0.5
"""Floor of the advantages of a map, see `group_advantages`."""


@dataclass(frozen=True)
class RewardMix:
    """Rewards by name, their weights, and the inverse dynamics behind them.

    Attributes:
        rewards: The rewards to compute; fidelity is always one of them.
        weights: Any number for each; rewards with 0 are measured only.
        dynamics: `None` without inverse dynamics.
        credit: How finely candidates are compared.
        grid: Cells of a frame, rows and columns, for the credit `cell`.
        gate: Which rewards count only for candidates that are good in the other kind.
    """

    rewards: Mapping[str, Reward]
    weights: Mapping[str, float]
    dynamics: InverseDynamics | None
    credit: Credit = "clip"
    grid: tuple[int, int] = (1, 1)
    gate: Gate = "none"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rewards whose weight is not 0."""
        return tuple(name for name, weight in self.weights.items() if weight)

    def terms(self, rollout: Rollout) -> dict[str, Credited]:
        """Every reward of every candidate, as fine as the credit.

        Raises:
            ValueError: A map does not fit the grid; the message names the reward.
        """
        return {name: self._credited(name, reward(rollout), rollout.reference) for name, reward in self.rewards.items()}

    def _credited(self, name: str, values: Values, clip: Clip) -> Credited:
        try:
            return credited(values, clip, self.credit, self.grid)
        except ValueError as error:
            raise ValueError(f"reward {name}: {error}") from error

    def total(self, terms: Mapping[str, Float[Tensor, "b k *map"]]) -> Float[Tensor, "b k *_"]:
        """The weighted sum of the standardised terms, each where its gate is open."""
        chosen = {name: terms[name] for name in self.names}
        floor = FLOOR if self.credit == "cell" else 0.0
        return weighted_sum(chosen, self.weights, gates(terms, self.gate), floor=floor)

    def calibrated(self, rollout: Rollout) -> "RewardMix":
        """A copy in which `P0` of executability is the median penalty of `rollout`, one of the base model."""
        known = self.rewards.get("executability")
        if known is None:
            return self
        typical = float(known.excess(rollout).median().clamp_min(1e-6))
        rewards = {**self.rewards, "executability": replace(known, typical=typical)}
        return replace(self, rewards=rewards)


def build_rewards(
    weights: RewardWeights,
    world: WorldModel,
    source: EpisodeSource,
    train: range,
    inverse_dynamics: str | Path | None,
    *,
    branch: int,
    extra: Weighted | None = None,
    judge: Judge | None = None,
    credit: Credit = "clip",
    cell: int = 8,
) -> RewardMix:
    """The rewards of a run, without those whose inputs are missing.

    Args:
        weights: Weights of the rewards.
        world: The base model.
        source: Recorded episodes.
        train: Episodes from which the limits of real motion are taken.
        inverse_dynamics: Folder, or `None`.
        branch: Number of actions of a candidate.
        extra: More rewards, by name.
        judge: Its verdicts are to agree with the recorded successes; `None` for no such reward.
        credit: How finely candidates are compared.
        cell: Side of a cell in pixels, for the credit `cell`.

    Raises:
        ValueError: The inverse dynamics have other cameras, branches are too short, an extra reward has the
            name of another one, or data that a reward or a gate needs is not there.
    """
    chosen = compared_with_recording(weights, world, source, credit, cell)
    if judge is not None:
        check_outcomes(source)
        chosen["outcome"] = OutcomeAgreement(judge), weights.outcome
    dynamics = None
    if inverse_dynamics is not None:
        dynamics = InverseDynamics.load(inverse_dynamics, world.device)
        displacement = dynamics.config.displacement
        if weights.executability and branch < shortest(displacement):
            raise ValueError(
                f"branch={branch}: jerk takes at least {shortest(displacement)} actions; "
                "lengthen --branch or pass --reward.executability 0"
            )
        limits = real_limits(dynamics, source, train, world)
        chosen["agreement"] = Agreement(dynamics, credit), weights.agreement
        chosen["executability"] = Executability(dynamics, limits, typical=1.0), weights.executability
    for name, (reward, weight) in (extra or {}).items():
        if name in KNOWN:
            raise ValueError(f"a reward is called {name!r} already, the known ones are {', '.join(KNOWN)}")
        chosen[name] = reward, weight
    rewards, numbers = ({name: pair[i] for name, pair in chosen.items()} for i in (0, 1))
    if not any(numbers.values()):
        raise ValueError("all rewards have weight 0")
    if weights.gate != "none" and dynamics is None:
        raise ValueError(f"--reward.gate {weights.gate}: compares decoded actions, so it needs --inverse-dynamics")
    grid = (world.size[0] // cell, world.size[1] // cell) if credit == "cell" else (1, 1)
    return RewardMix(rewards, numbers, dynamics, credit, grid, weights.gate)


def compared_with_recording(
    weights: RewardWeights, world: WorldModel, source: EpisodeSource, credit: Credit, cell: int
) -> dict[str, tuple[Reward, float]]:
    """Fidelity, and the other rewards that need nothing but a recording, where their weight is not 0.

    Prints a line where LPIPS is missing. Arguments as in `build_rewards`.
    """
    reason = lpips_reason(world)
    if reason is not None:
        print(f"fidelity is rewarded by SSIM + PSNR / 32. {reason}")
    fidelity = Fidelity(None if reason else Lpips(world.device), credit, cell)
    chosen: dict[str, tuple[Reward, float]] = {"fidelity": (fidelity, weights.fidelity)}
    if weights.state and world.state_dim:
        scale = world.conditioner.displacement_scale.clone()
        chosen["state"] = StateAgreement(scale, world.conditioner.config.angles), weights.state
    if weights.motion:
        chosen["motion"] = motion_agreement, weights.motion
    if weights.moving_area:
        chosen["moving_area"] = moving_fidelity, weights.moving_area
    if weights.on_track:
        chosen["on_track"] = OnTrack.of(fidelity, world, source), weights.on_track
    return chosen


def real_limits(dynamics: InverseDynamics, source: EpisodeSource, train: range, world: WorldModel) -> Limits:
    """Limits of the actions decoded from recorded video, where they are visible."""
    decoded = []
    for episode in train[:LIMIT_EPISODES]:
        clip = source.read(episode, 0, source.lengths[episode], world.stride)
        clip = clip.map(lambda tensor: tensor[None]).to(world.device)
        reading = dynamics.read(clip)
        decoded.append(torch.where(reading.visible, reading.actions, torch.nan)[0])
    return Limits.of(decoded, displacement=dynamics.config.displacement)


def lpips_reason(world: WorldModel) -> str | None:
    """Why LPIPS cannot be a reward, or `None`."""
    if min(world.size) < LPIPS_MIN_SIDE:
        return f"LPIPS is left out: frames of {world.size} are smaller than {LPIPS_MIN_SIDE}"
    return Lpips.missing_reason()


def weighted_sum(
    terms: Mapping[str, Float[Tensor, "b k *map"]],
    weights: Mapping[str, float],
    opened: Mapping[str, Float[Tensor, "b k"]] | None = None,
    *,
    floor: float = 0.0,
) -> Float[Tensor, "b k *_"]:
    """Standardise every term within each group, then add them up by weight.

    So the scale of a term does not matter, only how it compares the candidates of a group.

    Args:
        terms: All of one number for each candidate, or all maps.
        weights: Of the terms.
        opened: For gated terms 1 where the gate is open and 0 where it is closed; there a candidate gets what the
            worst of its group gets.
        floor: Of the advantages, see `group_advantages`.
    """
    total = 0.0
    for name, term in terms.items():
        advantages = group_advantages(term, floor=floor)
        if opened and name in opened:
            lowest = advantages.amin(dim=1, keepdim=True)
            share = opened[name].reshape(*opened[name].shape, *[1] * (term.ndim - 2))
            advantages = lowest + share * (advantages - lowest)
        total = total + weights[name] * advantages
    return total
