"""Train inverse dynamics and measure how well they decode. `worldmodel inverse-dynamics`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from conditioning.angles import shortest
from conditioning.relative import check_relative_to
from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.judge.inverse_dynamics_limits import TOLERANCE, Decoded, decoded, find_limits, measure
from policy_eval.judge.inverse_dynamics_page import lines, meaning, write_page
from policy_eval.judge.state_probe import StateProbe
from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.data.sample import sample_clips, split_episodes
from worldmodel.display.progress import LOG
from worldmodel.display.ranges import Count, InnerShare, Positive, Several, Weight, Whole, check_ranges
from worldmodel.dreams.context import CONTEXT_FRAMES, context_of
from worldmodel.files import write_json
from worldmodel.model.folder import check_out
from worldmodel.model.precision import autocast
from worldmodel.training.accelerator import training_device
from worldmodel.training.fit import fit
from worldmodel.training.share import share
from worldmodel.training.statistics import state_angles
from worldmodel.world_model import WorldModel

HELD_OUT = 40
"""Most episodes that are held out by default, and a fifth of a small data set."""
LOG_DEVIATION = (-5.0, 3.0)
"""Range of the logarithm of the predicted deviation in the loss."""
HEAD_BATCH = 128
"""Moments in a step of the perceptrons alone."""
CUT = 4
"""Of one window in so many some frames before the action are left out, and of one some after it."""
PIECE_FRAMES = 128
"""Frames whose codes are computed together."""
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
    relative_to: dict[Whole, Whole] = field(default_factory=dict)
    """Pairs of an action dim and a state dim. The action is an absolute target for that state, and is decoded relative
    to it."""
    cap: Positive | None = None
    """Longest displacement of the relative dims; longer ones are shortened to it. By default none is shortened."""
    displacement: bool = True
    """Actions are displacements, as relative ones are; otherwise they are positions."""
    state_weight: Weight = 1.0
    """Weight of a second task: to tell the robot's state and how far it has moved from the code of every frame. It
    makes the network look closely at the robot; only pictures are decoded later. Of no effect without states."""
    states: bool = False
    """Read the robot's state beside the pictures, which tells its motion more precisely. As a reward this has a price:
    a dream whose pictures lose the robot is not noticed while its states are right."""
    steps: Count = 700
    """Optimiser steps."""
    head_steps: Whole = 2000
    """Steps of the perceptrons alone, afterwards. These are cheap: the pictures need not be looked at again."""
    batch: Count = 8
    """Clips per step."""
    frames: Several = 8
    """Frames per clip."""
    learning_rate: Positive = 2e-3
    """Peak learning rate of AdamW, with cosine decay."""
    validation_episodes: Whole | None = None
    """Number of held-out episodes, the last ones of the data; by default 40, or a fifth of a smaller data set. Every
    second one sets the limits of what is visible, the others are measured."""
    visible: InnerShare = 0.9
    """Share of the variance of a dim that has to be explained. Moments with larger predicted errors than this allows
    count as not visible, and are left out by the rewards."""
    num_steps: Count = 2
    """Denoising steps of the dreams."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    seed: Whole = 0
    """Seed of weights, batches and dreams."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    device: str = "auto"
    """Where it trains and dreams: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def train_inverse_dynamics(config: InverseDynamicsTraining) -> dict:
    """Train, find the limits of what is visible, measure, and write the model, `report.json` and `report.html`.

    Half of the held-out episodes (every second one) set the limits, the other half are measured.

    Returns:
        The report, of several processes only in the first one.

    Raises:
        ValueError: The data has no actions, does not fit the world model, too few episodes are held out, or the loss
            is not finite.
    """
    check_ranges(config)
    check_out(config.out, "config.json", overwrite=config.overwrite)
    if not 0 < config.visible < 1:
        raise ValueError(f"--visible {config.visible}: a share of the variance between 0 and 1")
    device = training_device(config.device)
    world = None if config.world is None else WorldModel.load(config.world, device)
    shape = () if world is None else (tuple(world.size), world.views)
    recorded = open_episodes(config.data, *shape, options=config.reading)
    source = EpisodeCache(recorded, cache_gb=config.reading.cache_gb)
    if not source.action_dim:
        raise ValueError(f"{source.name}: no actions to learn to decode")
    train, calibration, test = split(source, config.validation_episodes)
    dynamics = build(config, source, train, world).to(device)
    fit_dynamics(dynamics, source, train, config)
    loss = fit_heads(dynamics, source, train, config)
    if not share().first:
        return {}
    stride = 1 if world is None else world.stride
    known = [read_clip(dynamics, recorded_clip(source, e, stride)) for e in calibration]
    dynamics.limit.copy_(find_limits(known, config.visible))
    found = [read_clip(dynamics, recorded_clip(source, e, stride)) for e in test]
    report: dict = {
        "data": str(config.data),
        "world": None if config.world is None else str(config.world),
        "stride": stride,
        "train_episodes": len(train),
        "calibration_episodes": len(calibration),
        "test_episodes": len(test),
        "cap": dynamics.config.cap,
        "loss": loss,
        "tolerance": TOLERANCE,
        "wanted": config.visible,
        "states": config.states,
        "real": measure(found),
    }
    if world is not None:
        report |= measure_dreams(dynamics, world, source, test, config)
    dynamics.save(config.out)
    write_json(config.out / "report.json", report)
    write_page(report, found, config.out / "report.html")
    print("\n".join([*lines(report), *meaning(report)]))
    return report


