"""How much of a post-training gradient is signal? Contrastive against supervised objectives.

    python benchmarks/gradient_signal.py --data data/heldout48 --batches 24

The gradient of a batch is the mean gradient (signal) plus what belongs to its starts and its noise.
At the untouched world model, `signal` is the share of the squared length that all batches have in
common, `mean_{i != j} g_i g_j / mean_i |g_i|^2`, so about `1 / signal` batches are needed before
the mean gradient stands out from the noise. `halves` is the cosine of the mean gradients of the odd
and of the even batches, near 1 where a direction is known. Nothing is trained.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import next_batch, policies
from rl_posttrain.posttraining.updates import Update
from rl_posttrain.rewards.mix import RewardMix, RewardWeights, build_rewards
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import split_episodes
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.precision import autocast
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class SignalConfig:
    """Compare the gradients of post-training objectives."""

    data: Path
    """Recorded episodes."""
    world: Path = Path("checkpoints/pusht")
    """World model; its gradients are taken, it is not changed."""
    batches: int = 24
    """Batches of every objective."""
    rows: tuple[str, ...] = ()
    """Which objectives; all when not given."""
    groups: int = 4
    """Starts of a batch."""
    prefix: int = 24
    """Most frames that are dreamed before the branches."""
    out: Path = Path("runs/benchmarks/gradient_signal.json")
    """Where the figures go."""


def objectives(config: SignalConfig) -> dict[str, PosttrainConfig]:
    """What is compared: the controls, the contrast, and ways to make it less noisy."""
    default = PosttrainConfig(
        config.world, config.data, config.out, groups=config.groups, prefix=config.prefix, validation_episodes=1
    )
    contrast = replace(default, objective="nft")
    more = replace(contrast, candidates=2 * default.candidates, prefix=default.prefix // 3)
    moving = RewardWeights(fidelity=0.0, moving_area=1.0)
    return {
        "teacher-forced": replace(default, objective="teacher-forced"),
        "self-rollout": replace(default, objective="self-rollout"),
        "contrast": contrast,
        "contrast, more candidates, shorter prefix": more,
        "the same, reward of the moving area": replace(more, reward=moving),
        "the same, half the noise": replace(more, temperature=default.temperature / 2),
        "contrast of single frames": replace(more, candidates=4 * default.candidates, branch=1),
    }


def gradients(
    config: PosttrainConfig, base: WorldModel, source: EpisodeSource, rewards: RewardMix, batches: int
) -> Float[Tensor, "n p"]:
    """The gradient of every batch at the weights of `base`."""
    train, _ = split_episodes(source, config.validation_episodes)
    world, old = policies(config, base)
    update = Update(world, old, None, config.update_weights, config.loss)
    found = []
    for index in range(batches):
        batch, _ = next_batch(config, old, source, train, rewards, index)
        with autocast(base.device):
            loss, _ = update(batch)
        loss.backward()
        trained = [p for p in world.parameters() if p.grad is not None]
        found.append(torch.cat([p.grad.flatten() for p in trained]))
        world.zero_grad(set_to_none=True)
    return torch.stack(found)


def signal(rows: Float[Tensor, "n p"]) -> dict[str, float]:
    """Share of the squared length that all rows have in common, and agreement of two halves."""
    products = rows @ rows.T
    number = len(rows)
    own = products.diag().mean()
    common = (products.sum() - products.diag().sum()) / (number * (number - 1))
    halves = torch.cosine_similarity(rows[::2].mean(0), rows[1::2].mean(0), dim=0)
    return {"signal": float(common / own), "halves": float(halves), "length": float(own.sqrt())}


def main(config: SignalConfig) -> None:
    """Take the gradients, print and write the table."""
    torch.set_num_threads(1)
    base = WorldModel.load(config.world)
    source = EpisodeCache(open_episodes(config.data, tuple(base.size), base.views))
    known = objectives(config)
    unknown = sorted(set(config.rows) - set(known))
    if unknown:
        raise SystemExit(f"no such rows: {unknown}; known are {list(known)}")
    chosen = {name: known[name] for name in config.rows or known}
    found = {}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("objectives", total=len(chosen))
        for name, options in chosen.items():
            train, _ = split_episodes(source, options.validation_episodes)
            rewards = build_rewards(options.reward, base, source, train, None, branch=options.branch)
            began = time.process_time()
            rows = gradients(options, base, source, rewards, config.batches)
            seconds = (time.process_time() - began) / config.batches
            found[name] = signal(rows) | {"seconds": seconds}
            progress.advance(bar)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    described = {"world": str(config.world), "data": str(config.data), "batches": config.batches}
    write_json(config.out, {"config": described, "objectives": found})
    show(found)


def show(found: dict[str, dict[str, float]]) -> None:
    """Print a Markdown table."""
    patterns = {"signal": "{:+.3f}", "halves": "{:+.2f}", "length": "{:.1e}", "seconds": "{:.1f}"}
    rows = [[name, *(p.format(row[key]) for key, p in patterns.items())] for name, row in found.items()]
    print(table(["objective", "signal", "cosine of halves", "length", "CPU s a batch"], rows))


if __name__ == "__main__":
    main(tyro.cli(SignalConfig))
