"""What pretraining on video is worth: a small Wan of our own, before 25 episodes with actions.

    python benchmarks/transfer.py --out runs/transfer [--quick]

Records all data sets, trains a small `AutoencoderKLWan` and then a `WanTransformer3DModel` on video without actions
(of our environments and, with --robots, of real robots), and writes both as a diffusers pipeline, `base` in --out. Then
every arm learns a task from the same 25 episodes with actions in the same CPU minutes of one thread: `pretrained` from
that pipeline, `random` from the same network with random weights and the same autoencoder, `tiny` as
`worldmodel pretrain tiny`, and `adapters`, the pretrained one of which only adapters are trained. The video of the task
push is in the pretraining (other episodes, without actions), of the task rope nothing is. Measured on held-out
episodes: masked PSNR of dreams, by how much `pretrained` leads, and what shuffled actions cost. Called again with the
same --out, it goes on where it was stopped.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "osmesa")

import numpy as np
import torch
import tyro
from einops import rearrange, repeat
from PIL import Image
from transfer_base import BaseConfig, new_transformer, self_contained, train_codec

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.video.write import encode_video
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.envs.record import RecordConfig, record
from worldmodel.fidelity.comparison import dream
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.metrics import masked_psnr
from worldmodel.fidelity.windows import evenly_spaced_windows, read_windows, shuffled_partners
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.training.checkpoint import has_state
from worldmodel.training.config import PretrainConfig, VideoConfig
from worldmodel.training.loss import LossConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Recording:
    """A recorded data set: environment, episodes, seed, and the outer camera that is used."""

    env: str
    episodes: int
    seed: int
    view: str


@dataclass(frozen=True)
class Task:
    """A task to learn from few episodes with actions; the held-out ones have another seed."""

    train: Recording
    held_out: Recording
    relative_to: Mapping[int, int] = field(default_factory=dict)


VIDEO = {
    "push-video": Recording("metaworld:push-v3", 20, 42, "scene"),
    "reach-video": Recording("metaworld:reach-v3", 20, 40, "scene"),
    "button-video": Recording("metaworld:button-press-topdown-v3", 16, 40, "scene"),
    "pusht-video": Recording("pusht", 20, 40, "top"),
    "sand-video": Recording("pusht-sand", 12, 40, "top"),
}
"""What is recorded for the pretraining; the actions are left out."""
TASKS = {
    "push": Task(Recording("metaworld:push-v3", 25, 41, "scene"), Recording("metaworld:push-v3", 16, 43, "scene")),
    "rope": Task(Recording("pusht-rope", 25, 41, "top"), Recording("pusht-rope", 16, 43, "top"), {0: 0, 1: 1}),
}
ROBOTS = {"g1_bottle": (3, 20), "droid_three_cameras": (1, 10)}
"""Real robots: frames of the data per frame of video, and episodes, of which all cameras are used."""
FPS, CAMERA = 10, "camera"
"""Of all videos; the network sees no other time than the number of a frame."""
Arm = Literal["pretrained", "random", "tiny", "adapters"]
Step = Literal["record", "codec", "pretrain", "adapt", "measure"]
HORIZONS, PICTURE = (1, 5, 10), "transfer.png"
LOSS = LossConfig(shortcut_interval=0)
"""Of the transformer: dreams of two steps do not need the large steps that shortcut rows train."""


@dataclass(frozen=True)
class TransferConfig:
    """What to train and to measure."""

    out: Path
    """Folder of everything that is written."""
    robots: Path | None = None
    """Folder of the real robots' data sets `g1_bottle` and `droid_three_cameras`; without it they are left out."""
    only: tuple[Step, ...] = ("record", "codec", "pretrain", "adapt", "measure")
    """Steps to do; each needs the results of those before it."""
    tasks: tuple[str, ...] = ("push", "rope")
    """Tasks to learn: the video of push is in the pretraining, that of rope is not."""
    arms: tuple[Arm, ...] = ("pretrained", "random", "tiny", "adapters")
    """Arms; the others are compared with the first."""
    video_minutes: float = 50.0
    """CPU minutes of the pretraining, in one thread."""
    minutes: tuple[float, ...] = (1.0, 5.0)
    """CPU minutes of each arm and task; every number of minutes is a training of its own."""
    learning_rate: float = 2e-3
    """Peak learning rate of the transformer, in all arms but tiny, whose own is used."""
    rank: int = 16
    """Rank of the adapters."""
    starts: int = 2
    """Windows per held-out episode."""
    temperature: float = 0.0
    """Scale of the noise of the dreams; without noise they are nearer to the mean, in all arms."""
    batch: int = 4
    """Clips per step of the transformer, in all arms but tiny."""
    size: int = 32
    """Side of the pictures in pixels; they are recorded with 64."""
    seed: int = 0
    """Seed of weights, batches and noise."""
    base: BaseConfig = field(default_factory=BaseConfig)
    """The pipeline that is pretrained."""
    quick: bool = False
    """Without Meta-World, two episodes of each data set, a small network, seconds of training; no result."""