def split(source: EpisodeSource, num_held_out: int | None) -> tuple[range, range, range]:
    """Episodes to train on, to find the limits, and to measure; the last two alternate at the end of the data.

    Raises:
        ValueError: Fewer than two episodes are held out.
    """
    if num_held_out is None:
        num_held_out = min(HELD_OUT, max(len(source) // 5, 2))
    train, held_out = split_episodes(source, num_held_out)
    if len(held_out) < 2:
        raise ValueError(
            f"{source.name}: --validation-episodes {num_held_out}: at least 2 are held out, one to find what is "
            "visible and one to measure"
        )
    return train, held_out[::2], held_out[1::2]


def read_clip(dynamics: InverseDynamics, clip: Clip) -> Decoded:
    """What is decoded from a clip of one stream, on the model's device, and visible in it."""
    clip = clip.to(dynamics.mean.device)
    reading = dynamics.read(clip)
    return decoded(dynamics, clip, reading, reading.visible)


def measure_dreams(
    dynamics: InverseDynamics,
    world: WorldModel,
    source: EpisodeSource,
    episodes: range,
    config: InverseDynamicsTraining,
) -> dict:
    """`generated`: dreams, measured where the recordings show the action; `recorded`: the recordings of the same."""
    dreamed, recorded = [], []
    for episode in episodes:
        real = read_clip(dynamics, real_clip(source, episode, world.stride))
        dream = dreamt_clip(world, source, episode, config.num_steps, config.seed)
        recorded.append(real)
        dreamed.append(replace(read_clip(dynamics, dream), seen=real.seen))
    return {"generated": measure(dreamed), "recorded": measure(recorded)}


def build(
    config: InverseDynamicsTraining, source: EpisodeSource, train: range, world: WorldModel | None
) -> InverseDynamics:
    """An untrained model for this data, normalised by its commands.

    Raises:
        ValueError: `relative_to` names a dim that the data does not have, or the data has no states to read.
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
        "state_dim": source.state_dim if config.states else 0,
    }
    if config.states and not source.state_dim:
        raise ValueError(f"{source.name}: --states needs states, the data has none")
    clips = [source.columns(episode, stride).map(lambda tensor: tensor[None]) for episode in train]
    dynamics = InverseDynamics(InverseDynamicsConfig(**shape, cap=config.cap))
    commands = torch.cat([dynamics.commanded(clip)[0] for clip in clips])
    dynamics.mean.copy_(commands.mean(0))
    dynamics.std.copy_(commands.std(0, correction=0).clamp_min(1e-6))
    if config.states:
        _normalise_states(dynamics, [clip.states[0] for clip in clips])
    return dynamics


def _normalise_states(dynamics: InverseDynamics, episodes: list[Float[Tensor, "_ s"]]) -> None:
    states = torch.cat(episodes)
    changes = torch.cat([shortest(rows.diff(dim=0), dynamics.config.angles) for rows in episodes])
    dynamics.state_mean.copy_(states.mean(0))
    for buffer, values in ((dynamics.state_std, states), (dynamics.change_std, changes)):
        deviation = values.std(0, correction=0)
        buffer.copy_(torch.where(deviation > 1e-6, deviation, 1.0))  # a dim that never moves is not magnified


def fit_dynamics(
    dynamics: InverseDynamics, source: EpisodeSource, train: range, config: InverseDynamicsTraining
) -> float:
    """Train in place; returns the mean loss of the last tenth of the steps."""
    stride = dynamics.config.action_dim // source.action_dim
    probe = None
    if source.state_dim and config.state_weight:
        states = [source.columns(episode, stride).states for episode in train]
        probe = StateProbe(states, dynamics.config.code, dynamics.config.angles).to(dynamics.mean.device)
    settings = {"batch": config.batch, "length": config.frames, "stride": stride, "seed": config.seed}

    def loss_of(step: int) -> Float[Tensor, ""]:
        mine = share().rows(config.batch)
        clip = sample_clips(source, index=step, episodes=train, rows=mine, **settings).to(dynamics.mean.device)
        target = (dynamics.commanded(clip) - dynamics.mean) / dynamics.std
        with autocast(target.device):
            codes = dynamics.encode(clip.frames, clip.view_mask)
            read, log_deviation = dynamics.decode_codes(codes, clip.states)
        loss = mse_loss(read.float(), target) + doubt_loss(log_deviation.float(), target - read.detach().float())
        if probe is not None:
            loss = loss + config.state_weight * probe(codes.float(), clip.states)
        return loss * share().weight(len(clip.frames), config.batch)

    return fit(
        dynamics if probe is None else nn.ModuleList([dynamics, probe]),
        loss_of,
        steps=config.steps,
        learning_rate=config.learning_rate,
        name="inverse dynamics",
        log=config.out / LOG,
    )


def fit_heads(dynamics: InverseDynamics, source: EpisodeSource, train: range, config: InverseDynamicsTraining) -> float:
    """Train the perceptrons anew, in place, on codes that are computed once; returns the loss of the last steps.

    They overfit less on single moments drawn from all episodes than on the few clips of a batch, and get
    more of them in the same time. Some frames at the ends of a window are left out at random, as at the ends of a clip.
    """
    stride = dynamics.config.action_dim // source.action_dim
    before, after = dynamics.config.before, dynamics.config.after
    codes, states, targets = [], [], []
    for episode in train:  # pictures are not kept: together they may not fit into memory
        clip = whole(source, episode, stride).to(dynamics.mean.device)
        codes.append(_codes(dynamics, clip))
        states.append(clip.states)
        targets.append((dynamics.commanded(clip)[0] - dynamics.mean) / dynamics.std)
    scale = _standardise(dynamics.describe, torch.cat(codes, dim=1)[0])
    rows, firsts = [], []
    for code, state in zip(codes, states, strict=True):
        inputs = dynamics.inputs(scale(code), state)[0]
        firsts.append(torch.arange(len(inputs) - 1, device=inputs.device) + sum(map(len, rows)))
        rows.append(nn.functional.pad(inputs, (0, 0, before, after)))
    table, target, first = torch.cat(rows), torch.cat(targets), torch.cat(firsts)
    reach = torch.arange(dynamics.window, device=table.device)
    generator = torch.Generator().manual_seed(config.seed)
    for module in (*dynamics.head, *dynamics.doubt):
        if isinstance(module, nn.Linear):
            module.reset_parameters()

    def loss_of(step: int) -> Float[Tensor, ""]:
        mine = share().rows(HEAD_BATCH)
        drawn = torch.randint(len(first), (HEAD_BATCH,), generator=generator)[mine].to(table.device)
        kept = kept_frames(HEAD_BATCH, before, after, generator)[mine].to(table.device)
        windows = rearrange(table[first[drawn, None] + reach] * kept[..., None], "b w i -> b i w")
        read, log_deviation = dynamics.decode_windows(windows)
        loss = mse_loss(read, target[drawn]) + doubt_loss(log_deviation, target[drawn] - read.detach())
        return loss * share().weight(len(drawn), HEAD_BATCH)

    return fit(
        nn.ModuleList([dynamics.head, dynamics.doubt]),
        loss_of,
        steps=config.head_steps,
        learning_rate=config.learning_rate,
        name="perceptrons",
        log=config.out / LOG,
    )


@torch.no_grad()
def _codes(dynamics: InverseDynamics, clip: Clip) -> Float[Tensor, "1 t c"]:
    """Codes of an episode, piece by piece; the first frame of a later piece is there for the difference from it."""
    pieces = []
    for start in range(0, clip.frames.shape[1], PIECE_FRAMES):
        early = min(start, 1)
        codes = dynamics.encode(clip.frames[:, start - early : start + PIECE_FRAMES], clip.view_mask)
        pieces.append(codes[:, early:])
    return torch.cat(pieces, dim=1)


@torch.no_grad()
def _standardise(
    linear: nn.Linear, outputs: Float[Tensor, "n c"]
) -> Callable[[Float[Tensor, "b t c"]], Float[Tensor, "b t c"]]:
    """Change a layer so that these outputs of it have mean 0 and deviation 1; returns what does so to its outputs."""
    mean, deviation = outputs.mean(0), outputs.std(0, correction=0).clamp_min(1e-6)
    linear.bias.copy_((linear.bias - mean) / deviation)
    linear.weight.div_(deviation[:, None])
    return lambda codes: (codes - mean) / deviation


def kept_frames(number: int, before: int, after: int, generator: torch.Generator) -> Bool[Tensor, "n w"]:
    """Which frames of windows are kept; of one window in `CUT` some at the beginning are left out, or at the end."""
    cut = torch.rand(number, 2, generator=generator) < 1 / CUT
    missing = (torch.rand(number, 2, generator=generator) * torch.tensor([before + 1, after + 1])).long() * cut
    place = torch.arange(before + 2 + after)
    return (place >= missing[:, :1]) & (place < before + 2 + after - missing[:, 1:])


def doubt_loss(log_deviation: Float[Tensor, "*b a"], error: Float[Tensor, "*b a"]) -> Float[Tensor, ""]:
    """Minus the log-likelihood of the errors under normal distributions of mean 0, without its constant.

    Of a moment it is `log(deviation) + error^2 / (2 deviation^2)`, least where the deviation is the error's size.
    """
    log_deviation = log_deviation.clamp(LOG_DEVIATION[0], LOG_DEVIATION[1])
    return (log_deviation + error.square() * (-2 * log_deviation).exp() / 2).mean()


def whole(source: EpisodeSource, episode: int, stride: int) -> Clip:
    """A whole episode with a batch axis of one."""
    clip = source.read(episode, 0, source.lengths[episode], stride)
    return clip.map(lambda tensor: tensor[None])


def recorded_clip(source: EpisodeSource, episode: int, stride: int) -> Clip:
    """The beginning of an episode, as many frames as are ever decoded of it."""
    return whole(source, episode, stride).head(CONTEXT_FRAMES + TEST_FRAMES)


def real_clip(source: EpisodeSource, episode: int, stride: int) -> Clip:
    """The frames that dreams are compared with."""
    clip = recorded_clip(source, episode, stride)
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
