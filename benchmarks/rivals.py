"""Our world model and others', each trained with its own code on the same episodes for the same CPU minutes.

```
worldmodel record pusht --episodes 60 --seed 40 --out data/pusht-fresh
worldmodel record pusht --episodes 24 --seed 41 --out data/pusht-fresh-heldout
git clone https://github.com/eloialonso/diamond ../diamond && pip install omegaconf wandb
python benchmarks/rivals.py --data data/pusht-fresh --held-out data/pusht-fresh-heldout --out runs/rivals \
    --code diamond ../diamond
```

Printed are the quality of dreams under recorded actions, copying the last frame beside it, and the frames per second.
The code of other projects stays outside; how a rival is written, and how yours enters: docs/extend/rival.md. Killed,
the command continues where it stood; `--only NAME` trains and measures one world, and two such commands may run side by
side. `--stage train` is only the training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from jaxtyping import UInt8
from leaderboard import Leaderboard, check_settings, dreamed
from leaderboard_worlds import Entrant
from rivals_tables import HORIZONS, file_of, film_strip, quality_tables, speed_table
from rivals_training import Lesson, trained
from torch import Tensor

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import split_episodes
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.envs import find_objects, object_names, object_view
from worldmodel.fidelity.metrics import masked_psnr
from worldmodel.fidelity.scores import object_scores
from worldmodel.fidelity.windows import Window, evenly_spaced_windows, read_windows, trained_episodes
from worldmodel.files import read_object, write_json
from worldmodel.model.psnr import psnr
from worldmodel.processes import single_thread
from worldmodel.resolve import resolve
from worldmodel.training.config import PretrainConfig
from worldmodel.training.log import CLOCKS
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

OURS, COPYING = "ours", "copying"
RIVALS = {"DIAMOND, small batch": "rivals_diamond:small_batch", "DIAMOND, narrow": "rivals_diamond:narrow"}


FREE = ("rivals", "only", "out", "code", "stage", "speed_batches", "rounds", "frames")
"""Settings that may change in a folder: other worlds can be added, and speed measured otherwise."""


@dataclass(frozen=True)
class Rivals:
    """Which world models are trained and measured, on what, and for how long."""

    data: Path
    """Training episodes of PushT."""
    held_out: Path
    """Episodes of PushT with other seeds, on which all are measured."""
    out: Path
    """Folder of the trainings, of what was measured, and of `rivals.png`."""
    code: dict[str, Path] = field(default_factory=dict)
    """Folders of the code of other projects, as in diamond ../diamond."""
    rivals: dict[str, str] = field(default_factory=lambda: RIVALS)
    """World models by name: `module:name` of a function that makes one of a `Lesson`."""
    only: tuple[str, ...] = ()
    """Names to train and measure now, also ours and copying; all by default."""
    stage: Literal["all", "train"] = "all"
    """Train only, or measure, too."""
    minutes: float = 12.0
    """CPU time of each training, in one thread."""
    views: tuple[str, ...] = ("top",)
    """Cameras; DIAMOND sees one."""
    validation_episodes: int = 2
    """The last episodes of --data, which nobody trains on."""
    episodes: int = 24
    """Held-out episodes on which quality is measured, the first ones."""
    starts: int = 2
    """Windows of each of them."""
    batch: int = 16
    """Dreams side by side while quality is measured."""
    speed_batches: tuple[int, ...] = (1, 8)
    """Streams side by side while speed is measured."""
    rounds: int = 8
    """Rounds in which all worlds take turns while speed is measured."""
    frames: int = 4
    """Frames of a world in each round."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    quick: bool = False
    """Seconds of training and two dreams, to see that everything runs; the figures mean nothing."""

    @property
    def names(self) -> list[str]:
        """The chosen names."""
        known = [OURS, COPYING, *self.rivals]
        unknown = sorted(set(self.only) - set(known))
        if unknown:
            raise ValueError(f"--only: there is no world {unknown[0]}; there are {', '.join(known)}")
        return [name for name in known if not self.only or name in self.only]


