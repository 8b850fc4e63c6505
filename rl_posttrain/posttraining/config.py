"""Settings of post-training, and the check that they fit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rl_posttrain.posttraining.updates import UpdateWeights
from rl_posttrain.rewards.mix import RewardWeights
from worldmodel.data import EpisodeSource
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.dreams.context import check_views
from worldmodel.fidelity.windows import evenly_spaced_windows, trained_episodes
from worldmodel.training.loss import LossConfig
from worldmodel.world_model import WorldModel

Objective = Literal["nft", "self-rollout", "combined", "teacher-forced"]


@dataclass(frozen=True)
class PosttrainConfig:
    """Improve a world model on its own rollouts."""

    world: str | Path
    """Folder of the world model to start from, or hf://USER/NAME@REV."""
    data: DataPath
    """Recorded episodes; the last ones are only evaluated on."""
    out: Path
    """Folder of the better world model, of tables, curves, videos and a page, report.html."""
    inverse_dynamics: str | Path | None = None
    """Folder of inverse dynamics, which decode actions, for two more rewards; from `worldmodel inverse-dynamics`."""
    objective: Objective = "nft"
    """nft contrasts the candidates by reward. The controls regress to the recording: self-rollout from
    self-generated frames, teacher-forced from recorded ones. combined is nft and self-rollout."""
    steps: int = 300
    """Updates."""
    minutes: float | None = None
    """Time after which the run ends; `None`: no limit."""
    clock: Literal["wall", "cpu"] = "wall"
    """Clock of `minutes`: wall time, or CPU time of the process."""
    groups: int = 4
    """Starts per update, over all processes."""
    candidates: int = 4
    """Branches per start; the supervised controls draw one."""
    keep: int = 0
    """How many of the best and of the worst candidates of a group take part; 0 for all."""
    context: int = 4
    """Recorded frames that a stream is shown."""
    prefix: int = 24
    """Maximum number of frames that the model rolls out by itself before the branches."""
    branch: int = 4
    """Frames of a candidate."""
    num_steps: int = 2
    """Denoising steps of the sampler that is improved; with 1 it is nearly deterministic."""
    temperature: float = 1.0
    """Scale of the noise of candidates and updates. A contrast needs noise, so that
    candidates differ. Prefixes and evaluations use the world model's own temperature, like all other
    uses of it."""
    beta: float = 1.0
    """`b` of the objective."""
    advantage_limit: float = 1.0
    """Advantages are clipped to this size."""
    old_decay_rate: float = 0.001
    """How much the decay of the old policy grows with every update."""
    old_decay: float = 0.5
    """Largest decay of the old policy."""
    kl_weight: float = 0.0
    """Weight of the squared distance to the original world model; PersistWorld found no effect."""
    supervision: float = 1.0
    """Weight of the regression in the combined objective."""
    learning_rate: float = 3e-6
    """Learning rate, constant after the warm-up; the most important setting. 3e-4 harmed a world model
    within seven updates (objects 5 px further off, less motion) while its rewards looked fine. 3e-5
    harmed one that was trained for long within sixty, rewards included. Adapters tolerate more."""
    warmup: int = 10
    """Warm-up updates."""
    lora_rank: int = 0
    """Rank of the low-rank adapters that are trained in place of the weights and merged into them
    at the end; 0 trains the weights. Adapters need a larger --learning-rate. Needs peft."""
    muon: bool = True
    """Muon for hidden matrices; otherwise AdamW for all. Adapters always use AdamW."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    average_decay: float = 0.95
    """Decay of the moving average of the weights that is evaluated and saved."""
    validation_episodes: int | None = None
    """Number of episodes at the end of the data, held out; 8 when not given, or a fifth of a small data set."""
    validation_interval: int = 50
    """Updates between validations."""
    validation_horizon: int = 50
    """Dreamt frames of a validation."""
    validation_starts: int = 1
    """Windows of each held-out episode."""
    patience: int = 4
    """The run stops after this many validations without a better unrewarded measure, and keeps the best
    world model. 0 never stops and keeps the last one."""
    save_interval: int = 50
    """Updates between training states."""
    resume: bool = False
    """Continue exactly where `out` stopped."""
    overwrite: bool = False
    """Replace what an earlier run left in `out`."""
    seed: int = 0
    """Seed of prefixes, branches and noise."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it trains: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""
    reward: RewardWeights = field(default_factory=RewardWeights)
    """Weights of the rewards."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The pretraining loss, for the controls and for the weight of moving pixels."""

    @property
    def contrastive(self) -> bool:
        """Whether candidates are compared."""
        return self.objective in ("nft", "combined")

    @property
    def update_weights(self) -> UpdateWeights:
        """Terms of the loss."""
        supervision = {"self-rollout": 1.0, "combined": self.supervision}.get(self.objective, 0.0)
        return UpdateWeights(float(self.contrastive), supervision, self.kl_weight, self.beta)


def check(config: PosttrainConfig, world: WorldModel, source: EpisodeSource, held_out: range) -> None:
    """Raise a `ValueError` where data, world model and configuration do not fit."""
    check_views(world, source)
    if not world.dit.separable:
        raise ValueError(f"{config.world}: post-training needs a separable world model")
    if not world.action_dim:
        raise ValueError(f"{config.world}: post-training needs a world model with actions")
    if config.num_steps not in world.allowed_steps:
        raise ValueError(f"num_steps={config.num_steps}, expected one of {world.allowed_steps}")
    for name, least in (("groups", 1), ("context", 1), ("branch", 1), ("prefix", 0), ("lora_rank", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} is at least {least}, got {getattr(config, name)}")
    if config.contrastive and config.candidates < 2:
        raise ValueError(f"candidates={config.candidates}: a contrast needs at least 2")
    if config.temperature < 0 or (config.contrastive and config.temperature == 0):
        raise ValueError(f"temperature={config.temperature}: at least 0, and a contrast needs it above 0")
    if 2 * config.keep > config.candidates:
        raise ValueError(
            f"keep={config.keep} best and worst need {2 * config.keep} candidates, got {config.candidates}"
        )
    known = sorted(set(trained_episodes(world.train_data, source)) & set(held_out))
    if known:
        raise ValueError(f"{source.name}: episodes {known} are held out, but {config.world} was trained on them")
    horizon, starts = config.validation_horizon, config.validation_starts
    evenly_spaced_windows(source, starts=starts, horizon=horizon, stride=world.stride, episodes=held_out)
