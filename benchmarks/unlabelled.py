"""What video without actions is worth when few labelled episodes follow.

    python benchmarks/unlabelled.py --data TRAIN --held-out TEST --out runs/unlabelled [--quick]

A world model is pretrained on plain videos, once without any action and once with latent actions;
then each, and one fresh from its initialisation, is trained for the same number of steps on 10, 25
and 100 labelled episodes that are not among the videos. Figures are masked PSNR (dB, on pixels that
change in the recording or in any of the dreams) of the first camera on held-out episodes, and the
difference to training from nothing, with 95% bootstrap intervals over episodes.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from einops import repeat

from conditioning.latent_action import information
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.video.write import encode_video
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.fidelity.comparison import dream
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.metrics import masked_psnr
from worldmodel.fidelity.windows import evenly_spaced_windows, read_windows
from worldmodel.model.dit import DiTConfig
from worldmodel.training.build import build_world
from worldmodel.training.config import PretrainConfig
from worldmodel.training.latent_actions import fit_controller, leakage
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

NOTHING, VIDEO, LATENT = "from nothing", "video", "video with latent actions"
HORIZONS = (1, 5, 10)


@dataclass(frozen=True)
class UnlabelledConfig:
    """What to compare."""

    data: Path
    """Training episodes with actions that are absolute targets of the first state dims."""
    held_out: Path
    """Test episodes with other seeds."""
    out: Path
    """Folder for the runs and `unlabelled.json`."""
    views: tuple[str, ...] = ("top",)
    """Cameras; the figures are those of the first."""
    size: tuple[int, int] = (64, 64)
    """Height and width of the pictures."""
    labelled: tuple[int, ...] = (10, 25, 100)
    """Numbers of labelled episodes, from the front of `data`."""
    unlabelled: int = 400
    """Episodes of video, from behind the last labelled one."""
    pretraining_steps: int = 6000
    """Steps on video."""
    steps: int = 2000
    """Steps on labelled episodes."""
    latent_dim: int = 8
    """Width of a latent action."""
    dit: DiTConfig = field(default_factory=DiTConfig)
    """The transformer."""
    test_episodes: int = 12
    """Episodes of `held_out` to measure on."""
    quick: bool = False
    """A small picture, a small network and few steps: minutes on a core."""
    seed: int = 0
    """Seed of weights, batches and noise."""


QUICK_DIT = DiTConfig(width=64, encoder_depth=2, decoder_depth=1, patch=8, head_width=32)


def export(source: EpisodeSource, episodes: range, folder: Path, views: Sequence[str], *, tables: bool) -> Path:
    """Write episodes as plain videos, with actions and states if `tables`."""
    cameras = [source.views.index(view) for view in views]
    for number, episode in enumerate(episodes):
        part = folder / f"episode_{number:06d}"
        if (part / "done").exists():
            continue
        part.mkdir(parents=True, exist_ok=True)
        clip = source.read(episode, 0, source.lengths[episode])
        for view, camera in zip(views, cameras, strict=True):
            encode_video(part / f"{view}.mp4", clip.frames[:, camera].numpy(), round(source.fps))
        if tables:
            np.save(part / "actions.npy", clip.actions.numpy())
            np.save(part / "states.npy", clip.states.numpy())
        (part / "done").touch()
    return folder


def run_config(config: UnlabelledConfig, data: Path, name: str, steps: int) -> PretrainConfig:
    """One run; the same but for data, steps and what it starts from."""
    return PretrainConfig(
        data=data,
        out=config.out / name,
        steps=steps,
        dit=config.dit,
        seed=config.seed,
        validation_episodes=0,
        validation_interval=10**9,
        save_interval=10**9,
        overwrite=True,
    )


def finished(run: PretrainConfig) -> Path:
    """The folder of a run; one that is finished already is not repeated."""
    return run.out if (run.out / "world.json").exists() else pretrain(run)


def dreams(world: WorldModel, clip, windows) -> torch.Tensor:
    """Frames of the first camera at the horizons, under the recorded actions."""
    start = world.stream(context_of(clip), seeds=range(len(windows)))
    actions = clip.actions[:, CONTEXT_FRAMES - 1 :]
    options = {"horizon": max(HORIZONS), "horizons": HORIZONS, "num_steps": 2}
    return dream(start, actions, **options)[:, :, 0]


def compare(config: UnlabelledConfig, worlds: dict[str, WorldModel], test: EpisodeSource) -> dict:
    """Scores of the arms on the same windows, and their differences to the first."""
    windows = evenly_spaced_windows(test, starts=4, horizon=max(HORIZONS), stride=1)
    clip = read_windows(test, windows, horizon=max(HORIZONS), stride=1)
    at = [CONTEXT_FRAMES - 1 + horizon for horizon in HORIZONS]
    truth, last = clip.frames[:, at, 0], clip.frames[:, CONTEXT_FRAMES - 1, 0]
    reference = repeat(last, "b H W c -> b h H W c", h=len(at))
    predictions = {arm: dreams(world, clip, windows) for arm, world in worlds.items()}
    scores = masked_psnr(truth, predictions | {"copy last": reference}, reference)
    episodes = np.array([window.episode for window in windows])
    table = {}
    for arm, values in scores.items():
        gain = values - scores[NOTHING]
        table[arm] = {
            name: [_summary(column.double().numpy(), episodes) for column in rows.T]
            for name, rows in (("masked_psnr", values), ("gain", gain))
        }
    return table


def _summary(values: np.ndarray, episodes: np.ndarray) -> dict:
    kept = np.isfinite(values)
    interval = bootstrap_interval(values[kept], episodes[kept])
    return {"mean": float(values[kept].mean()), "interval": interval, "n": int(kept.sum())}


def print_table(results: dict) -> None:
    """Markdown, one row per number of episodes and arm."""
    heads = [f"{horizon} frames" for horizon in HORIZONS]
    print(f"| labelled episodes | pretraining | {' | '.join(heads)} | gain at {HORIZONS[-1]} |")
    print("|" + "---|" * (len(heads) + 3))
    for episodes, table in results["labelled"].items():
        for arm, scores in table.items():
            cells = [f"{score['mean']:.2f}" for score in scores["masked_psnr"]]
            gain = scores["gain"][-1]
            low, high = gain["interval"]
            last = f"{gain['mean']:+.2f} [{low:+.2f}, {high:+.2f}]"
            print(f"| {episodes} | {arm} | {' | '.join(cells)} | {last} |")


def pretrained(config: UnlabelledConfig, video: Path) -> dict[str, Path | None]:
    """What the arms start from."""
    plain = run_config(config, video, "pretrained-video", config.pretraining_steps)
    latent = replace(plain, out=config.out / "pretrained-latent", latent_actions=config.latent_dim)
    return {NOTHING: None, VIDEO: finished(plain), LATENT: finished(latent)}


def check_latents(config: UnlabelledConfig, world: WorldModel, video: EpisodeSource, test: EpisodeSource) -> dict:
    """Leakage and nats on the video, and R2 of a controller fitted to the test episodes."""
    windows = evenly_spaced_windows(video, starts=1, horizon=1, stride=1)[:48]
    clip = read_windows(video, windows, horizon=1, stride=1)
    swapped = clip.map(lambda tensor: tensor.roll(1, 0))
    driven = build_world(
        test,
        range(len(test)),
        dit=config.dit,
        stride=1,
        injection="token",
        relative_to={0: 0, 1: 1},
        use_actions=True,
        codec=None,
        init=config.out / "pretrained-latent",
    )
    r2 = fit_controller(driven, test, range(len(test)))
    with torch.no_grad():
        nats = information(*world.latent_encoder(world.codec.encode(clip.frames))).mean().item()
    return {"leakage": leakage(world, swapped, clip), "controller_r2": r2, "nats": nats}


def main(config: UnlabelledConfig) -> None:
    """Pretrain on videos, train on few labelled episodes, measure, print."""
    torch.set_num_threads(1)
    if config.quick:
        config = replace(config, dit=QUICK_DIT, size=(32, 32), unlabelled=150, pretraining_steps=1000, steps=300)
    source = open_episodes(config.data, config.size)
    most = max(config.labelled)
    video = export(source, range(most, most + config.unlabelled), config.out / "video", config.views, tables=False)
    held_out = open_episodes(config.held_out, config.size)
    test_folder = export(held_out, range(config.test_episodes), config.out / "test", config.views, tables=True)
    test = EpisodeCache(open_episodes(test_folder))
    starts = pretrained(config, video)
    latent = WorldModel.load(starts[LATENT])
    results = {"latent": check_latents(config, latent, EpisodeCache(open_episodes(video)), test)}
    print(results["latent"])
    results["labelled"] = {}
    for episodes in config.labelled:
        name = f"labelled-{episodes}"
        data = export(source, range(episodes), config.out / name, config.views, tables=True)
        worlds = {}
        for arm, start in starts.items():
            run = run_config(config, data, f"{name}-{arm.replace(' ', '-')}", config.steps)
            run = replace(run, init=start, relative_to={0: 0, 1: 1})
            worlds[arm] = WorldModel.load(finished(run))
        results["labelled"][episodes] = compare(config, worlds, test)
        (config.out / "unlabelled.json").write_text(json.dumps(results, indent=2) + "\n")
    print_table(results)


if __name__ == "__main__":
    main(tyro.cli(UnlabelledConfig))
