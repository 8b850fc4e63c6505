"""DROID, 14 autoregressive steps: a world model on a pretrained video transformer beside Ctrl-World and PersistWorld.

    python benchmarks/pretrained.py --out runs/benchmarks/droid
    python benchmarks/pretrained.py --world runs/droid --out runs/benchmarks/droid

It needs the hub (data of about 4 MB an episode, and a transformer of 12 GB) and a GPU of 80 GB. What it does:

1. Train `pretrain video` on episodes of DROID, unless `--world` names a world model: three cameras of 192 x 320, every
   third frame (5 a second), the commanded pose and gripper as the action.
2. Dream the test episodes, every hundredth of the data, from their first frame alone under the recorded actions: 14
   steps of 4 frames, 11.2 seconds. PSNR, SSIM and LPIPS are means over these 56 frames, per camera, with an interval
   over episodes, beside copying the first frame.
3. Print these rows under the published ones, and what differs.

The command goes on where it was stopped: training from its last state, and measuring after the last episode.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float32, UInt8
from torch import Tensor

from worldmodel.data import EpisodeSource, open_episodes, stack_clips
from worldmodel.data.options import DataOptions
from worldmodel.data.video.write import write_video
from worldmodel.display.progress import ProgressLine
from worldmodel.dreams.context import check_views
from worldmodel.dreams.film import compare
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.metrics import Lpips, ssim, valid_region
from worldmodel.fidelity.windows import trained_episodes
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.model.folder import fingerprint
from worldmodel.model.precision import command_device, describe
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.psnr import psnr
from worldmodel.training.checkpoint import SETTINGS
from worldmodel.training.config import VideoConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

METRICS = {"ssim": ("SSIM", "{:.3f}"), "psnr": ("PSNR, dB", "{:.2f}"), "lpips": ("LPIPS", "{:.3f}")}
CARD, PAPER = "https://huggingface.co/jaibrdhn/persistworld", "https://arxiv.org/abs/2603.25685"
PUBLISHED = (
    ("external", "WPE, as Ctrl-World quotes it", "0.77", "20.33", "0.131"),
    ("external", "IRASim, as Ctrl-World quotes it", "0.77", "21.36", "0.117"),
    ("external", "Ctrl-World, its paper", "0.83", "23.56", "0.091"),
    ("external", "Ctrl-World, repeated by PersistWorld", "0.84", "23.02", "0.081"),
    ("external", "PersistWorld", "0.86", "24.42", "0.070"),
    ("wrist", "Ctrl-World, repeated by PersistWorld", "0.62", "17.80", "0.310"),
    ("wrist", "PersistWorld", "0.67", "19.39", "0.277"),
)
"""Cameras, model, SSIM, PSNR and LPIPS, from the model card of PersistWorld (`CARD`) and its paper (`PAPER`)."""
DIFFERS = (
    ("test episodes", "Ctrl-World's split, those with number % 100 = 99; how many was not found", "its first {clips}"),
    ("actions", "the recorded poses at the dreamed frames", "the commanded poses, which the arm follows with a lag"),
    ("pictures", "180 x 320 stretched to 192 x 320", "180 x 320 with padding, which is cut off before it is compared"),
    ("words", "Ctrl-World is told the task", "the prompt {prompt!r}"),
    ("training data", "95,000 episodes", "{train}"),
    ("metrics", "the authors' code, which was not read", "torchmetrics' SSIM, LPIPS with AlexNet, PSNR of each frame"),
)
"""Where the two ways to measure differ: what, theirs, ours."""


@dataclass(frozen=True)
class PretrainedBench:
    """What to train and to measure."""

    out: Path = Path("runs/benchmarks/droid")
    """Folder for the world model, the figures of each episode, films and the report."""
    world: str | Path | None = None
    """World model to measure, a folder or hf://USER/NAME@REV; by default one is trained."""
    backbone: str = "hf://Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    """Transformer to train on."""
    data: str = "hf://cadene/droid_1.0.1"
    """LeRobot set; of one behind a URL only what is needed is fetched."""
    views: tuple[str, ...] = ("exterior_1_left", "exterior_2_left", "wrist_left")
    """Cameras; those with wrist in their names are counted apart."""
    action_keys: tuple[str, ...] = ("action.cartesian_position", "action.gripper_position")
    """Columns of the action."""
    state_keys: tuple[str, ...] = ("observation.state.cartesian_position", "observation.state.gripper_position")
    """Columns of the state."""
    targets: int = 7
    """The first so many dims of the action are absolute targets for the same dims of the state."""
    size: tuple[int, int] = (192, 320)
    """Height and width of the frames."""
    stride: int = 3
    """Data frames per dreamed frame, in training."""
    every: int = 100
    """The last one of every so many episodes is for testing."""
    clips: int = 100
    """Test episodes; those that are too short are left out."""
    train_episodes: int = 1000
    """Training episodes, the first ones that are not for testing."""
    steps: int = 5000
    """Training steps."""
    batch: int = 16
    """Clips of a training step."""
    frames: int = 9
    """Frames of a training clip."""
    lora_rank: int = 64
    """Rank of the adapters."""
    prompt: str = "none"
    """The text that the transformer is given."""
    autoregressive: int = 14
    """Steps of a dream; each is `new_frames` frames."""
    new_frames: int = 4
    """Frames that a step adds."""
    num_steps: int = 4
    """Denoising steps per frame."""
    together: int = 4
    """Test episodes that are dreamed at a time."""
    films: int = 4
    """Test episodes of which a video is written."""
    seed: int = 0
    """Seed of training and dreams."""
    device: str = "auto"
    """Where the networks run."""

    @property
    def horizon(self) -> int:
        """Dreamed frames."""
        return self.autoregressive * self.new_frames

    def reading(self, *, test: bool) -> DataOptions:
        """Options that read the episodes for testing, or those for training."""
        every, many = self.every, self.clips if test else self.train_episodes
        numbers = (number for number in count() if (number % every == every - 1) == test)
        chosen = ",".join(f"{number}:{number + 1}" for number in islice(numbers, many))
        keys = {"action_keys": self.action_keys, "state_keys": self.state_keys}
        return DataOptions(skip_broken=True, episodes=chosen, **keys)


def train(config: PretrainedBench) -> Path:
    """Train the world model, or go on with it; returns its folder."""
    out = config.out / "world"
    return pretrain(
        VideoConfig(
            data=config.data,
            out=out,
            dit=PretrainedConfig(config.backbone, lora_rank=config.lora_rank, prompt=config.prompt),
            steps=config.steps,
            batch=config.batch,
            frames=config.frames,
            stride=config.stride,
            views=config.views,
            size=config.size,
            relative_to={dim: dim for dim in range(config.targets)},
            reading=config.reading(test=False),
            resume=(out / SETTINGS).is_file(),
            seed=config.seed,
            device=config.device,
        )
    )


def open_tested(config: PretrainedBench, world: WorldModel, span: int) -> tuple[EpisodeSource, list[int]]:
    """The test data, and its episodes that have at least `span` frames.

    Raises:
        ValueError: The data does not fit the world model, which was trained on some of it, or all episodes are too
            short.
    """
    source = open_episodes(config.data, tuple(world.size), world.views, config.reading(test=True))
    check_views(world, source)
    if seen := trained_episodes(world.train_data, source):
        raise ValueError(f"{source.name}: the world model was trained on {len(seen)} of the test episodes")
    long = [episode for episode, length in enumerate(source.lengths) if length >= span]
    if not long:
        raise ValueError(f"{source.name}: the longest test episode has {max(source.lengths)} frames, needed are {span}")
    return source, long


def scores(
    truth: UInt8[Tensor, "b m H W 3"], dream: UInt8[Tensor, "b m H W 3"], lpips: Lpips | None
) -> dict[str, Float32[Tensor, " b"]]:
    """Means over the frames of each clip, of one camera; without LPIPS where it cannot be measured."""
    found = {"ssim": ssim(dream, truth), "psnr": psnr(dream, truth)}
    if lpips is not None:
        found["lpips"] = lpips(dream, truth)
    return {name: values.mean(1) for name, values in found.items()}


def measure(config: PretrainedBench, world: WorldModel, lpips: Lpips | None) -> list[dict]:
    """Dream the test episodes and note the scores of each, after those that are noted already."""
    span = config.horizon * world.stride + 1
    source, episodes = open_tested(config, world, span)
    notes = config.out / "clips.jsonl"
    done = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    known = {row["episode"] for row in done}
    left = [episode for episode in episodes if source.origins[episode].number not in known]
    cuts = [valid_region(mask) for mask in source.pixel_mask]
    with ProgressLine("dreaming", len(episodes), unit="episodes", completed=len(done)) as progress:
        for first in range(0, len(left), config.together):
            part = left[first : first + config.together]
            numbers = [source.origins[episode].number for episode in part]
            clip = stack_clips([source.read(episode, 0, span, world.stride) for episode in part])
            seeds = [config.seed + number for number in numbers]
            dream = world.rollout(clip.head(1), clip.actions, num_steps=config.num_steps, seeds=seeds).frames.cpu()
            truth, start = clip.frames[:, 1:], clip.frames[:, :1].expand_as(clip.frames[:, 1:])
            rows = [{"episode": number, "dream": {}, "copy": {}} for number in numbers]
            for kind, frames in {"dream": dream, "copy": start}.items():
                for view, (name, cut) in enumerate(zip(source.views, cuts, strict=True)):
                    found = scores(*(each[:, :, view, *cut] for each in (truth, frames)), lpips)
                    for row, *values in zip(rows, *found.values(), strict=True):
                        row[kind][name] = dict(zip(found, map(float, values), strict=True))
            with notes.open("a") as stream:
                stream.writelines(json.dumps(row) + "\n" for row in rows)
            for index in range(min(len(part), max(config.films - len(done), 0))):
                film = compare(truth[index], dream[index], world.views)
                write_video(config.out / f"episode-{numbers[index]}.mp4", film, world.fps / world.stride)
            done += rows
            progress.advance(len(part))
    return done


def summary(rows: Sequence[Mapping], cameras: Sequence[str], kind: str, seed: int) -> dict[str, dict]:
    """Mean and interval over episodes of each metric, of which an episode has the mean over these cameras."""
    found = {}
    for metric in METRICS:
        if metric not in rows[0][kind][cameras[0]]:
            continue
        values = np.array([np.mean([row[kind][camera][metric] for camera in cameras]) for row in rows])
        interval = bootstrap_interval(values, np.arange(len(values)), seed=seed)
        found[metric] = {"mean": float(values.mean()), "interval": interval}
    return found


def cells(found: Mapping[str, dict]) -> list[str]:
    """The cells of one row."""
    shown = []
    for metric, (_, pattern) in METRICS.items():
        value = found.get(metric)
        between = value and value["interval"]
        span = f" ({' to '.join(pattern.format(end) for end in between)})" if between else ""
        shown.append("not measured" if value is None else pattern.format(value["mean"]) + span)
    return shown


def tables(config: PretrainedBench, report: Mapping) -> str:
    """The published rows with ours below, and what differs."""
    head = ("cameras", "model", *(label for label, _ in METRICS.values()))
    rows: list[Sequence[str]] = list(PUBLISHED)
    for group, kinds in report["groups"].items():
        rows.append((group, f"ours, {report['clips']} episodes", *cells(kinds["dream"])))
        rows.append((group, "copying the first frame", *cells(kinds["copy"])))
    said = {"clips": report["clips"], "prompt": config.prompt}
    said["train"] = f"{config.train_episodes} episodes" if config.world is None else f"those of {config.world}"
    differs = [(what, theirs, ours.format(**said)) for what, theirs, ours in DIFFERS]
    each = [(name, *cells(found)) for name, found in report["cameras"].items()]
    return "\n\n".join(
        (
            f"# DROID, {config.autoregressive} autoregressive steps\n\nPublished: {CARD}, {PAPER}",
            table(head, rows),
            "# Our cameras, one by one",
            table(("camera", *head[2:]), each),
            "# What differs",
            table(("what", "theirs", "ours"), differs),
        )
    )


def main(config: PretrainedBench) -> None:
    """Train, dream, measure, and print the tables."""
    config.out.mkdir(parents=True, exist_ok=True)
    folder = train(config) if config.world is None else config.world
    world = WorldModel.load(folder, command_device(config.device))
    settings = {"world": fingerprint(folder), "data": config.data, "horizon": config.horizon}
    settings |= {"num_steps": config.num_steps, "seed": config.seed}
    file = config.out / "settings.json"
    if file.exists() and (before := read_object(file)) != settings:
        raise SystemExit(
            f"{file}: the figures there are of {before}, these would be of {settings}; choose another --out"
        )
    write_json(file, settings)
    reason = Lpips.missing_reason()
    if reason is not None:
        print(reason)
    rows = measure(config, world, None if reason else Lpips(world.device))
    wrist = [view for view in world.views if "wrist" in view]
    groups = {"external": [view for view in world.views if view not in wrist], "wrist": wrist}
    report = {
        "clips": len(rows),
        "groups": {
            group: {kind: summary(rows, cameras, kind, config.seed) for kind in ("dream", "copy")}
            for group, cameras in groups.items()
            if cameras
        },
        "cameras": {view: summary(rows, [view], "dream", config.seed) for view in world.views},
        "settings": {name: str(value) for name, value in asdict(config).items()},
        "device": describe(world.device),
    }
    write_json(config.out / "report.json", report)
    print(tables(config, report))


if __name__ == "__main__":
    main(tyro.cli(PretrainedBench, description=__doc__))
