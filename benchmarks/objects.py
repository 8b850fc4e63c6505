"""Which continued training keeps the pushed block in its place for longer?

```
worldmodel record pusht --episodes 200 --seed 60 --out data/pusht-objects
worldmodel record pusht --episodes 48 --seed 7 --out data/pusht-heldout48
python benchmarks/objects.py --data data/pusht-objects --held-out data/pusht-heldout48 --out runs/objects
```

The shipped world is trained on for the same CPU minutes of one thread in several ways, the arms of `ARMS`. Measured are
the block, the agent and the pictures after 10, 25 and 50 dreamed frames. Differences are paired, window by window; the
intervals are over episodes. Printed are tables; `objects.png` shows the error of the block at every frame. Killed, the
command goes on where it stood; `--only NAME` trains and measures one arm, and two such commands may run side by side.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from leaderboard import check_settings
from rivals import listed
from torch import Tensor

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.display.plots import panel, png
from worldmodel.dreams.context import context_of
from worldmodel.envs import find_objects, object_masks, object_view
from worldmodel.fidelity.comparison import LAST_CONTEXT, dream
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.metrics import masked_psnr
from worldmodel.fidelity.scores import object_scores
from worldmodel.fidelity.shapes import shape_scores
from worldmodel.fidelity.windows import evenly_spaced_windows, read_windows, trained_episodes
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.processes import single_thread
from worldmodel.training.config import PretrainConfig
from worldmodel.training.loss import LossConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

HORIZONS = (10, 25, 50)
"""Frames after the context at which a dream is compared with the recording."""
BEFORE, SAME = "before", "more of the same"
SHIPPED = LossConfig(forward_start=0.0, forward_passes=4, forward_replaced=0.7, erased=0.3)
"""The loss with which the shipped world was trained."""
ARMS: dict[str, dict[str, Any]] = {
    SAME: {},
    "longer self-rollouts": {"loss": replace(SHIPPED, forward_passes=8, forward_replaced=0.9)},
    "longer clips": {"batch": 3, "frames": 32},
}
"""Settings of `worldmodel pretrain` in which an arm differs from more of the same."""
DIGITS = {
    "block, px": 1,
    "block while it moves, px": 1,
    "overlap of the block's shape": 3,
    "block missing": 3,
    "agent, px": 2,
    "masked PSNR of the top camera, dB": 1,
}
"""What is measured, and the digits after the point in the tables."""
FREE = ("only", "out", "quick")


@dataclass(frozen=True)
class Objects:
    """What is trained and measured, and for how long."""

    data: Path
    """Training episodes of PushT."""
    held_out: Path
    """Episodes of PushT with other seeds, on which all are measured."""
    out: Path
    """Folder of the trainings, of what was measured, and of `objects.png`."""
    world: Path = Path("checkpoints/pusht")
    """The world model that all arms start from."""
    only: tuple[str, ...] = ()
    """Arms to train and measure now; all by default. `before`, the world as it is, is always measured."""
    minutes: float = 5.0
    """CPU time of each training, in one thread."""
    learning_rate: float = 2e-4
    """Peak learning rate."""
    starts: int = 4
    """Windows of each held-out episode."""
    episodes: int = 48
    """Held-out episodes, the first ones."""
    num_steps: int = 2
    """Denoising steps of the dreams."""
    batch: int = 16
    """Dreams side by side while they are measured."""
    seed: int = 0
    """Seed of batches and noise."""
    quick: bool = False
    """Seconds of training and a window of each of five episodes, to see that everything runs."""

    @property
    def arms(self) -> list[str]:
        """The chosen arms.

        Raises:
            ValueError: There is no such arm.
        """
        unknown = sorted(set(self.only) - set(ARMS))
        if unknown:
            raise ValueError(f"--only: there is no arm {unknown[0]!r}; there are {', '.join(ARMS)}")
        return [name for name in ARMS if not self.only or name in self.only]


def settings(config: Objects, arm: str, out: Path) -> PretrainConfig:
    """How an arm is trained."""
    own = {"batch": 8, "frames": 13, "loss": SHIPPED} | ARMS[arm]
    begun = (out / "state" / "state.json").exists()
    return PretrainConfig(
        data=config.data,
        out=out,
        init=config.world,
        steps=10**6,
        minutes=config.minutes,
        clock="cpu",
        relative_to={0: 0, 1: 1},
        learning_rate=config.learning_rate,
        warmup=20,
        average_decay=0.99,
        validation_episodes=2,
        validation_interval=10**6,
        save_interval=25,
        resume=begun,
        overwrite=not begun,
        log="none",
        seed=config.seed,
        device="cpu",
        **own,
    )


def train(config: Objects, arm: str) -> tuple[Path, int]:
    """Train an arm, unless that is done; returns the folder of the world model and the number of its steps."""
    out = config.out / arm.replace(" ", "-")
    state = out / "state" / "state.json"
    if not state.exists() or read_object(state)["seconds"] < 60 * config.minutes:
        pretrain(settings(config, arm, out))
    return out, int(read_object(state)["step"])


def measured(config: Objects, name: str, folder: Path, steps: int, source: EpisodeSource) -> dict[str, Any]:
    """The scores of every window under the recorded actions; made once.

    Raises:
        ValueError: The world was trained on one of the episodes.
    """
    file = config.out / "scores" / f"{name.replace(' ', '-')}.json"
    if file.exists():
        return read_object(file)
    world = WorldModel.load(folder, "cpu")
    known = trained_episodes(world.train_data, source)
    if known:
        raise ValueError(f"--held-out {config.held_out}: {name} was trained on {len(known)} of {len(source)} episodes")
    chosen = range(min(config.episodes, len(source)))
    options = {"horizon": HORIZONS[-1], "stride": world.stride}
    windows = evenly_spaced_windows(source, starts=config.starts, episodes=chosen, **options)
    scores: dict[str, list] = {}
    for first in range(0, len(windows), config.batch):
        part = slice(first, first + config.batch)
        clip = read_windows(source, windows[part], **options)
        stream = world.stream(context_of(clip), seeds=range(config.seed, config.seed + len(windows))[part])
        actions, every = clip.actions[:, LAST_CONTEXT:], range(1, HORIZONS[-1] + 1)
        dreamed = dream(stream, actions, horizon=HORIZONS[-1], horizons=every, num_steps=config.num_steps)
        view = source.views.index(object_view(source.robot_type))
        for metric, values in window_scores(source.robot_type, clip.frames[:, :, view], dreamed[:, :, view]).items():
            scores.setdefault(metric, []).extend(listed(values))
        print(f"{name}: measured {len(scores['block, px'])} of {len(windows)} windows", flush=True)
    found = {"steps": steps, "episodes": [window.episode for window in windows], "scores": scores}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    return found


def window_scores(
    robot_type: str, truth: UInt8[Tensor, "b t H W 3"], dreamed: UInt8[Tensor, "b m H W 3"]
) -> dict[str, Tensor]:
    """Scores by metric, a row per window; NaN where one is not defined.

    The metrics of `DIGITS` are at the horizons, `block at every frame, px` is at all of them. The masked PSNR is taken
    over the pixels that change in the recording or in this dream.
    """
    every, places = range(1, dreamed.shape[1] + 1), [horizon - 1 for horizon in HORIZONS]
    at = [LAST_CONTEXT + horizon for horizon in HORIZONS]
    true, found = find_objects(robot_type, truth), find_objects(robot_type, dreamed)
    block, agent = (object_scores(true[name], found[name], LAST_CONTEXT, every) for name in ("block", "agent"))
    mask, shown = (torch.as_tensor(object_masks(robot_type, each)["block"]) for each in (truth, dreamed[:, places]))
    usual = mask.sum((2, 3)).float().median(dim=1).values
    last = truth[:, [LAST_CONTEXT]].expand(-1, len(HORIZONS), -1, -1, -1)
    return {
        "block, px": block["error_px"][:, places],
        "block while it moves, px": block["moving_error_px"][:, places],
        "overlap of the block's shape": shape_scores(mask[:, at], shown, usual)["overlap"],
        "block missing": block["missing"][:, places],
        "agent, px": agent["error_px"][:, places],
        "masked PSNR of the top camera, dB": masked_psnr(truth[:, at], {"dream": dreamed[:, places]}, last)["dream"],
        "block at every frame, px": block["error_px"],
    }


def cell(values: np.ndarray, episodes: np.ndarray, digits: int, seed: int, sign: str = "") -> str:
    """A mean with its 95% interval over episodes; a dash where nothing was measured."""
    kept = np.isfinite(values)
    if not kept.any():
        return "-"
    ends = bootstrap_interval(values[kept], episodes[kept], seed=seed)
    around = "" if ends is None else f" [{ends[0]:{sign}.{digits}f}, {ends[1]:{sign}.{digits}f}]"
    return f"{values[kept].mean():{sign}.{digits}f}{around}"


def markdown(found: Mapping[str, Mapping[str, Any]], seed: int) -> str:
    """A table for each metric: means at the horizons, and paired differences at the last one."""
    sections, last = [], HORIZONS[-1]
    for metric, digits in DIGITS.items():
        columns = {name: np.array(each["scores"][metric], float) for name, each in found.items()}
        rows = []
        for name, values in columns.items():
            episodes = np.array(found[name]["episodes"])
            row = [name, str(found[name]["steps"]), *(cell(column, episodes, digits, seed) for column in values.T)]
            for other in (BEFORE, SAME):
                apart = None if name in (BEFORE, other) or other not in columns else values - columns[other]
                row.append("-" if apart is None else cell(apart[:, -1], episodes, digits, seed, "+"))
            rows.append(row)
        heads = ["world", "updates", *(f"at {h}" for h in HORIZONS)]
        heads += [f"minus {BEFORE} at {last}", f"minus {SAME} at {last}"]
        sections.append(f"## {metric}\n\n{table(heads, rows)}\n")
    return "\n".join(sections)


def plot(found: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Draw the mean error of the block at every dreamed frame."""
    figure, axes = panel(5.6, 3.4)
    for name, each in found.items():
        errors = np.nanmean(np.array(each["scores"]["block at every frame, px"], float), axis=0)
        axes.plot(range(1, len(errors) + 1), errors, label=name, color="0.4" if name == BEFORE else None)
    axes.set_xlabel("dreamed frames", fontsize=9)
    axes.set_ylabel("error of the block, px of 64", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    file.write_bytes(png(figure))


def main(config: Objects) -> None:
    """Train, measure, print the tables.

    Raises:
        ValueError: An arm is not known, or the folder holds figures of other settings.
    """
    if config.quick:
        config = replace(config, minutes=0.05, episodes=5, starts=1)
    arms = config.arms
    check_settings(config, FREE)
    with single_thread():
        trained = {BEFORE: (config.world, 0)} | {arm: train(config, arm) for arm in arms}
        held_out = EpisodeCache(open_episodes(config.held_out, (64, 64)))
        found = {name: measured(config, name, *each, held_out) for name, each in trained.items()}
    print(markdown(found, config.seed), flush=True)
    plot(found, config.out / "objects.png")


if __name__ == "__main__":
    main(tyro.cli(Objects, description=__doc__))