def quick(config: TransferConfig) -> TransferConfig:
    """A try of the whole path."""
    base = BaseConfig(codec_width=8, channels=4, codec_steps=4, codec_batch=4, heads=1, layers=1)
    return replace(config, tasks=("rope",), base=base, video_minutes=0.02, minutes=(0.02,), starts=1)


# Data


Part = tuple[EpisodeSource, int, int]
"""A data set, every how many frames of it are used, and how many episodes at most."""


def write_videos(folder: Path, parts: Iterable[Part], *, tables: bool = False) -> None:
    """Write a folder of videos, unless it is there; each camera is an episode of its own, if there are no `tables`."""
    if folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.building")
    shutil.rmtree(aside, ignore_errors=True)
    for source, stride, most in parts:
        for episode, view in product(range(min(len(source), most)), range(len(source.views))):
            clip = source.read(episode, 0, source.lengths[episode], stride)
            part = aside / f"episode_{len(list(aside.glob('*'))):06d}"
            part.mkdir(parents=True)
            encode_video(part / f"{CAMERA}.mp4", clip.frames[:, view].numpy(), FPS)
            if tables:
                np.save(part / "actions.npy", clip.actions.numpy())
                np.save(part / "states.npy", clip.states.numpy())
    aside.rename(folder)


def recorded(config: TransferConfig, name: str, recording: Recording) -> EpisodeSource:
    """Record a data set, unless it is complete, and open its outer camera."""
    episodes = 2 if config.quick else recording.episodes
    settings = {"episodes": episodes, "seed": recording.seed, "size": 64, "workers": 1}
    folder = record(RecordConfig(recording.env, config.out / "data" / name, **settings))
    return open_episodes(folder, (config.size, config.size), (recording.view,))


def prepare(config: TransferConfig) -> None:
    """Record everything, and write it as plain videos: `video`, and with tables one folder for each task and split."""
    for name in config.tasks:
        for split, recording in (("train", TASKS[name].train), ("held_out", TASKS[name].held_out)):
            source = recorded(config, f"{name}-{split}", recording)
            write_videos(config.out / f"{name}-{split}", [(source, 1, len(source))], tables=True)
    wanted = {name: each for name, each in VIDEO.items() if not (config.quick and each.env.startswith("metaworld"))}
    sources = [recorded(config, name, each) for name, each in wanted.items()]
    parts: list[Part] = [(source, 1, len(source)) for source in sources]
    for name, (stride, most) in ROBOTS.items() if config.robots else ():
        parts.append((open_episodes(config.robots / name, (config.size, config.size)), stride, most))
    write_videos(config.out / "video", parts)


# Training


def run_of(config: TransferConfig, kind: type[PretrainConfig], data: str, out: str, minutes: float, **more) -> Path:
    """Train, unless it is done; what a killed run left is continued."""
    folder = config.out / out
    if (folder / "world.json").exists():
        return folder
    print(f"{out}: {minutes:g} CPU minutes", flush=True)
    shared = {"steps": 10**6, "minutes": minutes, "clock": "cpu", "seed": config.seed, "device": "cpu", "log": "none"}
    shared |= {"validation_episodes": 0, "validation_interval": 10**9, "save_interval": 100}
    resume = has_state(folder)
    return pretrain(kind(config.out / data, folder, resume=resume, overwrite=not resume, **shared, **more))


def video_run(
    config: TransferConfig, backbone: str, data: str, out: str, minutes: float, rank: int = 0, **more
) -> Path:
    """Train the transformer of a pipeline in --out, all weights or adapters of a rank."""
    dit = PretrainedConfig(str(config.out / backbone), lora_rank=rank, recompute=False)
    options = {"dit": dit, "batch": config.batch, "learning_rate": config.learning_rate, "loss": LOSS}
    return run_of(config, VideoConfig, data, out, minutes, **options, **more)