@dataclass(frozen=True)
class Entry:
    """A world as it is measured: some world models have several numbers of denoising steps."""

    world: Entrant
    num_steps: int
    trained_steps: int
    weights: int


def main(config: Rivals) -> None:
    """Train, measure, print the tables.

    Raises:
        ValueError: A name or a folder is not known, or the folder holds figures of other settings.
    """
    if config.quick:
        config = replace(config, minutes=0.05, episodes=2, starts=1, rounds=1, frames=1, quick=False)
    names = config.names
    check_settings(config, FREE)
    with single_thread():
        source = EpisodeCache(open_episodes(config.data, (64, 64), config.views))
        entries = {}
        for name in names:
            entries |= entries_of(config, name, source)
        if config.stage == "train":
            return
        held_out = EpisodeCache(open_episodes(config.held_out, (64, 64), config.views))
        quality = {name: measured(config, name, entry, held_out) for name, entry in entries.items()}
        speed = measure_speed(config, entries, held_out)
    about = {name: {"steps": e.trained_steps, "weights": e.weights} for name, e in entries.items()}
    write_json(config.out / "rivals.json", {"about": about, "quality": quality, "speed": speed})
    reference = next((name for name in entries if name.startswith(OURS)), None)
    print(quality_tables(quality, reference, seed=config.seed))
    print(speed_table(speed, about, reference, seed=config.seed))
    film_strip(config.out, list(entries))


def entries_of(config: Rivals, name: str, source: EpisodeSource) -> dict[str, Entry]:
    """The trained world of a name, once for each number of denoising steps."""
    folder = config.out / file_of(name)
    if name in (OURS, COPYING):
        world = train_ours(config)
        steps = int(read_object(world / "state" / "state.json")["step"])
        if name == COPYING:
            return {name: Entry(CopyLastWorld.load(world, "cpu"), 1, 0, 0)}
        loaded = WorldModel.load(world, "cpu")
        weights = sum(each.numel() for each in loaded.parameters())
        return {f"{name}, {n} step{'s' * (n > 1)}": Entry(loaded, n, steps, weights) for n in (2, 1)}
    train, _ = split_episodes(source, config.validation_episodes)
    lesson = Lesson(source, train, config.code)
    make: Callable = resolve(config.rivals[name], "rival")
    rival, steps = trained(make, lesson, folder, minutes=config.minutes, seed=config.seed)
    return {name: Entry(rival, rival.num_steps, steps, sum(each.numel() for each in rival.parameters()))}


def train_ours(config: Rivals) -> Path:
    """Train the preset `tiny`, unless it is there, with targets relative to where the robot is."""
    out = config.out / "ours"
    state = out / "state" / "state.json"
    begun = state.exists()
    if begun and read_object(state)["seconds"] >= 60 * config.minutes:
        return out
    return pretrain(
        PretrainConfig(
            data=config.data,
            views=config.views,
            out=out,
            steps=10**6,
            minutes=config.minutes,
            clock="cpu",
            relative_to={0: 0, 1: 1},
            validation_episodes=config.validation_episodes,
            validation_interval=10**6,
            save_interval=25,
            resume=begun,
            overwrite=not begun,
            log="none",
            seed=config.seed,
            device="cpu",
        )
    )


