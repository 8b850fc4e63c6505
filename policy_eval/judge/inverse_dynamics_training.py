"""Train inverse dynamics and measure how well they decode. `worldmodel inverse-dynamics`."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from conditioning.relative import check_relative_to
from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.data.sample import sample_clips, split_episodes
from worldmodel.display.progress import LOG
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.files import write_json
from worldmodel.model.folder import check_out
from worldmodel.model.precision import autocast, command_device
from worldmodel.training.fit import fit
from worldmodel.training.statistics import state_angles
from worldmodel.world_model import WorldModel

TOLERANCE = 0.25
"""A decoded action is right if each dim is off by at most this share of its standard deviation."""
TEST_FRAMES = 64
"""Frames of each held-out episode that are decoded."""


@dataclass(frozen=True)
class InverseDynamicsTraining:
    """Learn to decode actions from recorded frames, and measure it on held-out episodes."""

    data: DataPath
    """Data set of episodes with actions."""
    out: Path
    """Folder of the model and of its `report.json`."""
    world: str | Path | None = None
    """Folder of a world model, or hf://USER/NAME@REV. Its dreams of the held-out episodes are decoded, too, and it sets
    the stride and --relative-to."""
    relative_to: dict[int, int] = field(default_factory=dict)
    """Pairs of an action dim and a state dim. The action is an absolute target for that state, and is decoded relative
    to it."""
    cap: float | None = None
    """Longest displacement of the relative dims; by default the median of the data."""
    displacement: bool = True
    """Actions are displacements, as relative ones are; otherwise they are positions."""
    steps: int = 600
    """Optimiser steps."""
    batch: int = 8
    """Clips per step."""
    frames: int = 8
    """Frames per clip."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW, with cosine decay."""
    validation_episodes: int | None = None
    """Number of held-out episodes, the last ones of the data; by default 8, or a fifth of a small data set."""
    num_steps: int = 2
    """Denoising steps of the dreams."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: int = 0
    """Seed of weights, batches and dreams."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it trains and dreams: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def train_inverse_dynamics(config: InverseDynamicsTraining) -> dict:
    """Train, measure, and write the model and `report.json`; returns the report.

    Raises:
        ValueError: The data has no actions, does not fit the world model, or the loss is not
            finite.
    """
    check_out(config.out, "config.json", overwrite=config.overwrite)
    device = command_device(config.device)
    world = None if config.world is None else WorldModel.load(config.world, device)
    shape = () if world is None else (tuple(world.size), world.views)
    source = EpisodeCache(open_episodes(config.data, *shape, options=config.reading))
    if not source.action_dim:
        raise ValueError(f"{source.name}: no actions to learn to decode")
    train, held_out = split_episodes(source, config.validation_episodes)
    dynamics = build(config, source, train, world).to(device)
    loss = fit_dynamics(dynamics, source, train, config)
    stride = 1 if world is None else world.stride
    report: dict = {
        "data": str(config.data),
        "train_episodes": len(train),
        "cap": dynamics.config.cap,
        "loss": loss,
        "tolerance": TOLERANCE,
        "real": measure(dynamics, [real_clip(source, e, stride).to(device) for e in held_out]),
    }
    if world is not None:
        dreams = [dreamt_clip(world, source, e, config.num_steps, config.seed) for e in held_out]
        report["generated"] = measure(dynamics, dreams)
    dynamics.save(config.out)
    write_json(config.out / "report.json", report)
    for kind in ("real", "generated"):
        if kind in report:
            row = report[kind]
            print(
                f"{kind:9} frames: {row['within']:.1%} of {row['n']} actions within tolerance, "
                f"{row['explained']:.1%} of the variance explained"
            )
    return report