def make_codec(config: TransferConfig) -> None:
    """Train the autoencoder and draw the random transformer: the pipeline `random`."""
    if not (config.out / "random" / "vae" / "config.json").exists():
        source = EpisodeCache(open_episodes(config.out / "video"))
        train_codec(config.base, source, config.out / "random" / "vae", config.seed)
    if not (config.out / "random" / "transformer" / "config.json").exists():
        torch.manual_seed(config.seed)
        new_transformer(config.base).save_pretrained(config.out / "random" / "transformer")


def make_base(config: TransferConfig) -> None:
    """Pretrain on video, and write the pipeline `base`, in bf16."""
    run = video_run(config, "random", "video", "pretraining", config.video_minutes, use_actions=False)
    if not (config.out / "base").exists():
        shutil.copytree(config.out / "random" / "vae", config.out / "base.building" / "vae", dirs_exist_ok=True)
        transformer = self_contained(WorldModel.load(run)).to(torch.bfloat16)
        transformer.save_pretrained(config.out / "base.building" / "transformer")
        description = config.out / "base.building" / "transformer" / "config.json"  # it names the folder it came from
        write_json(description, {k: v for k, v in read_object(description).items() if k != "_name_or_path"})
        (config.out / "base.building").rename(config.out / "base")


def folder_of(task: str, arm: Arm, minutes: float) -> str:
    """Where an arm is, in --out."""
    return f"{task}-{arm}-{minutes:g}"


def adapt(config: TransferConfig, task: str, arm: Arm, minutes: float) -> Path:
    """One arm: learn a task from the episodes with actions."""
    more = {"relative_to": dict(TASKS[task].relative_to)}
    data, out = f"{task}-train", folder_of(task, arm, minutes)
    if arm == "tiny":
        return run_of(config, PretrainConfig, data, out, minutes, **more)
    backbone, rank = ("random" if arm == "random" else "base"), (config.rank if arm == "adapters" else 0)
    return video_run(config, backbone, data, out, minutes, rank, **more)


# Measures


@torch.no_grad()
def dreams(config: TransferConfig, source: EpisodeSource, worlds: Mapping[str, WorldModel]) -> dict[str, torch.Tensor]:
    """Frames at the horizons: recorded, copied, and dreamed by each world under its true and under shuffled actions."""
    windows = evenly_spaced_windows(source, starts=config.starts, horizon=max(HORIZONS), stride=1)
    partners = shuffled_partners(windows, seed=config.seed)
    clip, other = (read_windows(source, part, horizon=max(HORIZONS), stride=1) for part in (windows, partners))
    last = clip.frames[:, CONTEXT_FRAMES - 1, 0]
    found = {"recording": clip.frames[:, [CONTEXT_FRAMES - 1 + horizon for horizon in HORIZONS], 0]}
    found["copying"] = repeat(last, "b H W c -> b h H W c", h=len(HORIZONS))
    for arm, world in worlds.items():
        start = world.stream(context_of(clip), seeds=range(len(windows)))
        for name, actions in ((arm, clip.actions), (f"{arm}, shuffled", other.actions)):
            future = actions[:, CONTEXT_FRAMES - 1 :]
            found[name] = dream(start, future, horizon=max(HORIZONS), horizons=HORIZONS, num_steps=2)[:, :, 0]
        print(f"{arm}: dreamed", flush=True)
    return found | {"episodes": torch.tensor([window.episode for window in windows])}


def measure(config: TransferConfig, task: str, minutes: float) -> dict:
    """Scores of every arm of a task, and the number of its optimiser steps; writes a picture of some dreams."""
    source = EpisodeCache(open_episodes(config.out / f"{task}-held_out"))
    folders = {arm: config.out / folder_of(task, arm, minutes) for arm in config.arms}
    found = dreams(config, source, {arm: load(config, folder) for arm, folder in folders.items()})
    episodes, truth = found.pop("episodes").numpy(), found.pop("recording")
    Image.fromarray(strip(truth, found)).save(config.out / f"{task}-{minutes:g}.png")
    result = compare(config.arms, truth, found, episodes)
    for arm, folder in folders.items():
        result[arm]["steps"] = len((folder / "losses.csv").read_text().splitlines()) - 1
    return result | {"minutes": minutes, "episodes": len(set(episodes.tolist())), "windows": len(episodes)}