def measured(config: Rivals, name: str, entry: Entry, source: EpisodeSource) -> dict[str, Any]:
    """The scores of every window under the recorded actions, and the first dream; made once.

    Raises:
        ValueError: The world was trained on one of the episodes.
    """
    file = config.out / "quality" / f"{file_of(name)}.json"
    if file.exists():
        return read_object(file)
    known = trained_episodes(getattr(entry.world, "train_data", []), source)
    if known:
        raise ValueError(f"--held-out {config.held_out}: {len(known)} of its {len(source)} episodes are also in --data")
    settings = {"horizon": max(HORIZONS), "stride": 1}
    chosen = range(min(config.episodes, len(source)))
    windows = evenly_spaced_windows(source, starts=config.starts, episodes=chosen, **settings)
    how = Leaderboard(config.held_out, config.out, num_steps=entry.num_steps, clock="cpu", seed=config.seed)
    scores: dict[str, list] = {}
    for first in range(0, len(windows), config.batch):
        part = windows[first : first + config.batch]
        truth = read_windows(source, part, **settings).frames
        dream, _ = dreamed(entry.world, source, part, part, how)
        if not first:
            pictures = {"dream": dream[0, :, 0].numpy(), "truth": truth[0, CONTEXT_FRAMES:, 0].numpy()}
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(file.with_suffix(".npz"), **pictures)
        for metric, values in window_scores(source, truth, dream).items():
            scores.setdefault(metric, []).extend(listed(values))
    found = {"episodes": [window.episode for window in windows], "scores": scores}
    write_json(file, found)
    return found


def window_scores(
    source: EpisodeSource, truth: UInt8[Tensor, "b t v H W 3"], dream: UInt8[Tensor, "b m v H W 3"]
) -> dict[str, Tensor]:
    """Scores at every horizon, by metric: a row per window; NaN where one is not defined.

    The masked PSNR is taken over the pixels that change in the recording or in this dream.
    """
    late = CONTEXT_FRAMES - 1
    seen = dream[:, [h - 1 for h in HORIZONS]]
    real, last = truth[:, [late + h for h in HORIZONS]], truth[:, [late]].expand_as(seen)
    scores = {
        "masked PSNR, dB": masked_psnr(real, {"dream": seen}, last)["dream"].nanmean(dim=2),
        "PSNR, dB": psnr(seen, real).mean(dim=2),
    }
    robot = source.robot_type
    if object_names(robot) and object_view(robot) in source.views:
        view = source.views.index(object_view(robot))
        true, found = (find_objects(robot, each[:, :, view]) for each in (truth, seen))
        for name in found:
            scores[f"{name}, px"] = object_scores(true[name], found[name], late, HORIZONS)["error_px"]
    return scores


def listed(values: Tensor) -> list[list[float | None]]:
    """Numbers for JSON, which has no NaN."""
    return [[None if value != value else value for value in row] for row in values.tolist()]


def measure_speed(
    config: Rivals, entries: Mapping[str, Entry], source: EpisodeSource
) -> dict[str, dict[str, list[float]]]:
    """Frames per CPU second in every round, by world and batch; worlds take turns, so that all are disturbed alike."""
    file = config.out / "speed.json"
    stored = read_object(file) if file.exists() else {}
    if all(name in stored for name in entries):
        return {name: stored[name] for name in entries}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in entries}
    for batch in config.speed_batches:
        windows = [Window(episode, 0) for episode in range(min(batch, len(source)))]
        clip = read_windows(source, windows, horizon=1, stride=1)
        clip = clip.rows([i % len(windows) for i in range(batch)])
        streams = {n: e.world.stream(context_of(clip), seeds=list(range(batch))) for n, e in entries.items()}
        rounds = {name: [] for name in entries}
        for number in range(config.rounds + 1):
            for name, stream in streams.items():
                rate = frames_per_second(stream, clip.actions[:, -1], entries[name].num_steps, config.frames)
                if number:  # the first round warms up
                    rounds[name].append(rate)
        for name, rates in rounds.items():
            found[name][str(batch)] = rates
    write_json(file, found)
    return found


def frames_per_second(stream: Any, actions: Tensor, num_steps: int, frames: int) -> float:
    """Frames of all streams per CPU second."""
    begin = CLOCKS["cpu"]()
    for _ in range(frames):
        stream.step(actions, num_steps=num_steps)
    return frames * len(actions) / (CLOCKS["cpu"]() - begin)


if __name__ == "__main__":
    main(tyro.cli(Rivals, description=__doc__))
