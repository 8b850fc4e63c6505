"""A recorded episode beside the dream of it, as a video. `worldmodel rollout`."""

from dataclasses import dataclass, field
from pathlib import Path

from worldmodel.data import open_episodes
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.data.video.write import VIDEO_SUFFIXES, write_video
from worldmodel.display.ranges import Count, Whole, check_ranges
from worldmodel.dreams.film import compare, dream_episode
from worldmodel.model.folder import check_file
from worldmodel.model.precision import command_device
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class RolloutConfig:
    """Dream a recorded episode, and write a video of the truth and the dream."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    data: DataPath
    """Data set of the episode."""
    out: Path
    """The video: a file that ends in .mp4, or in .webp for a picture that moves in a README."""
    episode: Whole = 0
    """Index of the episode."""
    start: Whole = 0
    """First of the eight recorded frames that the world model reads before it dreams."""
    horizon: Count | None = None
    """Number of dreamed frames; by default up to the end of the episode."""
    num_steps: Count = 2
    """Denoising steps per frame."""
    seed: Whole = 0
    """Seed of the dream's noise."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    overwrite: bool = False
    """Replace a video that exists already."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def rollout(config: RolloutConfig) -> None:
    """Dream one episode under its recorded actions, and write a video of the truth above the dream.

    Raises:
        ValueError: The data does not fit the world model, the stretch lies outside the episode, or the video is there
            already or has another ending.
    """
    check_ranges(config)
    check_file(config.out, overwrite=config.overwrite)
    if config.out.suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"--out {config.out}: a video ends in one of {', '.join(VIDEO_SUFFIXES)}")
    world = WorldModel.load(config.world, command_device(config.device))
    source = open_episodes(config.data, tuple(world.size), world.views, config.reading)
    truth, dream = dream_episode(
        world,
        source,
        config.episode,
        start=config.start,
        horizon=config.horizon,
        num_steps=config.num_steps,
        seed=config.seed,
    )
    config.out.parent.mkdir(parents=True, exist_ok=True)
    write_video(config.out, compare(truth, dream, world.views), world.fps / world.stride)
    print(f"{config.out}: {len(dream)} dreamed frames of episode {config.episode}, truth above")