def compare(
    arms: Sequence[str], truth: torch.Tensor, found: Mapping[str, torch.Tensor], episodes: np.ndarray
) -> dict[str, dict]:
    """Of every arm at every horizon: masked PSNR, the lead of the first arm, and what shuffled actions cost."""
    scores = masked_psnr(truth, found, found["copying"])
    result = {}
    for name in ("copying", *arms):
        rows = {"masked_psnr": scores[name], "lead": scores[arms[0]] - scores[name]}
        if name != "copying":
            rows["gap"] = scores[name] - scores[f"{name}, shuffled"]
        result[name] = {
            key: [summary(column.double().numpy(), episodes) for column in values.T] for key, values in rows.items()
        }
    return result


def load(config: TransferConfig, folder: Path) -> WorldModel:
    """A world model that dreams at the temperature that is asked for."""
    world = WorldModel.load(folder)
    world.config = replace(world.config, temperature=config.temperature)
    return world


def summary(values: np.ndarray, episodes: np.ndarray) -> dict:
    """Mean and its 95% interval over episodes, of the windows in which something moved."""
    kept = np.isfinite(values)
    return {"mean": float(values[kept].mean()), "interval": bootstrap_interval(values[kept], episodes[kept])}


def strip(truth: torch.Tensor, found: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Six windows side by side at the last horizon: the recording, below it copying and the dream of every arm."""
    picked = np.linspace(0, len(truth) - 1, 6).astype(int)
    frames = (truth, *(each for name, each in found.items() if "shuffled" not in name))
    return np.concatenate([rearrange(each[picked, -1].numpy(), "b h w c -> h (b w) c") for each in frames])


def cell(score: dict, sign: str = "") -> str:
    """Mean and interval."""
    ends = score["interval"]
    return f"{score['mean']:{sign}.2f}" + ("" if ends is None else f" [{ends[0]:{sign}.2f}, {ends[1]:{sign}.2f}]")


def tables(config: TransferConfig, results: Mapping[str, Sequence[dict]]) -> str:
    """Markdown: one table for each task and number of minutes."""
    parts = []
    heads = [
        "arm",
        "steps",
        *(f"masked PSNR at {h}, dB" for h in HORIZONS),
        f"{config.arms[0]} leads by",
        "shuffled cost",
    ]
    for task, result in ((task, result) for task, several in results.items() for result in several):
        lines = []
        for name in ("copying", *config.arms):
            row = result[name]
            lead = "-" if name == config.arms[0] else cell(row["lead"][-1], "+")
            gap = cell(row["gap"][-1], "+") if "gap" in row else "-"
            lines.append([name, str(row.get("steps", "-")), *(cell(s) for s in row["masked_psnr"]), lead, gap])
        seen = "its video is in the pretraining" if task == "push" else "its video is not in the pretraining"
        head = f"# {task}: {seen}; CPU minutes: {result['minutes']:g}; held-out episodes: {result['episodes']}"
        parts.append(f"{head}\n\n{table(heads, lines)}")
    return "\n\n".join(parts)


def main(config: TransferConfig) -> None:
    """Do the steps that are asked for and not done yet; print the tables."""
    torch.set_num_threads(1)
    config = quick(config) if config.quick else config
    arms = list(product(config.tasks, config.arms, config.minutes))
    adapting = sum(minutes for _, _, minutes in arms)
    planned = config.video_minutes * ("pretrain" in config.only) + adapting * ("adapt" in config.only)
    print(f"trainings take {planned:g} CPU minutes in all, less what is done already", flush=True)
    config.out.mkdir(parents=True, exist_ok=True)
    if "record" in config.only:
        prepare(config)
    if "codec" in config.only:
        make_codec(config)
    if "pretrain" in config.only:
        make_base(config)
    for task, arm, minutes in arms if "adapt" in config.only else ():
        adapt(config, task, arm, minutes)
    if "measure" in config.only:
        results = {task: [measure(config, task, minutes) for minutes in config.minutes] for task in config.tasks}
        write_json(config.out / "transfer.json", results)
        strips = [config.out / f"{task}-{max(config.minutes):g}.png" for task in config.tasks]
        picture = Image.fromarray(np.concatenate([np.array(Image.open(each)) for each in strips]))
        picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(config.out / PICTURE)
        print(tables(config, results), flush=True)


if __name__ == "__main__":
    main(tyro.cli(TransferConfig, description=__doc__))
