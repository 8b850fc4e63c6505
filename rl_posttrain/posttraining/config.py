"""Settings of post-training, and the check that they fit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rl_posttrain.posttraining.pathwise import config as pathwise
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.updates import UpdateWeights
from rl_posttrain.rewards.credit import Credit
from rl_posttrain.rewards.mix import RewardWeights
from worldmodel.data import EpisodeSource
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.display.ranges import Count, OpenShare, Positive, Share, Weight, Whole
from worldmodel.dreams.context import check_views
from worldmodel.fidelity.windows import evenly_spaced_windows, trained_episodes
from worldmodel.model.codec import PixelCodec
from worldmodel.training.accelerator import Tracker
from worldmodel.training.loss import LossConfig
from worldmodel.world_model import WorldModel

Objective = Literal["pathwise", "nft", "flow-grpo", "self-rollout", "combined", "teacher-forced"]


@dataclass(frozen=True)
class PosttrainConfig:
    """Improve a world model on its own rollouts."""

    world: str | Path
    """Folder of the world model to start from, or hf://USER/NAME@REV."""
    data: DataPath
    """Recorded episodes; the last ones are held out and only measured."""
    out: Path
    """Folder of the better world model, of tables, curves, videos and a page, report.html."""
    inverse_dynamics: str | Path | None = None
    """Folder that `worldmodel inverse-dynamics` wrote. Two more rewards then use the actions that it decodes."""
    judge: str | Path | None = None
    """Folder that `worldmodel judge` wrote, or module:name. One more reward is then the agreement of its verdicts on
    dreamed frames with the recorded successes."""
    cross_view: str | Path | None = None
    """Folder that `worldmodel fidelity --cross-view` wrote, or hf://USER/NAME@REV. Validations then also measure
    whether the cameras of a dream tell one story, and a world model that gets worse at this is not kept."""
    objective: Objective = "nft"
    """pathwise follows the gradient of rewards through the last decoding step of its own rollouts, beside a regression
    to the recording. nft moves towards the better candidates and away from the worse ones. flow-grpo makes the noise of
    the better ones more likely; its candidates are single frames (--branch 1), drawn with a random step between two.
    self-rollout and teacher-forced are controls: they regress to the recording, from frames that the model generated or
    from recorded frames. combined is nft and self-rollout together."""
    steps: Count = 300
    """Number of updates; the run ends earlier if --minutes are over, or after --patience validations."""
    minutes: Positive | None = None
    """Minutes after which the run ends; by default there is no limit."""
    clock: Literal["wall", "cpu"] = "wall"
    """Clock of --minutes: wall time, or the CPU time of the process."""
    groups: Count = 4
    """Number of starts per update, over all processes of `accelerate launch`."""
    accumulate: Count = 1
    """Number of parts in which a process computes the gradient of its starts, one after another. The result is the
    same, with less memory. Not for --objective pathwise."""
    candidates: Count = 4
    """Branches per start; the two controls draw one."""
    keep: Whole = 0
    """Number of the best candidates of a group, and of the worst ones, that take part; 0 for all."""
    context: Count = 4
    """Number of recorded frames that a stream is shown first."""
    prefix: Whole = 24
    """Maximum number of frames that the model rolls out by itself before the branches."""
    branch: Count = 4
    """Number of frames of a candidate."""
    num_steps: Count = 2
    """Denoising steps of the sampler that is improved; with 1 step the candidates hardly differ."""
    temperature: Weight = 1.0
    """Scale of the noise of candidates and updates; without noise all candidates would be equal. Prefixes and
    evaluations use the world model's own temperature."""
    beta: Positive = 1.0
    """b of the contrastive loss (PersistWorld, equation 2); a smaller value moves the prediction further towards good
    candidates."""
    credit: Credit = "clip"
    """How finely the candidates of a start are compared: as a whole (clip), frame by frame, for each camera of a frame
    (view), or in each --cell of a camera's frame."""
    cell: Count = 8
    """Side of a cell in pixels if --credit is cell."""
    inner: bool = False
    """Leave pixels that are black or white in the recording out of the comparison. Noise that would leave the range is
    cut off there and costs nothing, so that every update would push such pixels beyond it."""
    advantage_limit: Positive = 1.0
    """Largest absolute value of an advantage; larger ones are clipped."""
    old_decay_rate: Weight = 0.001
    """Growth of --old-decay per update, from 0 on."""
    old_decay: Share = 0.5
    """Largest share of the sampling policy's weights that an update keeps; the rest comes from the trained weights."""
    kl_weight: Weight = 0.0
    """Weight of the squared distance to the original world model; the paper PersistWorld found no effect."""
    supervision: Weight = 1.0
    """Weight of the regression if --objective is combined."""
    learning_rate: Positive | None = None
    """Learning rate after the warm-up; the most important setting. By default 2e-5 for pathwise, and 3e-6 for all
    others. A rate of 3e-4 harmed a world model within 7 updates
    (objects 5 px further off, less motion), although its rewards looked fine. A rate of 3e-5 harmed a well-trained one
    within 60 updates. Adapters tolerate higher rates."""
    warmup: Whole = 10
    """Number of updates over which the learning rate grows to its full value."""
    train: Literal["all", "lora", "conditioner"] = "all"
    """Which weights are trained: all, low-rank adapters in their place, which are merged into them at the end, or
    those that embed actions and states alone."""
    lora_rank: Count = 16
    """Rank of the adapters of --train lora. Adapters need a higher --learning-rate and the package peft."""
    muon: bool = True
    """Train the hidden matrices with Muon, and all else with AdamW. Adapters are always trained with AdamW."""
    clip_norm: Positive = 1.0
    """Largest gradient norm."""
    average_decay: OpenShare = 0.95
    """Decay of the moving average of the weights; the average is measured and saved."""
    validation_episodes: Whole | None = None
    """Number of held-out episodes, the last ones of the data; by default 8, or a fifth of a small data set."""
    validation_interval: Count = 50
    """Updates between validations."""
    validation_horizon: Count = 50
    """Number of dreamed frames of a validation."""
    validation_starts: Count = 1
    """Number of windows that a validation dreams of each held-out episode."""
    patience: Whole = 4
    """Number of validations in a row that are worse in an unrewarded measure after which the run stops. The last world
    model that is not worse than the best one by more than a standard error is kept. With 0 the run never stops early,
    and the last world model is kept."""
    save_interval: Count = 50
    """Updates between training states."""
    log: Tracker = "tensorboard"
    """Where the curves go: to TensorBoard (in `log` in the folder of the run), to wandb or trackio, which you install
    yourself, or nowhere. The tables in the folder are written in any case."""
    resume: bool = False
    """Continue the stopped run in --out; the result is that of a run that was never stopped."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: Whole = 0
    """Seed of prefixes, branches and noise."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it trains: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""
    reward: RewardWeights = field(default_factory=RewardWeights)
    """Weights of the rewards."""
    pathwise: PathwiseConfig = field(default_factory=PathwiseConfig)
    """Rollouts and rewards of the objective pathwise."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The pretraining loss; the two controls use it, and all objectives use its weight of moving pixels."""

    @property
    def rate(self) -> float:
        """The learning rate after the warm-up."""
        if self.learning_rate is None:
            return 2e-5 if self.differentiable else 3e-6
        return self.learning_rate

    @property
    def frames(self) -> int:
        """Number of frames that an update predicts, for the speed that is shown."""
        if self.differentiable:
            return self.groups * (self.pathwise.frames - 1)
        return self.groups * (self.candidates if self.contrastive else 1) * self.branch

    @property
    def differentiable(self) -> bool:
        """Whether rewards are improved by their own gradient."""
        return self.objective == "pathwise"

    @property
    def contrastive(self) -> bool:
        """Whether candidates are compared."""
        return self.objective in ("nft", "flow-grpo", "combined")

    @property
    def update_weights(self) -> UpdateWeights:
        """Terms of the loss."""
        supervision = {"self-rollout": 1.0, "combined": self.supervision}.get(self.objective, 0.0)
        contrast, policy = (float(self.objective in names) for names in (("nft", "combined"), ("flow-grpo",)))
        return UpdateWeights(contrast, supervision, self.kl_weight, self.beta, policy, self.inner)


