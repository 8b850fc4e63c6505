"""How much of a post-training gradient is signal? Every reward, with credit by clip, frame, camera and cell.

    worldmodel inverse-dynamics --data data/pusht-position-play --world checkpoints/pusht --out runs/inverse
    python benchmarks/gradient_signal.py --data data/pusht-position-play --inverse-dynamics runs/inverse
        --judge checkpoints/judges/pusht-position

The gradient of a batch is the mean gradient (signal) plus what belongs to its starts and its noise. At the untouched
world model, `signal` is the share of the squared length that all batches have in common,
`mean_{i != j} g_i g_j / mean_i |g_i|^2`, so about `1 / signal` batches are needed before the mean gradient stands out
from the noise. `halves` is the cosine of the mean gradients of the odd and of the even batches, near 1 where a
direction is known. `with supervision` is the cosine of the mean gradient with that of the supervised self-rollout:
above 0 a reward also blurs. `within` and `between` are the standard deviations of the reward within a group of
candidates, and of the means of groups. All rows see the same candidates; nothing is trained.

Flow-GRPO has sixteen candidates of one frame, so that a batch has as many frames as the others. `inner pixels` leaves
out those that are black or white in the recording: noise that would leave the range is cut off there and costs nothing.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from policy_eval.judge.find import load_judge
from rl_posttrain.posttraining.branches import encode_branches
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import judge, next_batch
from rl_posttrain.posttraining.updates import (
    BranchBatch,
    DrawnFrames,
    RecordedBatch,
    Update,
    contrast,
    drawn_frames,
    predict_frames,
)
from rl_posttrain.rewards.agreement import Agreement
from rl_posttrain.rewards.credit import Credit, credited, numbers
from rl_posttrain.rewards.fidelity import Fidelity
from rl_posttrain.rewards.gates import Gate
from rl_posttrain.rewards.mix import RewardMix, RewardWeights, build_rewards
from rl_posttrain.rewards.on_track import OnTrack
from rl_posttrain.rewards.reward import Reward, Rollout
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import split_episodes
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.precision import autocast
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class SignalConfig:
    """Compare the gradients of post-training rewards and objectives."""

    data: Path
    """Recorded episodes."""
    world: Path = Path("checkpoints/pusht")
    """World model; its gradients are taken, it is not changed."""
    inverse_dynamics: Path | None = None
    """Folder that `worldmodel inverse-dynamics` wrote; without it the rewards of decoded actions have no rows."""
    judge: Path | None = None
    """Folder of a judge; without it the reward of outcomes has no row."""
    batches: int = 16
    """Batches of every row, at least 2."""
    rows: tuple[str, ...] = ()
    """Which rows; all when not given."""
    groups: int = 4
    """Starts of a batch."""
    prefix: int = 24
    """Most frames that are dreamed before the branches."""
    out: Path = Path("runs/benchmarks/gradient_signal.json")
    """Where the figures go."""


@dataclass(frozen=True)
class Row:
    """A contrast of rewards with one credit, or an objective without rewards.

    Attributes:
        weights: Of the rewards; none for another objective.
        credit: How finely the candidates are compared.
        cell: Side of a cell in pixels.
        objective: As in `worldmodel posttrain`.
        gate: Which rewards are gated.
        inner: Leave out pixels that are black or white in the recording.
    """

    weights: dict[str, float] = field(default_factory=dict)
    credit: Credit = "clip"
    cell: int = 8
    objective: str = "nft"
    gate: Gate = "none"
    inner: bool = False


SUPERVISED = "supervised self-rollout"
NOTHING = RewardMix({"fidelity": lambda rollout: torch.zeros(len(rollout.imagined.frames))}, {"fidelity": 1.0}, None)
"""No reward."""
CELLS = (32, 16, 8, 4)


def rows_of(config: SignalConfig) -> dict[str, Row]:
    """What is compared, by name."""
    found = {SUPERVISED: Row(objective="self-rollout")}
    found |= credits("fidelity", {"fidelity": 1.0}, ("clip", "frame", "view", "cell"), CELLS)
    found |= credits("on track", {"on_track": 1.0}, ("clip", "cell"))
    found |= credits("moving area", {"moving_area": 1.0}, ("clip",))
    if config.judge is not None:
        found |= credits("outcome", {"outcome": 1.0}, ("clip", "frame"))
    if config.inverse_dynamics is not None:
        both = {"fidelity": 1.0, "agreement": 1.0, "executability": 0.5}
        found |= credits("agreement", {"agreement": 1.0}, ("clip", "frame"))
        found |= credits("executability", {"executability": 1.0}, ("clip",))
        found |= credits("fidelity + actions", both, ("clip", "cell"))
        found |= credits("the same, gated", both, ("clip", "cell"), gate="both")
    found["fidelity, cell of 8 px, inner pixels"] = Row({"fidelity": 1.0}, "cell", inner=True)
    for name, row in credits("fidelity", {"fidelity": 1.0}, ("clip", "cell")).items():
        found[f"Flow-GRPO of {name}"] = replace(row, objective="flow-grpo")
        found[f"Flow-GRPO of {name}, inner pixels"] = replace(row, objective="flow-grpo", inner=True)
    return found


def credits(
    name: str, weights: dict[str, float], kinds: tuple[Credit, ...], cells: tuple[int, ...] = (8,), gate: Gate = "none"
) -> dict[str, Row]:
    """Rows of one reward."""
    found = {f"{name}, {kind}": Row(weights, kind, gate=gate) for kind in kinds if kind != "cell"}
    fine = {f"{name}, cell of {cell} px": Row(weights, "cell", cell, gate=gate) for cell in cells}
    return found | (fine if "cell" in kinds else {})


class Sums:
    """What the figures of one row need, without keeping every gradient."""

    def __init__(self) -> None:
        self.number, self.squares, self.seconds = 0, 0.0, 0.0
        self.halves: list[Tensor] = []
        self.spreads: list[tuple[float, float]] = []

    def add(self, gradient: Float[Tensor, "p"], spread: tuple[float, float] | None = None) -> None:
        """The gradient of the next batch, and the spread of the reward within and between its groups."""
        self.spreads += [] if spread is None else [spread]
        if self.number < 2:
            self.halves.append(torch.zeros_like(gradient))
        self.halves[self.number % 2] += gradient
        self.squares += float(gradient.square().sum())
        self.number += 1

    @property
    def total(self) -> Float[Tensor, "p"]:
        """The sum of the gradients."""
        return sum(self.halves)

    def figures(self, supervised: Float[Tensor, "p"] | None) -> dict[str, float]:
        """The figures of the row."""
        own, number = self.squares / self.number, self.number
        common = (float(self.total.square().sum()) - self.squares) / (number * (number - 1))
        cosine = torch.nn.functional.cosine_similarity
        found = {
            "signal": common / own if own else 0.0,
            "halves": float(cosine(*self.halves, dim=0)),
            "length": own**0.5,
            "seconds": self.seconds / number,
        }
        if supervised is not None and supervised.shape == self.total.shape:
            found["supervision"] = float(cosine(self.total, supervised, dim=0))
        if self.spreads:
            found["within"], found["between"] = (sum(x) / len(x) for x in zip(*self.spreads, strict=True))
        return found


def signal(rows: Float[Tensor, "n p"]) -> dict[str, float]:
    """The figures of the given gradients."""
    sums = Sums()
    for row in rows:
        sums.add(row)
    return sums.figures(None)


def measure(config: SignalConfig, chosen: dict[str, Row]) -> dict[str, dict[str, float]]:
    """Take the gradients of every row on the same batches."""
    base = WorldModel.load(config.world)
    source = EpisodeCache(open_episodes(config.data, tuple(base.size), base.views))
    default = PosttrainConfig(
        config.world, config.data, config.out, groups=config.groups, prefix=config.prefix, validation_episodes=1
    )
    train, _ = split_episodes(source, default.validation_episodes)
    every = all_rewards(config, base, source, train)
    sums = {name: Sums() for name in chosen}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("batches", total=config.batches * len(chosen))
        for step in range(config.batches):
            batch = Batch(default, base, source, train, step)
            if step == 0:
                every = every.calibrated(batch.shared[1])
            for name, row in chosen.items():
                began = time.process_time()
                gradient, spread = batch.gradient(row, every)
                sums[name].add(gradient, spread)
                sums[name].seconds += time.process_time() - began
                progress.advance(bar)
            if step:
                found = write(config, sums)
    return found


def write(config: SignalConfig, sums: dict[str, Sums]) -> dict[str, dict[str, float]]:
    """Write the figures of the batches so far, so that a run that is stopped has some; returns them."""
    supervised = sums[SUPERVISED].total if SUPERVISED in sums else None
    found = {name: each.figures(supervised) for name, each in sums.items()}
    described = {"world": str(config.world), "data": str(config.data), "batches": min(x.number for x in sums.values())}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(config.out, {"config": described, "rows": found})
    return found


class Batch:
    """One batch of candidates, on which the gradients of all rows are taken; what they share is computed once."""

    def __init__(self, config: PosttrainConfig, world: WorldModel, source: EpisodeSource, train: range, step: int):
        self.config, self.world, self.source, self.train, self.step = config, world, source, train, step
        self.weights = [p for p in world.parameters() if p.requires_grad]

    @cached_property
    def shared(self) -> tuple[BranchBatch, Rollout]:
        """The candidates, and the rollout that rewards score."""
        return self.draw(replace(self.config, objective="nft"))

    @cached_property
    def singles(self) -> tuple[BranchBatch, Rollout]:
        """The candidates of one frame that Flow-GRPO has."""
        return self.draw(replace(self.config, objective="flow-grpo", candidates=4 * self.config.candidates, branch=1))

    @cached_property
    def predicted(self) -> tuple[tuple[Tensor, ...], DrawnFrames]:
        """What the world model predicts of the noised candidates, with its graph, and their frames."""
        batch, _ = self.shared
        drawn = drawn_frames(self.world, batch, self.config.loss)
        with autocast(self.world.device):
            return predict_frames(self.world, encode_branches(self.world, batch.branches), batch, drawn.clean), drawn

    def draw(self, config: PosttrainConfig) -> tuple[BranchBatch, Rollout]:
        """The candidates of an update, and their rollout."""
        seen: list[Rollout] = []
        look = {"fidelity": lambda rollout: seen.append(rollout) or torch.zeros(len(rollout.imagined.frames))}
        mix = replace(NOTHING, rewards=look)
        batch, _ = next_batch(config, self.world, self.source, self.train, mix, self.step)
        return batch, seen[0]

    def gradient(self, row: Row, every: RewardMix) -> tuple[Float[Tensor, "p"], tuple[float, float] | None]:
        """The gradient of a row, and the spread of its reward within and between groups."""
        settings = replace(self.config, objective=row.objective, inner=row.inner)
        if not row.weights:
            batch, _ = next_batch(settings, self.world, self.source, self.train, NOTHING, self.step)
            return self.of(self.loss(settings, batch)), None
        mix = mix_of(every, row, self.world.size)
        batch, rollout = self.shared if row.objective == "nft" else self.singles
        good, kept, _ = judge(settings, mix, rollout, len(rollout.imagined.frames) // self.config.groups)
        spread = spread_of(mix, rollout, good.shape[1])
        batch = replace(batch, good=good, kept=kept)
        if row.objective != "nft":
            return self.of(self.loss(settings, batch)), spread
        predicted, drawn = self.predicted
        if row.inner:
            drawn = drawn_frames(self.world, batch, self.config.loss, inner=True)
        leaves = tuple(x.detach().requires_grad_() for x in predicted)
        before = tuple(x.detach() for x in predicted)  # at the first update the old policy is the new one
        loss = contrast(leaves, before, batch, drawn, self.config.beta, self.config.loss.state_weight)
        return self.of(predicted, torch.autograd.grad(loss, leaves)), spread

    def loss(self, settings: PosttrainConfig, batch: BranchBatch | RecordedBatch) -> Float[Tensor, ""]:
        """The loss of an objective."""
        with autocast(self.world.device):
            loss, _ = Update(self.world, self.world, None, settings.update_weights, settings.loss)(batch)
        return loss

    def of(self, outputs: Tensor | tuple[Tensor, ...], towards: tuple[Tensor, ...] | None = None) -> Float[Tensor, "p"]:
        """The gradient with respect to all weights, 0 where there is none."""
        keep = towards is not None
        found = torch.autograd.grad(outputs, self.weights, towards, retain_graph=keep, allow_unused=True)
        pairs = zip(self.weights, found, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])


def all_rewards(config: SignalConfig, base: WorldModel, source: EpisodeSource, train: range) -> RewardMix:
    """Every reward whose inputs are there."""
    weights = RewardWeights(moving_area=1.0, on_track=1.0)
    judge = None if config.judge is None else load_judge(config.judge, views=base.views, size=tuple(base.size))
    return build_rewards(weights, base, source, train, config.inverse_dynamics, branch=4, judge=judge)


def mix_of(every: RewardMix, row: Row, size: tuple[int, int]) -> RewardMix:
    """The rewards of a row, as fine as its credit."""
    fine: dict[str, Reward] = {}
    for name, reward in every.rewards.items():
        if isinstance(reward, Fidelity):
            reward = replace(reward, credit=row.credit, cell=row.cell)
        if isinstance(reward, Agreement):
            reward = replace(reward, credit=row.credit)
        if isinstance(reward, OnTrack):
            reward = replace(reward, fidelity=replace(reward.fidelity, credit=row.credit, cell=row.cell))
        if name in row.weights or name == "fidelity":
            fine[name] = reward
    grid = (size[0] // row.cell, size[1] // row.cell)
    return RewardMix(fine, row.weights, every.dynamics, row.credit, grid, row.gate)


def spread_of(mix: RewardMix, rollout: Rollout, candidates: int) -> tuple[float, float]:
    """Standard deviation of the first reward that counts, within groups and between their means.

    Within groups of a map it is the root mean square over its elements.
    """
    values = mix.rewards[mix.names[0]](rollout)
    fine = credited(values, rollout.reference, mix.credit, mix.grid).unflatten(0, (-1, candidates))
    means = numbers(values, rollout.reference).unflatten(0, (-1, candidates)).mean(dim=1)
    return float(fine.var(dim=1, correction=0).mean().sqrt()), float(means.std(correction=0))


def main(config: SignalConfig) -> None:
    """Take the gradients, print and write the table."""
    torch.set_num_threads(1)
    if config.batches < 2:
        raise SystemExit(f"--batches {config.batches}: two gradients are compared, so there are at least 2")
    known = rows_of(config)
    unknown = sorted(set(config.rows) - set(known))
    if unknown:
        raise SystemExit(f"no such rows: {unknown}; known are {list(known)}")
    found = measure(config, {name: known[name] for name in config.rows or known})
    print(table(["reward, credit", *HEADINGS], [[name, *cells_of(row)] for name, row in found.items()]))


HEADINGS = ("signal", "cosine of halves", "cosine with supervision", "spread within", "between", "CPU s a batch")
PATTERNS = {"signal": "{:.3f}", "halves": "{:.2f}", "supervision": "{:.2f}", "within": "{:.4f}", "between": "{:.4f}"}


def cells_of(row: dict[str, float]) -> Iterator[str]:
    """The figures as text; a dash where there is none."""
    for key, pattern in (PATTERNS | {"seconds": "{:.1f}"}).items():
        yield pattern.format(row[key]) if key in row else "-"


if __name__ == "__main__":
    main(tyro.cli(SignalConfig))
