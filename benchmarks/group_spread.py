"""What makes the candidates of a group differ, and at what price? Temperature, length, noise, drift.

    python benchmarks/group_spread.py --data data/pusht-position-play

A contrast can only teach what differs between candidates. `within` is the standard deviation of the fidelity within a
group, `between` that of the means of groups; `cells` is the root mean square of the deviation within a group of the
fidelity of single cells of 8 x 8 pixels. The price is what the candidates show: PSNR against the recording, and how
often and how far the objects are off in the last frame. The branches of all rows
begin at the same recorded frames, and a row changes one thing. Nothing is trained.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from rl_posttrain.posttraining.branches import draw_branches
from rl_posttrain.rewards.fidelity import Fidelity
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import sample_clips
from worldmodel.envs import ObjectTrack, find_objects, object_names, object_view
from worldmodel.fidelity.scores import object_scores
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.psnr import psnr
from worldmodel.streaming.noise import mix_seed
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class SpreadConfig:
    """Compare ways of making the candidates of a group differ."""

    data: Path
    """Recorded episodes."""
    world: Path = Path("checkpoints/pusht")
    """World model; it is not changed."""
    batches: int = 8
    """Batches of every row."""
    groups: int = 4
    """Starts of a batch."""
    candidates: int = 4
    """Candidates of a start."""
    rows: tuple[str, ...] = ()
    """Which rows; all when not given."""
    out: Path = Path("runs/benchmarks/group_spread.json")
    """Where the figures go."""


@dataclass(frozen=True)
class Draw:
    """How candidates are drawn.

    Attributes:
        temperature: Scale of the candidates' noise.
        branch: Frames of a candidate.
        prefix: Frames that the world model dreams before.
        context_noise: Standard deviation of noise on the recorded frames that a candidate begins with, in grey
            levels; each candidate has its own, and so its own prefix.
    """

    temperature: float = 1.0
    branch: int = 4
    prefix: int = 12
    context_noise: float = 0.0


CONTEXT = 4
ROWS = {
    "as trained: temperature 1, 4 frames after 12 dreamed ones": Draw(),
    "temperature 0.5": Draw(temperature=0.5),
    "temperature 1.5": Draw(temperature=1.5),
    "temperature 2": Draw(temperature=2.0),
    "branches of 8": Draw(branch=8),
    "branches of 16": Draw(branch=16),
    "branches of 16, temperature 2": Draw(branch=16, temperature=2.0),
    "context with noise of 5 grey levels": Draw(context_noise=5.0),
    "context with noise of 15 grey levels": Draw(context_noise=15.0),
    "from the recording, nothing dreamed before": Draw(prefix=0),
    "drifted: after 36 dreamed frames": Draw(prefix=36),
}


def rollout_of(config: SpreadConfig, world: WorldModel, source: EpisodeSource, draw: Draw, step: int) -> Rollout:
    """The candidates of one batch, starts outermost."""
    longest = CONTEXT + max(row.prefix for row in ROWS.values()) + max(row.branch for row in ROWS.values())
    start = CONTEXT + max(row.prefix for row in ROWS.values())  # the branches of all rows begin at this frame
    clip = sample_clips(
        source,
        batch=config.groups,
        length=longest,
        stride=world.stride,
        seed=0,
        index=step,
        episodes=range(len(source)),
    )
    clip = stretch(clip, start - draw.prefix - CONTEXT, start + draw.branch, states=world.state_dim > 0)
    number = config.candidates
    if draw.context_noise:
        each = [i for i in range(config.groups) for _ in range(number)]
        clip, number = noisy(clip.rows(each), draw.context_noise, step), 1
    seeds = [mix_seed(0, step, i) for i in range(len(clip.frames))]
    _, rollout = draw_branches(
        world,
        clip,
        context=CONTEXT,
        prefix=draw.prefix,
        candidates=number,
        num_steps=2,
        temperature=draw.temperature,
        seeds=seeds,
    )
    return rollout


def stretch(clip: Clip, first: int, stop: int, *, states: bool) -> Clip:
    """Frames `first` to `stop` of clips."""
    frames, between = slice(first, stop), slice(first, stop - 1)
    return replace(
        clip,
        frames=clip.frames[:, frames],
        states=clip.states[:, frames] if states else None,
        actions=clip.actions[:, between],
        rewards=None,
        successes=None,
    )


def noisy(clip: Clip, deviation: float, step: int) -> Clip:
    """Clips whose context has noise."""
    frames = clip.frames.clone()
    shown = frames[:, :CONTEXT].float()
    noise = deviation * torch.randn(shown.shape, generator=torch.Generator().manual_seed(step))
    frames[:, :CONTEXT] = (shown + noise).round().clamp(0, 255).to(torch.uint8)
    return replace(clip, frames=frames)


def figures_of(rollout: Rollout, candidates: int, source: EpisodeSource, views: tuple[str, ...]) -> dict[str, float]:
    """The figures of one batch."""
    whole = Fidelity()(rollout).unflatten(0, (-1, candidates))
    cells = Fidelity(credit="cell", cell=8)(rollout).unflatten(0, (-1, candidates))
    pair = [clip.frames[:, 1:] for clip in (rollout.imagined, rollout.reference)]
    found = {
        "within": float(whole.std(dim=1, correction=0).mean()),
        "between": float(whole.mean(dim=1).std(correction=0)),
        "cells": float(cells.var(dim=1, correction=0).mean().sqrt()),
        "psnr": float(psnr(*pair).mean()),
    }
    kind = source.robot_type
    if object_names(kind) and object_view(kind) in views:
        view = list(views).index(object_view(kind))
        seen, shown = (find_objects(kind, x.frames[:, :, view]) for x in (rollout.reference, rollout.imagined))
        last = [rollout.imagined.frames.shape[1] - 1]
        scores = [object_scores(seen[name], last_of(shown[name]), 0, last) for name in seen]
        found["missing"] = mean_known(torch.stack([score["missing"] for score in scores]))
        found["error"] = mean_known(torch.stack([score["error_px"] for score in scores]))
    return found


def last_of(track: ObjectTrack) -> ObjectTrack:
    """The last frame of a track."""
    return replace(track, position=track.position[:, -1:], area=track.area[:, -1:])


def mean_known(values: Tensor) -> float:
    """The mean without NaN."""
    return float(values.nanmean())


def main(config: SpreadConfig) -> None:
    """Draw the candidates of every row, print and write the table."""
    torch.set_num_threads(1)
    world = WorldModel.load(config.world)
    source = EpisodeCache(open_episodes(config.data, tuple(world.size), world.views))
    unknown = sorted(set(config.rows) - set(ROWS))
    if unknown:
        raise SystemExit(f"no such rows: {unknown}; known are {list(ROWS)}")
    chosen = {name: ROWS[name] for name in config.rows or ROWS}
    found: dict[str, dict[str, float]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("draws", total=len(chosen) * config.batches)
        for name, draw in chosen.items():
            parts = []
            for step in range(config.batches):
                rollout = rollout_of(config, world, source, draw, step)
                parts.append(figures_of(rollout, config.candidates, source, tuple(world.views)))
                progress.advance(bar)
            found[name] = {key: sum(part[key] for part in parts) / len(parts) for key in parts[0]}
            config.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(config.out, {"batches": config.batches, "rows": found})
    patterns = {"within": "{:.4f}", "between": "{:.4f}", "cells": "{:.4f}", "psnr": "{:.1f}"}
    patterns |= {"missing": "{:.1%}", "error": "{:.1f}"}
    rows = [
        [name, *(p.format(row[key]) if key in row else "-" for key, p in patterns.items())]
        for name, row in found.items()
    ]
    headings = ["candidates", "within", "between", "cells", "PSNR, dB", "objects missing", "objects off, px"]
    print(table(headings, rows))


if __name__ == "__main__":
    main(tyro.cli(SpreadConfig))