def check(config: PosttrainConfig, world: WorldModel, source: EpisodeSource, held_out: range) -> None:
    """Raise a `ValueError` where data, world model and configuration do not fit."""
    check_views(world, source)
    if world.dit.rewrites:
        raise ValueError(f"{config.world}: post-training needs a separable world model")
    if not world.action_dim:
        raise ValueError(f"{config.world}: post-training needs a world model with actions")
    if config.num_steps not in world.allowed_steps:
        raise ValueError(f"num_steps={config.num_steps}, expected one of {world.allowed_steps}")
    if world.chunk > 1:
        raise ValueError(
            f"{config.world}: latents of {world.chunk} frames each cannot be post-trained, only those of one"
        )
    if config.differentiable and config.accumulate > 1:
        raise ValueError(
            f"--accumulate {config.accumulate}: --objective pathwise scales its gradients over all starts, pass 1"
        )
    if config.contrastive and config.candidates < 2:
        raise ValueError(f"candidates={config.candidates}: a contrast needs at least 2")
    if config.contrastive and config.temperature == 0:
        raise ValueError(f"temperature={config.temperature}: a contrast needs it above 0")
    if 2 * config.keep > config.candidates:
        raise ValueError(
            f"keep={config.keep} best and worst need {2 * config.keep} candidates, got {config.candidates}"
        )
    if config.differentiable:
        pathwise.check(config.pathwise)
    if config.objective == "flow-grpo" and (config.branch, config.num_steps) != (1, 2):
        raise ValueError(
            f"--objective flow-grpo: candidates are one frame of two steps, so it needs --branch 1 --num-steps 2, "
            f"got {config.branch} and {config.num_steps}"
        )
    if config.inner and not isinstance(world.codec, PixelCodec):
        raise ValueError(f"--inner: leaves out black and white pixels, but the latents of {config.world} are no pixels")
    if config.credit == "cell":
        check_cells(config.cell, world)
    known = sorted(set(trained_episodes(world.train_data, source)) & set(held_out))
    if known:
        raise ValueError(f"{source.name}: episodes {known} are held out, but {config.world} was trained on them")
    horizon, starts = config.validation_horizon, config.validation_starts
    evenly_spaced_windows(source, starts=starts, horizon=horizon, stride=world.stride, episodes=held_out)


def check_cells(cell: int, world: WorldModel) -> None:
    """Raise a `ValueError` where cells of that side do not fill the frames, or do not fit the latents."""
    latent, size = world.latent_shape[1:], world.size
    for pixels, cells in zip(size, latent, strict=True):
        number = pixels // cell if cell > 0 and pixels % cell == 0 else 0
        if not number or (cells % number and number % cells):
            raise ValueError(
                f"--cell {cell}: cells have to fill frames of {size[0]} x {size[1]} pixels and fit latents of "
                f"{latent[0]} x {latent[1]}"
            )
