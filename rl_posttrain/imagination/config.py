"""Settings of imagination, and the check of their numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rl_posttrain.imagination.distil.config import DistilConfig
from rl_posttrain.imagination.learner import LearnConfig
from rl_posttrain.rewards.extra import ExtraRewards
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.ranges import Count, InnerShare, Positive, Share, Weight, Whole, check_ranges
from worldmodel.training.accelerator import Tracker


@dataclass(frozen=True)
class ImagineConfig:
    """Improve a cloned policy inside a world model; an update takes about a minute of one core."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV; its training data should hold failures of this policy."""
    judge: str | Path
    """Who judges dreamed frames: the folder of a judge (or hf://USER/NAME@REV), module:name of yours, or the address
    of a server."""
    policy: str | Path
    """Folder of the cloned policy to start from, or hf://USER/NAME@REV."""
    data: DataPath
    """Recorded episodes; dreams start from their first frames, or with --no-first-frames from any frame before a
    success."""
    out: Path
    """Folder of the improved policy, of the log, and of the state for `--resume`."""
    ranking: Path | None = None
    """`ranking.json` of this world model and judge (`worldmodel rank --real`). A world model
    that does not rank policies is refused: in it the dreams improve while the policy gets worse."""
    method: Literal["actor-critic", "distil"] = "actor-critic"
    """How the policy learns: actor-critic explores and repeats what succeeded; distil imagines several plans at every
    decision and teaches the policy the best ones."""
    updates: Count = 18
    """Maximum number of updates; each one dreams --streams dreams. With --method distil an update is a round."""
    minutes: Positive | None = None
    """Minutes after which the run ends; by default there is no limit."""
    clock: Literal["wall", "cpu"] = "wall"
    """Clock of --minutes: wall time, or the CPU time of the process, which other programs do not disturb."""
    streams: Count = 40
    """Dreams per update; they run side by side."""
    noise_seeds: Count = 2
    """Number of dreams of every start, each with its own noise; their rewards count less where they disagree."""
    persistence: Share = 0.8
    """Correlation of the exploration noise between one action and the next; 0 is white noise."""
    horizon: Count = 30
    """Number of actions of a dream."""
    first_frames: bool = True
    """Start every dream from the first frame of an episode; otherwise from any frame before a success."""
    context: Count = 4
    """Real frames that a dream starts with; only one if it starts from the first frame of an episode."""
    num_steps: Count = 2
    """Denoising steps per frame."""
    temperature: Weight = 1.0
    """Scale of the dreams' noise, in place of the world model's own; at 0 all noise seeds agree."""
    pool: Count = 512
    """Number of starts to choose from; each has a priority."""
    priority: Weight = 0.6
    """Exponent of a start's TD error in the probability that it is drawn; 0 draws uniformly."""
    correction: Share = 0.4
    """Initial exponent of the importance weights, which grows to 1 over the run. With --learn.objective imitation only
    the critic's loss is weighted."""
    refresh_interval: Count = 5
    """Number of updates after which a tenth of the pool is replaced: the starts where the critic's error is
    smallest."""
    trust: bool = True
    """Rewards count less where the noise seeds disagree, if a check finds that disagreement predicts the error. With
    --learn.objective imitation a success is weighted by the share of its noise seeds that succeed instead."""
    held_out: InnerShare = 0.1
    """Share of the episodes that are used only to measure; they are the last ones. As many before them are used only
    to compare the best policy with the clone at the end, see --confirm."""
    confirm: Whole = 64
    """Dreams of the best policy and of the clone at the end, from starts by which nothing was chosen. The clone is kept
    unless the 95% interval of the gain in success lies above 0. With 0 there is no such comparison."""
    validation_starts: Count = 32
    """Number of held-out frames from which the actor is measured; they are the same every time."""
    validation_horizon: Count = 30
    """Number of actions of the dreams that measure."""
    validation_interval: Count = 3
    """Updates between measurements."""
    patience: Count = 6
    """Number of measurements without a better one after which the run ends."""
    save_interval: Count = 3
    """Updates between saved states."""
    real: str = "none"
    """Real environment, a name or module:Class, for trials of the clone and of the improved policy, and videos of the
    first ones. The run itself never sees it, but the clone is kept unless the improved policy succeeds more often."""
    real_data: Path | None = None
    """Recorded episodes whose starts the real trials use; by default those of --data."""
    real_trials: Count = 40
    """Number of real trials of each policy, from the same starts."""
    videos: Whole = 4
    """Number of videos."""
    video_steps: Count = 60
    """Maximum number of steps of a real trial, and of its video."""
    log: Tracker = "tensorboard"
    """Where the curves go: to TensorBoard (in `log` in the folder of the run), to wandb or trackio, which you install
    yourself, or nowhere. The tables in the folder are written in any case."""
    resume: bool = False
    """Continue the stopped run in --out; the result is that of a run that was never stopped."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: Whole = 0
    """Seed of dreams, exploration and batches."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""
    reward: ExtraRewards = field(default_factory=ExtraRewards)
    """Rewards of every action, beside the judge's success, which is worth 1."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    """How actor and critic learn."""
    distil: DistilConfig = field(default_factory=DistilConfig)
    """How the policy learns from imagined plans, with --method distil."""


def check_numbers(config: ImagineConfig) -> None:
    """Raise a `ValueError` naming the field that is out of range."""
    check_ranges(config)
    if config.streams % config.noise_seeds:
        raise ValueError(f"streams is a multiple of noise_seeds, got {config.streams} and {config.noise_seeds}")
