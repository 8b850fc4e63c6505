"""Is it noticed when one camera of a dream is swapped for that of another episode's dream?

```
python benchmarks/cross_view.py --out runs/cross-view --tasks pusht push --train data/pusht-position-demos-b data/push \
    --test data/pusht-position-heldout data/metaworld-push-v3-heldout
```

A matcher is trained on recordings, as `worldmodel fidelity --cross-view` does. Then held-out windows are dreamed under
their recorded actions, and the rollout of one camera is swapped; a similarity is the mean over the frames in the table
so far. AUROC: how well one threshold on the similarity tells the cameras of one window from those of
windows of two episodes. Share: of the swaps of a window's own cameras, how many look worse; it is what `fidelity`
reports. Both are given for the dreams and for the recording of the same windows. Killed, the command continues where
it stood.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.dreams.context import CONTEXT_FRAMES, check_views, context_of
from worldmodel.fidelity.comparison import dream
from worldmodel.fidelity.cross_view.agreement import agreement, auroc
from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher
from worldmodel.fidelity.cross_view.train import find_matcher, is_matcher
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.windows import Window, evenly_spaced_windows, read_windows, trained_episodes
from worldmodel.files import read_weights, write_json, write_weights
from worldmodel.model.card import table
from worldmodel.model.precision import choose_device
from worldmodel.processes import single_thread
from worldmodel.world_model import WorldModel

WORLDS = {
    "pusht": Path("checkpoints/pusht"),
    "push": Path("checkpoints/metaworld-push"),
    "window-open": Path("checkpoints/metaworld-window-open"),
}
HORIZONS = (1, 5, 10, 25)
RESAMPLES = 300
"""Bootstrap samples of an AUROC."""

Codes = Mapping[str, Tensor]
"""`dream` and `recording`, each `n h v c`, and the `episodes` of the windows."""


@dataclass(frozen=True)
class CrossViewBenchmark:
    """Which worlds, and which recordings."""

    out: Path
    """Folder of matchers, of what they saw, and of `cross-view.json`."""
    train: tuple[Path, ...]
    """Recordings to train the matcher of each task on."""
    test: tuple[Path, ...]
    """Recordings of each task whose windows are dreamed."""
    tasks: tuple[str, ...] = ("pusht", "push")
    """Names of the tasks: pusht, push, window-open."""
    steps: int = 600
    """Training steps of a matcher."""
    episodes: int = 60
    """Episodes of which a window is dreamed, the first long ones that the world model was not trained on."""
    starts: int = 2
    """Windows of an episode, evenly spaced; the first frames of episodes look alike, so one alone is harder."""
    num_steps: int = 2
    """Denoising steps per frame."""
    batch: int = 16
    """Windows that are dreamed at a time."""
    seed: int = 0
    """Seed of matcher and dreams."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def chosen_windows(config: CrossViewBenchmark, world: WorldModel, source: EpisodeSource) -> list[Window]:
    """The windows of a task.

    Raises:
        ValueError: Fewer than two episodes are long enough.
    """
    known = set(trained_episodes(world.train_data, source))
    needed = (CONTEXT_FRAMES + max(HORIZONS) - 1) * world.stride + 1
    fresh = [e for e in range(len(source)) if e not in known and source.lengths[e] >= needed][: config.episodes]
    if len(fresh) < 2:
        raise ValueError(f"{source.name}: {len(fresh)} unseen episodes have {needed} frames, at least 2 are needed")
    settings = {"starts": config.starts, "horizon": max(HORIZONS), "stride": world.stride}
    return evenly_spaced_windows(source, **settings, episodes=fresh)


def describe(
    config: CrossViewBenchmark, world: WorldModel, source: EpisodeSource, matcher: CrossViewMatcher
) -> dict[str, Tensor]:
    """Dream the windows, and describe the pictures of dreams and recordings."""
    windows = chosen_windows(config, world, source)
    parts: dict[str, list[Tensor]] = {"dream": [], "recording": []}
    for first in range(0, len(windows), config.batch):
        some = windows[first : first + config.batch]
        clip = read_windows(source, some, horizon=max(HORIZONS), stride=world.stride)
        clip = clip if world.state_dim else Clip(clip.frames, clip.actions)
        stream = world.stream(context_of(clip), seeds=range(config.seed + first, config.seed + first + len(some)))
        actions = clip.actions[:, CONTEXT_FRAMES - 1 :]
        frames = dream(stream, actions, horizon=max(HORIZONS), horizons=HORIZONS, num_steps=config.num_steps)
        recorded = clip.frames[:, [CONTEXT_FRAMES - 1 + horizon for horizon in HORIZONS]]
        for name, pictures in (("dream", frames), ("recording", recorded)):
            parts[name].append(matcher.codes(pictures, clip.view_mask))
        print(f"{source.name}: {first + len(some)} of {len(windows)} windows", flush=True)
    codes = {name: torch.cat(pieces) for name, pieces in parts.items()}
    return {**codes, "episodes": torch.tensor([window.episode for window in windows])}


