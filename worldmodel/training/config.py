"""The settings of pretraining: presets for a laptop, for a large GPU, and for a pretrained video transformer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.ranges import Count, OpenShare, Positive, Several, Whole
from worldmodel.model.dit import DiTConfig
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.training.accelerator import Tracker
from worldmodel.training.loss import LossConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Train a world model from a folder of episodes."""

    data: DataPath
    """Data set: a LeRobot folder, a folder of videos, or HDF5 files; `worldmodel info` describes it."""
    out: Path
    """Folder for the world model, the training state, logs and validation videos."""
    steps: Count = 3000
    """Number of optimiser steps; the run ends earlier if --minutes are over."""
    minutes: Positive | None = None
    """Minutes after which the run ends; by then the learning rate has decayed to 0. By default there is no limit."""
    clock: Literal["wall", "cpu"] = "wall"
    """Clock of --minutes: wall time, or the CPU time of the process, which other programs do not disturb."""
    batch: Count = 8
    """Clips per optimiser step, over all processes of `accelerate launch`."""
    accumulate: Count = 1
    """Number of parts in which a process computes its clips of a step, one after another. The result is the same, with
    less memory."""
    frames: Several = 10
    """Frames per clip: one frame from earlier in the episode, then consecutive ones. All consecutive frames but the
    first are predicted."""
    long_interval: Whole = 0
    """One batch in this many has long clips, which predict twice as many frames; 0 for none."""
    stride: Count = 1
    """Data frames per model frame; the actions in between are concatenated."""
    views: tuple[str, ...] = ()
    """Cameras to train on, by name; by default all."""
    size: tuple[Count, Count] | Literal["auto", "native"] = "auto"
    """Height and width of the frames. native is the size in the data; auto is the same size, made smaller if a picture
    has more than --picture-pixels."""
    picture_pixels: Count = 96 * 128
    """Largest number of pixels of a frame with which --size auto keeps the size in the data."""
    relative_to: dict[Whole, Whole] = field(default_factory=dict)
    """Pairs of an action dim and a state dim. The action is an absolute target for that state; the network gets the
    difference of the two."""
    angles: tuple[Whole, ...] | Literal["auto", "none"] = "auto"
    """State dims that are angles and wrap. auto finds those that jump by a whole turn somewhere in the data."""
    injection: Literal["token", "adaln", "cross"] = "adaln"
    """How actions reach the transformer."""
    task_words: str | None = None
    """Tell the world model the task in words: table, or module:name of a sentence encoder, as for `worldmodel clone`. A
    world model that is given actions should not need it: it could predict what the expert does at this task whatever
    the actions are. By default it is not told."""
    use_actions: bool = True
    """Train with the recorded actions. Without them the world model is trained on video alone."""
    action_dropout: OpenShare = 0.0
    """Share of the clips in which the actions are unknown from a random frame on. With some, the world model learns to
    predict without an action, which `fidelity --guidance` needs."""
    latent_actions: Whole = 0
    """Number of dims of latent actions, which are learned from video without actions; 0 for none."""
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    warmup: Whole = 50
    """Number of steps over which the learning rate grows to its peak."""
    muon: bool = True
    """Train the hidden matrices with Muon, and all else with AdamW."""
    clip_norm: Positive = 1.0
    """Largest gradient norm."""
    average_decay: OpenShare = 0.998
    """Decay of the moving average of the weights; the average is saved."""
    codec: str | Path | None = None
    """Folder of a diffusers autoencoder (Tiny, KL or KLWan); by default the model works on pixels."""
    compile: bool = False
    """Compile the transformer with `torch.compile`."""
    validation_episodes: Whole | None = None
    """Number of held-out episodes, the last ones of the data, which are used only for validation; by default 8, or a
    fifth of a small data set."""
    validation_interval: Count = 1000
    """Steps between validations."""
    save_interval: Count = 500
    """Steps between training states."""
    init: str | Path | None = None
    """World model to start from, for example one that was pretrained without actions; it also sets the architecture."""
    log: Tracker = "tensorboard"
    """Where the curves go: to TensorBoard (in `log` in the folder of the run), to wandb or trackio, which you install
    yourself, or nowhere. The tables in the folder are written in any case."""
    resume: bool = False
    """Continue the stopped run in --out; the result is that of a run that was never stopped."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: Whole = 0
    """Seed of weights, batches and noise."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it trains: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""
    frames_per_latent: Literal[1, 4] = 1
    """1 encodes every frame by itself; 4 encodes videos, as Wan's autoencoder was trained to, which is faster where
    several actions are known in advance. --frames is then 5, 9, 13, ..."""
    max_steps: Count = 4
    """Largest number of denoising steps that is trained, a power of two; dreams can then take 1, 2, ... up to it."""
    dit: DiTConfig = field(default_factory=DiTConfig)
    """The transformer."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The loss."""


@dataclass(frozen=True)
class BaseConfig(PretrainConfig):
    """About 100M weights, one large GPU."""

    steps: Count = 100_000
    picture_pixels: Count = 240 * 320
    batch: Count = 32
    frames: Several = 17
    warmup: Whole = 500
    average_decay: OpenShare = 0.9995
    compile: bool = True
    dit: DiTConfig = field(
        default_factory=lambda: DiTConfig(width=768, encoder_depth=9, decoder_depth=3, window=32, time_interval=3)
    )


@dataclass(frozen=True)
class VideoConfig(PretrainConfig):
    """A pretrained video transformer, such as Wan 2.2 5B, with adapters; one large GPU."""

    dit: Annotated[PretrainedConfig, tyro.conf.arg(name="")] = field(kw_only=True)
    """The transformer."""
    steps: Count = 5000
    batch: Count = 16
    frames: Several = 9
    picture_pixels: Count = 256 * 320
    learning_rate: Positive = 1e-4
    warmup: Whole = 100
    codec: str | Path | None = None
    """Folder of another autoencoder with latents of the same kind; by default the one of --backbone."""
    latent_cache: bool = True
    """Encode all frames once, before training, and keep their latents on the disk."""
    injection: tyro.conf.Suppress[Literal["adaln"]] = "adaln"
    muon: tyro.conf.Suppress[bool] = False
    compile: tyro.conf.Suppress[bool] = False
    latent_actions: tyro.conf.Suppress[Whole] = 0
    loss: LossConfig = field(default_factory=lambda: LossConfig(weighting="velocity"))


PretrainCommand = (
    Annotated[PretrainConfig, tyro.conf.subcommand("tiny", description="3.6M weights, 64x64 pictures, a laptop CPU.")]
    | Annotated[BaseConfig, tyro.conf.subcommand("base")]
    | Annotated[VideoConfig, tyro.conf.subcommand("video")]
)
