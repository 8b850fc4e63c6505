"""Does guidance on the actions make dreams follow them more closely, at the same fidelity?

    python benchmarks/guidance.py --data TRAIN --held-out TEST --relative-to 0 0 1 1 --views top --out runs/guidance

Trains two world models for the same CPU minutes in one thread, one with every action and one with actions dropped, and
dreams held-out windows with several weights of guidance, under the recorded and under shuffled actions. Per row: the
PSNR of the first camera, and the PSNR that shuffled actions cost, which says how much the actions count; both with 95%
intervals over episodes, and as paired differences from the first row. Called again with the same `--out`, it goes on
where it was stopped.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from jaxtyping import Float64, Int64

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.fidelity.comparison import dream
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.windows import evenly_spaced_windows, read_windows, shuffled_partners
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.dit import DiTConfig
from worldmodel.model.psnr import psnr
from worldmodel.training.checkpoint import has_state
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

HORIZONS = (1, 5, 10)
Figures = Mapping[str, Float64[np.ndarray, "n h"]]
"""`psnr` and `gap` of every window at every horizon."""


@dataclass(frozen=True)
class GuidanceConfig:
    """What to train and to measure."""

    data: Path
    """Training episodes."""
    held_out: Path
    """Test episodes with other seeds."""
    out: Path
    """Folder for the runs and `guidance.json`."""
    relative_to: dict[int, int] = field(default_factory=dict)
    """Action dim and state dim pairs: absolute targets that are fed relative to the state."""
    views: tuple[str, ...] = ()
    """Cameras to train on; all by default. The figures are those of the first."""
    size: int = 64
    """Side of the pictures in pixels."""
    minutes: float = 5.0
    """CPU minutes of each training, in one thread."""
    action_dropout: float = 0.2
    """Share of the clips without some actions, in the second training."""
    weights: tuple[float, ...] = (1.0, 1.5, 2.0)
    """Weights of guidance to try."""
    starts: int = 2
    """Windows per episode."""
    init: Path | None = None
    """World model to start both trainings from; it sets the architecture. By default they start from nothing."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of weights, batches, noise and shuffling."""
    dit: DiTConfig = field(default_factory=DiTConfig)
    """The transformer."""


def train(config: GuidanceConfig, action_dropout: float) -> WorldModel:
    """Train a world model, or load it if that is done."""
    out = config.out / f"dropout-{action_dropout:g}"
    if not (out / "finished").exists():
        run = PretrainConfig(
            data=config.data,
            out=out,
            steps=10**6,
            minutes=config.minutes,
            clock="cpu",
            views=config.views,
            size=(config.size, config.size),
            relative_to=config.relative_to,
            action_dropout=action_dropout,
            init=config.init,
            learning_rate=config.learning_rate,
            validation_episodes=1,
            validation_interval=10**6,
            save_interval=100,
            log="none",
            resume=has_state(out),
            overwrite=not has_state(out),
            seed=config.seed,
            device="cpu",
            dit=config.dit,
        )
        pretrain(run)
        (out / "finished").touch()
    return WorldModel.load(out)


def measure(world: WorldModel, source: EpisodeSource, config: GuidanceConfig) -> tuple[Figures, Int64[np.ndarray, "n"]]:
    """PSNR and the cost of shuffled actions for every window, and the episode of each."""
    options = {"horizon": HORIZONS[-1], "stride": world.stride}
    windows = evenly_spaced_windows(source, starts=config.starts, **options)
    partners = shuffled_partners(windows, seed=config.seed)
    found: dict[str, list] = {"psnr": [], "gap": []}
    for first in range(0, len(windows), 16):
        part = slice(first, first + 16)
        clip, others = (read_windows(source, chosen[part], **options) for chosen in (windows, partners))
        truth = clip.frames[:, [CONTEXT_FRAMES - 1 + h for h in HORIZONS], 0]
        seeds = range(config.seed, config.seed + len(windows))[part]
        stream = world.stream(context_of(clip), seeds=seeds)
        told, shuffled = (
            dream(stream, each.actions[:, CONTEXT_FRAMES - 1 :], horizon=HORIZONS[-1], horizons=HORIZONS, num_steps=2)
            for each in (clip, others)
        )
        values = psnr(told[:, :, 0], truth)
        found["psnr"].append(values.double().numpy())
        found["gap"].append((values - psnr(shuffled[:, :, 0], truth)).double().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.array([w.episode for w in windows])


def summary(figures: Mapping[str, Figures], episodes: Int64[np.ndarray, "n"]) -> dict[str, dict]:
    """Means, intervals and paired differences from the first row, by row, figure and horizon."""
    first = next(iter(figures.values()))
    found: dict[str, dict] = {}
    for row, values in figures.items():
        for name, array in values.items():
            for index, horizon in enumerate(HORIZONS):
                now, change = array[:, index], (array - first[name])[:, index]
                found.setdefault(row, {}).setdefault(name, {})[str(horizon)] = {
                    "mean": float(now.mean()),
                    "interval": bootstrap_interval(now, episodes),
                    "difference": float(change.mean()),
                    "difference_interval": bootstrap_interval(change, episodes),
                }
    return found


def markdown(found: Mapping[str, dict]) -> str:
    """One row for each training and weight; means at the horizons, and the differences from the first row at 10."""
    horizons = " / ".join(map(str, HORIZONS))
    columns = ["training, guidance", f"PSNR at {horizons}, dB", f"lost under shuffled actions at {horizons}, dB"]
    columns += ["PSNR at 10 against the first row", "lost at 10 against the first row"]
    lines = []
    for row, values in found.items():
        cells = [" / ".join(f"{values[name][str(h)]['mean']:.2f}" for h in HORIZONS) for name in ("psnr", "gap")]
        lines.append([row, *cells, *(change(values[name][str(HORIZONS[-1])]) for name in ("psnr", "gap"))])
    return table(columns, lines)


def change(value: Mapping) -> str:
    """A paired difference with its interval."""
    ends = value["difference_interval"]
    return f"{value['difference']:+.2f}" + ("" if ends is None else f" [{ends[0]:+.2f}, {ends[1]:+.2f}]")


def main(config: GuidanceConfig) -> None:
    """Train both, measure every row, and print the table."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    worlds = {"all actions": (train(config, 0.0), (1.0,))}
    worlds[f"{config.action_dropout:.0%} dropped"] = (train(config, config.action_dropout), config.weights)
    source = EpisodeCache(open_episodes(config.held_out, (config.size, config.size), config.views or None))
    figures, episodes = {}, np.zeros(0, int)
    for name, (world, weights) in worlds.items():
        for weight in weights:
            world.config = replace(world.config, guidance=weight)
            figures[f"{name}, {weight:g}"], episodes = measure(world, source, config)
    found = summary(figures, episodes)
    write_json(config.out / "guidance.json", found)
    print(markdown(found), flush=True)


if __name__ == "__main__":
    main(tyro.cli(GuidanceConfig, description=__doc__))
