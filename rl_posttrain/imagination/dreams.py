"""The dreams of a run: what does not change, where they begin, and what is measured in them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conditioning.trees import tree_map
from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.learner import Learner, imagined_return
from rl_posttrain.imagination.rollouts import Imagined, imagine_rollouts
from rl_posttrain.rewards.extra import Weighted
from worldmodel.data import EpisodeSource
from worldmodel.dreams.anchors import Anchors, contexts
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import World
from worldmodel.fidelity.uncertainty.calibration import STARTS, Calibration, calibrate
from worldmodel.files import read_object, write_json
from worldmodel.streaming.noise import mix_seed
from worldmodel.training.share import Share, collected, share
from worldmodel.training.statistics import action_state_statistics
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Setting:
    """All that does not change in a run.

    Attributes:
        world: The world model.
        judge: Gives the rewards.
        source: The recorded episodes.
        train: Frames that dreams start from.
        held_out: Frames that the measuring dreams start from.
        fresh: Frames by which nothing is chosen, for the comparison with the clone at the end.
        bounds: Lowest and highest action of the recorded episodes.
        trust_scale: See `learn_from`.
        reward_scale: Factor of the judge's reward that makes its range as wide as a success's.
        extra: Rewards of every action beside the judge's, by name.
    """

    world: World
    judge: Judge
    source: EpisodeSource
    train: Anchors
    held_out: Anchors
    fresh: Anchors
    bounds: tuple[Float[Tensor, "a"], Float[Tensor, "a"]]
    trust_scale: float | None = None
    reward_scale: float = 1.0
    extra: Weighted = field(default_factory=dict)


def check_fit(world: WorldModel, policy: ClonedPolicy, source: EpisodeSource, method: str) -> None:
    """Raise a `ValueError` with both values when the parts do not belong together."""
    views, size = tuple(world.views), tuple(world.size)
    shown = policy.config
    for name, mine, theirs in (
        (f"views of {source.name}", tuple(source.views), views),
        ("frames of the policy", shown.size, size),
        (f"action dims of {source.name}", source.action_dim, world.action_dim),
        ("action dims of the policy", shown.action_dim, world.action_dim),
        (f"state dims of {source.name}", source.state_dim, world.state_dim),
    ):
        if mine != theirs:
            raise ValueError(f"{name}: {mine}, expected {theirs}")
    if method == "actor-critic" and shown.head != "regression":
        raise ValueError(f"--method actor-critic improves policies with the head regression, got {shown.head}: distil")
    if not set(shown.views) <= set(views):
        raise ValueError(f"the policy sees {shown.views}, the world model {views}")
    if shown.state_dim not in (0, world.state_dim):
        raise ValueError(f"the policy knows {shown.state_dim} state dims, the world model {world.state_dim}")


def prepare(config: ImagineConfig, world: World, judge: Judge, source: EpisodeSource) -> Setting:
    """Split the starts and read the range of the actions.

    Raises:
        ValueError: Too few episodes for the split.
    """
    number = max(round(config.held_out * len(source)), 1)
    spare = number if config.confirm else 0
    ends = len(source) - number - spare, len(source) - number, len(source)
    if ends[0] < 1:
        parts = ", once to measure and once to compare with the clone," if spare else ""
        raise ValueError(
            f"{source.name}: {len(source)} episodes and held_out {config.held_out}{parts} leave none to start from"
        )
    compared = range(ends[0], ends[1]) if spare else range(ends[1], ends[2])
    train, fresh, held_out = (
        Anchors.of(source, part, context=config.context, first_frames=config.first_frames, stride=world.stride)
        for part in (range(ends[0]), compared, range(ends[1], ends[2]))
    )
    chosen = np.random.default_rng([config.seed, 1])
    count = min(config.validation_starts, len(held_out))
    index = np.sort(chosen.choice(len(held_out), count, replace=False))
    actions = action_state_statistics(source).action
    again = np.arange(config.confirm) % len(fresh)
    return Setting(world, judge, source, train, held_out.pick(index), fresh.pick(again), (actions.low, actions.high))


def check_disagreement(config: ImagineConfig, setting: Setting) -> Calibration | None:
    """Whether noise seeds disagree where the world model is wrong about recorded actions.

    It is measured once and kept in `calibration.json` for a resumed run. `None` without `trust` and for a
    planner, whose plans share their noise.
    """
    if not config.trust or config.noise_seeds == 1 or config.method == "distil":
        return None
    file = config.out / "calibration.json"
    if config.resume and file.is_file():
        return Calibration(**read_object(file))
    rng = np.random.default_rng([config.seed, 2])
    number = min(4 * STARTS, len(setting.train))
    picked = setting.train.pick(rng.choice(len(setting.train), number, replace=False))
    found = calibrate(
        setting.world,
        setting.judge,
        setting.source,
        picked,
        horizon=min(config.horizon, 15),
        context=config.context,
        noise_seeds=config.noise_seeds,
        seed=config.seed,
        num_steps=config.num_steps,
    )
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(file, found.to_json())
    return found


def measure(config: ImagineConfig, setting: Setting, learner: Learner) -> tuple[Float[Tensor, "n"], float]:
    """Imagined return of every held-out start, and the share solved, without exploration."""
    returns, imagined = measured_dreams(config, setting, learner)
    return returns, float(imagined.solved.float().mean())


def measured_dreams(
    config: ImagineConfig, setting: Setting, learner: Learner, own: Share | None = None
) -> tuple[Float[Tensor, "n"], Imagined]:
    """Dream from every held-out start without exploration; returns the imagined returns and the dreams.

    The return is the undiscounted sum of successes, gained potential and extra rewards, so it needs no critic.
    """
    imagined = dream(
        config,
        setting,
        learner,
        setting.held_out,
        horizon=config.validation_horizon,
        seed=0,
        noise_seeds=1,
        explore=False,
        own=own,
    )
    gained = config.learn.shaping * (imagined.potentials[:, 1:] - imagined.potentials[:, :-1])
    returns = imagined_return(gained + imagined.successes + imagined.extra, imagined.running, 1.0)
    return returns.cpu(), imagined


def better(returns: Float[Tensor, "n"], best: Float[Tensor, "n"]) -> bool:
    """Whether the mean gain over the same starts is above its standard error.

    Otherwise the luckiest of many equal actors would be kept.
    """
    gain = returns - best
    return float(gain.mean()) > float(gain.std(correction=0)) / max(len(gain) - 1, 1) ** 0.5


def harmed(returns: Float[Tensor, "n"], clone: Float[Tensor, "n"]) -> bool:
    """Whether the mean return is below that of the clone by more than two standard errors of the difference."""
    gain = returns - clone
    return float(gain.mean()) < -2 * float(gain.std(correction=0)) / max(len(gain) - 1, 1) ** 0.5


@dataclass(frozen=True)
class Standing:
    """How a run stands: what was measured of the clone and of the best actor.

    Both measurements hold `step`, `return`, `solved` and the `returns` of all held-out starts.

    Attributes:
        first: The measurement of the clone; empty before it.
        best: That of the best actor.
        since_best: Number of measurements since then.
        harm: Whether the actor measured last is surely worse than the clone.
    """

    first: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    since_best: int = 0
    harm: bool = False

    def after(self, measured: Mapping[str, float | int], returns: Float[Tensor, "n"]) -> "Standing":
        """The standing after one more measurement; `since_best` is 0 if that is the best one."""
        noted = {**measured, "returns": returns.tolist()}
        first = self.first or noted
        harm = harmed(returns, torch.tensor(first["returns"]))
        if not self.best or better(returns, torch.tensor(self.best["returns"])):
            return Standing(first, noted, 0, harm)
        return Standing(first, self.best, self.since_best + 1, harm)

    def gives_up(self, patience: int) -> bool:
        """Whether the run ends early: `patience` measurements brought nothing better, or the last one shows harm."""
        return self.since_best >= patience or self.harm

    def report(self, patience: int) -> dict[str, Any]:
        """What a run's report says of it."""
        return {"first": self.first, "best": self.best, "stopped_early": self.gives_up(patience), "harm": self.harm}

    def to_json(self) -> dict[str, Any]:
        """For the saved state; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, progress: Mapping[str, Any], out: Path) -> "Standing":
        """The standing that the state of the run in `out` holds.

        Raises:
            ValueError: A release before this one wrote the state.
        """
        if "standing" not in progress:
            raise ValueError(
                f"{out / 'state/state.json'}: the field 'standing' is missing; an older release began this run"
            )
        return cls(**progress["standing"])


def dream(
    config: ImagineConfig,
    setting: Setting,
    learner: Learner,
    anchors: Anchors,
    *,
    horizon: int,
    seed: int,
    noise_seeds: int | None = None,
    explore: bool = True,
    own: Share | None = None,
) -> Imagined:
    """Rollouts of the actor from real frames.

    Several processes share the starts, and each gets the rollouts of all; `own=Share()` dreams all in this one.
    """
    own = share() if own is None else own
    rows, total = own.padded_rows(len(anchors)), len(anchors)
    repeats = config.noise_seeds if noise_seeds is None else noise_seeds
    imagined = imagine_rollouts(
        setting.world,
        setting.judge,
        learner.actor,
        learner.prior,
        contexts(setting.source, anchors.pick(np.array(rows)), context=config.context, stride=setting.world.stride),
        horizon=horizon,
        bounds=setting.bounds,
        seed=mix_seed(config.seed, seed),
        noise_seeds=repeats,
        explore=explore,
        persistence=config.persistence,
        num_steps=config.num_steps,
        vary=config.learn.objective == "imitation",
        rewards=setting.extra,
        rows=rows,
        total=total,
    )
    if own.number > 1:
        imagined = tree_map(lambda each: collected(each, total, repeats), imagined)
    return replace(imagined, potentials=setting.reward_scale * imagined.potentials)