def codes_of(config: CrossViewBenchmark, task: str, train: Path, test: Path) -> Codes:
    """Train the matcher of a task, and describe its windows; each is made once."""
    folder, file = config.out / task / "matcher", config.out / task / "codes.safetensors"
    if not file.exists():
        device = choose_device(config.device)
        world = WorldModel.load(WORLDS[task], device)
        source = EpisodeCache(open_episodes(test, tuple(world.size), world.views))
        check_views(world, source)
        settings = {"steps": config.steps, "seed": config.seed, "device": device}
        matcher = find_matcher(folder if is_matcher(folder) else train, source, range(len(source)), **settings)
        matcher.save(folder)
        write_weights(file, describe(config, world, source, matcher))
    return read_weights(file)


def auroc_intervals(
    codes: Float[Tensor, "n m v c"], episodes: Int[Tensor, "n"], *, resamples: int = RESAMPLES, seed: int = 0
) -> Float[Tensor, "m 2"]:
    """95% intervals of the AUROC at every horizon; whole episodes are drawn, and one is never its own swap."""
    rng, found = np.random.default_rng(seed), []
    names = episodes.unique()
    for _ in range(resamples):
        drawn = torch.as_tensor(rng.choice(names.numpy(), len(names)))
        rows = torch.cat([(episodes == episode).nonzero()[:, 0] for episode in drawn])
        found.append(auroc(codes[rows], episodes[rows]))
    return torch.stack(found).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0).T


def figures(codes: Codes) -> dict[str, dict[str, list]]:
    """AUROC and share of dreams and recordings, each with its interval at every horizon."""
    episodes = codes["episodes"]
    found: dict[str, dict[str, list]] = {}
    for name in ("dream", "recording"):
        areas, ends = auroc(codes[name], episodes), auroc_intervals(codes[name], episodes)
        shares = agreement(codes[name], episodes).double().numpy()
        groups = episodes.numpy()
        found[name] = {
            "auroc": [(float(area), *between.tolist()) for area, between in zip(areas, ends, strict=True)],
            "share": [(float(column.mean()), *bootstrap_interval(column, groups)) for column in shares.T],
        }
    return found


def rows(results: Mapping[str, Mapping[str, Mapping[str, list]]]) -> str:
    """A Markdown table."""
    head = ["task", "cameras of", "figure", *(f"at {horizon}" for horizon in HORIZONS)]
    lines = []
    for task, kinds in results.items():
        for kind, measures in kinds.items():
            for measure, values in measures.items():
                cells = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in values]
                lines.append([task, kind, "AUROC" if measure == "auroc" else measure, *cells])
    return table(head, lines)


def main(config: CrossViewBenchmark) -> None:
    """Measure every task and print the table.

    Raises:
        ValueError: A task is unknown, or has no recordings.
    """
    unknown = sorted(set(config.tasks) - set(WORLDS))
    if unknown:
        raise ValueError(f"--tasks: there is no {unknown[0]}; there are {', '.join(WORLDS)}")
    if not len(config.tasks) == len(config.train) == len(config.test):
        number = f"{len(config.tasks)}, {len(config.train)} and {len(config.test)}"
        raise ValueError(f"--tasks, --train and --test: one each for every task, got {number}")
    with single_thread():
        places = zip(config.tasks, config.train, config.test, strict=True)
        results = {task: figures(codes_of(config, task, train, test)) for task, train, test in places}
    windows = {task: len(read_weights(config.out / task / "codes.safetensors")["episodes"]) for task in results}
    write_json(config.out / "cross-view.json", {"horizons": HORIZONS, "windows": windows, "figures": results})
    counted = ", ".join(f"{task} {number}" for task, number in windows.items())
    print(f"\n## Windows: {counted}\n\n{rows(results)}")


if __name__ == "__main__":
    main(tyro.cli(CrossViewBenchmark, description=__doc__))