def build(
    config: InverseDynamicsTraining, source: EpisodeSource, train: range, world: WorldModel | None
) -> InverseDynamics:
    """An untrained model for this data, normalised by its commands.

    Raises:
        ValueError: `relative_to` names a dim that the data does not have.
    """
    relative_to = config.relative_to or ({} if world is None else dict(world.relative_to))
    stride = 1 if world is None else world.stride
    dims = {"action_dim": source.action_dim, "state_dim": source.state_dim}
    check_relative_to(relative_to, data=source.name, **dims)
    torch.manual_seed(config.seed)
    shape = {
        "views": tuple(source.views),
        "size": tuple(source.size),
        "action_dim": source.action_dim * stride,
        "relative_to": {k * source.action_dim + dim: s for k in range(stride) for dim, s in relative_to.items()},
        "angles": dict(world.config.conditioner.angles) if world is not None else state_angles(source, "auto"),
        "displacement": config.displacement,
    }
    clips = [source.columns(episode, stride).map(lambda tensor: tensor[None]) for episode in train]
    cap = config.cap
    if cap is None and relative_to:
        uncapped = InverseDynamics(InverseDynamicsConfig(**shape))
        commands = torch.cat([uncapped.commanded(clip)[0] for clip in clips])
        cap = float(commands[:, list(shape["relative_to"])].norm(dim=-1).median())
    dynamics = InverseDynamics(InverseDynamicsConfig(**shape, cap=cap))
    commands = torch.cat([dynamics.commanded(clip)[0] for clip in clips])
    dynamics.mean.copy_(commands.mean(0))
    dynamics.std.copy_(commands.std(0, correction=0).clamp_min(1e-6))
    return dynamics


def fit_dynamics(
    dynamics: InverseDynamics, source: EpisodeSource, train: range, config: InverseDynamicsTraining
) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps."""
    stride = dynamics.config.action_dim // source.action_dim
    settings = {"batch": config.batch, "length": config.frames, "stride": stride, "seed": config.seed}

    def loss_of(step: int) -> Float[Tensor, ""]:
        clip = sample_clips(source, index=step, episodes=train, **settings).to(dynamics.mean.device)
        target = (dynamics.commanded(clip) - dynamics.mean) / dynamics.std
        with autocast(target.device):
            decoded = dynamics(clip.frames, clip.view_mask)
        return smooth_l1_loss(decoded.float(), target)

    return fit(
        dynamics,
        loss_of,
        steps=config.steps,
        learning_rate=config.learning_rate,
        name="inverse dynamics",
        log=config.out / LOG,
    )


def whole(source: EpisodeSource, episode: int, stride: int) -> Clip:
    """A whole episode with a batch axis of one."""
    clip = source.read(episode, 0, source.lengths[episode], stride)
    return clip.map(lambda tensor: tensor[None])


def real_clip(source: EpisodeSource, episode: int, stride: int) -> Clip:
    """The frames that dreams are compared with."""
    clip = whole(source, episode, stride).head(CONTEXT_FRAMES + TEST_FRAMES)
    late = CONTEXT_FRAMES - 1
    return Clip(clip.frames[:, late:], clip.actions[:, late:], None if clip.states is None else clip.states[:, late:])


def dreamt_clip(world: WorldModel, source: EpisodeSource, episode: int, num_steps: int, seed: int) -> Clip:
    """The dream of the same stretch; actions are relative to the dreamed states."""
    clip = whole(source, episode, world.stride).head(CONTEXT_FRAMES + TEST_FRAMES).to(world.device)
    actions = clip.actions[:, CONTEXT_FRAMES - 1 :]
    dream = world.rollout(context_of(clip), actions, num_steps=num_steps, seeds=seed + episode)
    last = clip.frames[:, [CONTEXT_FRAMES - 1]]
    states = None
    if clip.states is not None:
        states = clip.states[:, CONTEXT_FRAMES - 1 :]
        if dream.states is not None:
            states = torch.cat([states[:, :1], dream.states], dim=1)
    return Clip(torch.cat([last, dream.frames], dim=1), actions, states)


def measure(dynamics: InverseDynamics, clips: list[Clip]) -> dict:
    """How well the actions of clips are decoded; each clip has one stream.

    Returns:
        `within` (share of actions that are off by at most `TOLERANCE` standard deviations in every dim),
        `explained` (share of the variance of the commands), `error` (mean square, in deviations),
        and `n` actions.
    """
    errors = torch.cat([dynamics.errors(clip)[0] for clip in clips])
    commands = torch.cat([(dynamics.commanded(c) / dynamics.std)[0] for c in clips])
    spread = commands.var(0, correction=0).sum().clamp_min(1e-9)
    return {
        "within": float((errors.abs() <= TOLERANCE).all(-1).float().mean()),
        "explained": float(1 - errors.square().mean(0).sum() / spread),
        "error": float(errors.square().mean()),
        "n": len(errors),
    }
