"""The pretraining loss: flow matching in x-space with shortcut rows and self-forwarded context.

All randomness of one batch is drawn up front (`draw`), so the loss is a pure function of weights,
clip and draws: exact resume and data-parallel equality follow.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from conditioning.action import known_actions
from conditioning.latent_action import information, sample_latent, spread_error
from conditioning.trees import tree_map
from worldmodel.data.clip import Clip
from worldmodel.data.sample import erased_patches
from worldmodel.display.ranges import Count, Positive, Share, Weight, Whole
from worldmodel.model.backbone import EncodedFrames
from worldmodel.model.codec import PixelCodec, to_signed
from worldmodel.model.flow import add_noise, ramp_weight, shortcut_target, velocity_weight
from worldmodel.streaming.coded import by_latent, drawn_known, latents_of
from worldmodel.training.share import every_row, not_none, share
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class LossConfig:
    """Weights and probabilities of the pretraining loss."""

    ramp_floor: Weight = 0.4
    """Weight of the loss at noise level tau = 0 (pure noise); in general it is 0.9 tau + this value. Dreamer 4 has
    0.1."""
    weighting: Literal["ramp", "velocity"] = "ramp"
    """Weight of a noise level: ramp as --loss.ramp-floor says; velocity, 1 / (1 - tau)^2, as video models have it."""
    shortcut_interval: Whole = 4
    """One clip in this many is a shortcut row, which trains large denoising steps; 0 for none, and not 1."""
    motion_contrast: Positive = 6.0
    """Weight of a clearly moving pixel relative to that of a resting one; with 1 all pixels weigh the same."""
    motion_saturation: Positive = 0.1
    """Change of a pixel, on the scale [-1, 1], above which it counts as clearly moving."""
    state_weight: Weight = 0.05
    """Weight of the squared error of the normalised state displacement."""
    context_noise: Weight = 0.05
    """Largest standard deviation of the noise added to context frames."""
    erased: Share = 0.0
    """Share of the clips, for each camera, in which a rectangle shows the first frame of the clip instead."""
    forward_fraction: Share = 0.6
    """Share of the batches in which part of the context is predicted by the model itself (self-forwarding)."""
    forward_replaced: Share = 0.5
    """Share of the context frames that are predicted in such a batch; the others stay real."""
    forward_passes: Whole = 2
    """Largest number of prediction passes; after n passes, consecutive predicted frames have the errors of n steps."""
    largest_gap: Count = 64
    """Largest number of frames between the first frame of a clip, which stays visible, and the second one."""
    forward_start: Share = 0.4
    """Share of the run after which self-forwarding begins; earlier predictions are too poor to learn from."""
    latent_nats: Weight = 8.0
    """Information, in nats, that a latent action may carry without a penalty; with more of it, more of the next frame
    leaks into the action."""
    latent_weight: Weight = 1e-3
    """Penalty on every nat beyond --loss.latent-nats."""
    latent_spread: Weight = 0.1
    """Weight of the penalty on latent actions that differ too little from one another."""
    latent_dropped: Share = 0.1
    """Share of the batches without latent actions, so that the model also learns to predict without one."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one batch; row `i` belongs to clip `i`.

    Attributes:
        tau, step_size: Noise level and step size of each predicted frame.
        shortcut: Clips whose target is the result of two half steps, not the data.
        noise: Noise of the predicted latents.
        state_noise: Noise of the predicted state displacements.
        context_noise: Noise to be added to the context latents, already scaled.
        erased: Patches of the context that show the first frame of their clip instead.
        replaced: Context frames that become the model's own predictions.
        passes: Self-forwarding passes of this batch; 0 for none.
        history: Frames of history that time attention sees in this batch.
        gap: The second frame of the clips was recorded `gap` frames after the first. A stream always
            sees its first frame; the gap gives short clips such a distant first frame.
        latent_noise: Noise of the latent actions; `None` where they are dropped, or there are none.
        known: How many actions of each chunk are known; `None` where every latent is one frame.
        present: False where the action counts as unknown; `None` where all are known.
    """

    tau: Float[Tensor, "b t"]
    step_size: Float[Tensor, "b t"]
    shortcut: Bool[Tensor, "b"]
    noise: Float[Tensor, "b t v c h w"]
    state_noise: Float[Tensor, "b t s"]
    context_noise: Float[Tensor, "b t v c h w"]
    erased: Bool[Tensor, "b t v 1 h w"]
    replaced: Bool[Tensor, "b t"]
    passes: int
    history: int
    gap: int
    latent_noise: Float[Tensor, "b t l"] | None = None
    known: Int[Tensor, "b t"] | None = None
    present: Bool[Tensor, "b t"] | None = None

    def rows(self, start: int, stop: int) -> "Draws":
        """The draws of some rows of the batch."""
        return tree_map(lambda tensor: tensor[start:stop], self)

    def to(self, device: torch.device) -> "Draws":
        """Move every tensor to `device`."""
        return tree_map(lambda tensor: tensor.to(device), self)


def draw(
    world: WorldModel,
    config: LossConfig,
    *,
    batch: int,
    frames: int,
    generator: torch.Generator,
    largest_gap: int = 1,
    action_dropout: float = 0.0,
) -> Draws:
    """Draw the random numbers of a batch of clips with `frames` frames, on the world's device.

    The number of frames of a world with chunks is counted in latents from here on. `action_dropout` is the share of
    clips of `known_actions`. `largest_gap` is the largest gap that the data allows (default: 1). Clips of two frames
    have no gap: no frame would be left to predict. A GPU draws its noise itself, which on a CPU would take longer than
    the step on the GPU.
    """
    frames = latents_of(frames, world.chunk)
    shape, steps, device = (batch, frames - 1), world.config.max_steps, world.device
    noise_generator = generator
    if device.type != "cpu":
        noise_generator = torch.Generator(device).manual_seed(generator.initial_seed())

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=noise_generator, device=device)

    # Each frame is trained at a random step of a random sampler, among those of 1, 2, ... steps.
    step_size = 0.5 ** (uniform(*shape) * steps.bit_length()).floor()
    grid = 1 / step_size
    # A monolithic model also reads finished frames (tau = 1), with the smallest step size.
    grid = grid + (grid == steps) * int(world.dit.rewrites)
    tau = (uniform(*shape) * grid).floor() * step_size
    shortcut = torch.zeros(batch, dtype=torch.bool)
    every = config.shortcut_interval
    if every and steps > 1 and (batch >= every or uniform(1) < batch / every):  # a small batch has one now and then
        shortcut[::every] = True
        large = 0.5 ** (uniform(*shape) * (steps.bit_length() - 1)).floor()[shortcut]
        step_size[shortcut] = large
        tau[shortcut] = (uniform(*shape)[shortcut] / large).floor() * large
    latent = (*shape, len(world.views), *world.latent_shape)
    level = config.context_noise * uniform(*shape, 1, 1, 1, 1)
    forwarded = bool(uniform(1) < config.forward_fraction)
    passes = 1 + int(uniform(1) * config.forward_passes)
    gap = 1 + int(uniform(1) * (min(config.largest_gap, largest_gap) if frames > 2 else 1))
    replaced = uniform(*shape) < config.forward_replaced
    replaced[:, : 1 if gap == 1 else 2] = False
    drawn = Draws(
        tau=tau,
        step_size=step_size,
        shortcut=shortcut,
        noise=normal(*latent),
        state_noise=normal(*shape, world.state_dim * world.chunk),
        context_noise=level.to(device) * normal(*latent),
        erased=erased_patches(latent, config.erased, generator),
        replaced=replaced,
        passes=min(passes, config.forward_passes) if forwarded else 0,
        history=1 + int(uniform(1) * world.dit.window),
        gap=gap,
        known=drawn_known(shape, world.chunk, generator) if world.chunk > 1 else None,
    ).to(device)
    if action_dropout:
        drawn = replace(drawn, present=known_actions(shape, action_dropout, generator).to(device))
    if not world.describes or bool(uniform(1) < config.latent_dropped):
        return drawn
    return replace(drawn, latent_noise=normal(*shape, world.config.conditioner.latent_dim))


def motion_weight(
    target: Float[Tensor, "b t v c H W"],
    current: Float[Tensor, "b t v c H W"],
    contrast: float,
    saturation: float,
    cell: int = 1,
) -> Float[Tensor, "b t v 1 h w"]:
    """DWS's motion weight (2502.07825): softmax over the cells of a picture, mean 1.

    `w = N softmax(log(contrast) min(|target - current|, saturation) / saturation)`: a cell that
    changes by `saturation` or more weighs `contrast` times as much as a resting one. We chose
    temperature and saturation; the paper publishes neither. A cell has `cell` x `cell` pixels, and the largest of
    their changes.
    """
    change = reduce((target - current).abs(), "b t v c (h p) (w q) -> b t v h w", "max", p=cell, q=cell)
    moving = (change / saturation).clamp(max=1)
    weight = contrast**moving
    return rearrange(weight / weight.mean(dim=(-2, -1), keepdim=True), "b t v h w -> b t v 1 h w")


def cell_weight(
    world: WorldModel, clip: Clip, target: Tensor, current: Tensor, config: LossConfig
) -> Float[Tensor, "b t v 1 h w"]:
    """The motion weight of every latent cell; behind a codec motion is seen in the recorded pictures."""
    if not isinstance(world.codec, PixelCodec):
        pictures = to_signed(clip.frames)
        target, current = pictures[:, 1:], pictures[:, :-1]
    contrast, saturation = config.motion_contrast, config.motion_saturation
    return motion_weight(target, current, contrast, saturation, cell=world.codec.downsampling)


def frame_weights(
    world: WorldModel, draws: Draws, config: LossConfig
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b t"]]:
    """The weight of every predicted frame, and of its state."""
    counted = torch.ones_like(draws.tau)
    if draws.gap > 1:  # the second frame does not follow from the first
        counted[:, 0] = 0
        counted *= counted.shape[1] / (counted.shape[1] - 1)
    counted *= draws.tau < 1  # only a backbone that rewrites reads finished frames
    if config.weighting == "velocity":  # that of the frames: a state has no noise level of its own
        return counted * velocity_weight(draws.tau), counted
    weight = counted * ramp_weight(draws.tau, config.ramp_floor)
    return weight, weight


def training_loss(
    world: WorldModel, clip: Clip, draws: Draws, config: LossConfig
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Loss of a batch of clips and its parts, each the mean over clips of a mean over frames.

    Args:
        world: The model; its weights receive gradients.
        clip: `b` clips of `t` frames, on the model's device.
        draws: From `draw`, for the same batch and frames.
        config: Weights.

    Raises:
        ValueError: If the clip does not fit the model, or a loss is not finite.
    """
    world.check(clip)
    clip, reached = by_latent(world.codec, clip, draws.known)
    latents = world.codec.encode(clip.frames) if clip.latents is None else clip.latents.float()
    losses = {}
    if world.describes:
        clip, losses["latent"] = _describe(world, clip, latents, draws, config)
    target_latent = latents[:, 1:]
    context, states = self_generated(world, clip, latents, draws)
    context = torch.where(draws.erased, latents[:, :1], context)
    encoded = encode_context(world, clip, context + draws.context_noise, states, draws)
    target = (target_latent,)
    if states is not None:
        target = target_latent, world.conditioner.displacements(reached, states)
    noise = (draws.noise, draws.state_noise)[: len(target)]
    noisy = tuple(add_noise(x, n, draws.tau) for x, n in zip(target, noise, strict=True))
    predicted = world.predict(encoded, noisy, draws.tau, draws.step_size)
    goal = _with_shortcut_rows(world, encoded, draws, target, noisy) if config.shortcut_interval else target
    weight, state_weight = frame_weights(world, draws, config)
    pixel_weight = cell_weight(world, clip, target_latent, context, config) * presence(world, clip, context)
    error = pixel_weight * (predicted[0].float() - goal[0]) ** 2
    losses["frames"] = (weight * reduce(error, "b t v c h w -> b t", "mean")).mean()
    if len(target) > 1:
        squared = reduce((predicted[1].float() - goal[1]) ** 2, "b t s -> b t", "mean")
        losses["states"] = config.state_weight * (state_weight * squared).mean()
    return sum(losses.values()), {name: value.detach() for name, value in losses.items()}


def _describe(
    world: WorldModel, clip: Clip, latents: Tensor, draws: Draws, config: LossConfig
) -> tuple[Clip, Float[Tensor, ""]]:
    """Add latent actions to unlabelled video, unless they are dropped; returns also their penalty.

    Nats up to `latent_nats` are free (1606.04934): otherwise the latent loses its information before it is used.
    """
    mean, log_variance = world.latent_encoder(latents)
    actions = None
    if draws.latent_noise is not None:
        actions = sample_latent(mean, log_variance, draws.latent_noise)
    known = slice(int(draws.gap > 1), None)  # frames in the gap are not predicted
    mean, log_variance = mean[:, known], log_variance[:, known]
    excess = (information(mean, log_variance) - config.latent_nats).clamp(min=0).mean()
    cost = config.latent_weight * excess + config.latent_spread * spread_error(every_row(mean))
    return replace(clip, actions=actions), cost


def encode_context(
    world: WorldModel,
    clip: Clip,
    context: Float[Tensor, "b t v c h w"],
    states: Float[Tensor, "b t s"] | None,
    draws: Draws,
) -> EncodedFrames:
    """Encode the frames and states that predictions start from, under the actions of `clip`."""
    known = None if draws.known is None else draws.known[:, : context.shape[1]]
    present = None if draws.present is None else draws.present[:, : context.shape[1]]
    words = world.conditioner.vectors(clip.task, len(context))
    conditioning = world.conditioner(clip.actions, states, context.shape[:2], present, known=known, words=words)
    return world.dit.encode(context, conditioning, view_mask=clip.view_mask, history=draws.history, gap=draws.gap)


def self_generated(
    world: WorldModel, clip: Clip, latents: Float[Tensor, "b t v c h w"], draws: Draws, *, differentiated: int = 0
) -> tuple[Float[Tensor, "b t-1 v c h w"], Float[Tensor, "b t-1 s"] | None]:
    """The frames and states that predictions start from: recorded ones, and where `draws` says so the model's own.

    Args:
        world: The model.
        clip: `b` clips of `t` frames.
        latents: The frames of `clip`, encoded.
        draws: Which frames are replaced, in how many passes.
        differentiated: Number of the last passes through which gradients flow; their activations are computed
            again in the backward pass.
    """
    context, states = latents[:, :-1], None if clip.states is None else clip.states[:, :-1]
    for index in range(draws.passes):
        given = (world, clip, context, states, draws, latents)
        if index >= draws.passes - differentiated:
            context, states = checkpoint(_self_forward, *given, use_reentrant=False)
        else:
            with torch.no_grad():
                context, states = _self_forward(*given)
    return context, states


def _self_forward(
    world: WorldModel, clip: Clip, context: Tensor, states: Tensor | None, draws: Draws, latents: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Replace part of the context by one-step predictions made from the context before it.

    All are predicted from the current context in one parallel pass, as in parallel scheduled sampling (1906.04331).
    """
    wanted = draws.replaced[:, 1:]  # the frame after each
    if not wanted.any() and (world.dit.separable or share().number == 1):  # see `not_none`
        return context, states
    past = None if states is None else states[:, :-1]
    encoded = encode_context(world, clip.head(context.shape[1]), context[:, :-1], past, draws)
    noise = (draws.noise, draws.state_noise)[: 1 if states is None else 2]
    clean = _next_frames(world, encoded, tuple(part[:, :-1] for part in noise), wanted)
    replaced = latents[:, :-1].clone()
    replaced[:, 1:][wanted] = world.bound(clean[0])
    if states is None:
        return replaced, None
    moved = world.conditioner.moved_along(past[wanted], clean[1])[:, -1]
    replaced_states = clip.states[:, :-1].clone()
    replaced_states[:, 1:][wanted] = moved
    return replaced, replaced_states


def _next_frames(
    world: WorldModel, encoded: EncodedFrames, noise: tuple[Tensor, ...], wanted: Bool[Tensor, "b t"]
) -> tuple[Float[Tensor, "n ..."], ...]:
    """One-step predictions of the frames after the wanted ones; others are computed only if they must be."""
    if world.dit.separable:
        encoded = encoded.frames(wanted)
        noise = tuple(part[wanted][:, None] for part in noise)
        wanted = wanted.new_ones(len(noise[0]), 1)
    clean = world.sampler(lambda z, tau, step_size: world.predict(encoded, z, tau, step_size), noise, 1)
    return tuple(part[wanted].float() for part in clean)


def _with_shortcut_rows(
    world: WorldModel, encoded: EncodedFrames, draws: Draws, target: tuple[Tensor, ...], noisy: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The training target: the data, and on shortcut rows the result of two half steps."""
    rows = not_none(draws.shortcut)
    if not rows.any():
        return target
    with torch.no_grad():
        known = encoded.rows(rows)
        reached = shortcut_target(
            lambda z, tau, d: tuple(p.float() for p in world.predict(known, z, tau, d)),
            tuple(z[rows] for z in noisy),
            draws.tau[rows],
            draws.step_size[rows],
        )
    goals = tuple(x.clone() for x in target)
    for goal, value in zip(goals, reached, strict=True):
        goal[rows] = value
    return goals if draws.shortcut.any() else target


def presence(world: WorldModel, clip: Clip, latents: Tensor) -> Tensor:
    """The weight of every cell: that of its camera, 0 on padding and missing views."""
    present = latents.new_ones(len(latents), 1, len(world.views), 1, *world.latent_shape[1:])
    if clip.pixel_mask is not None:
        cell = world.codec.downsampling
        covered = reduce(clip.pixel_mask.float(), "b v (h p) (w q) -> b 1 v 1 h w", "min", p=cell, q=cell)
        present = present * covered
    if clip.view_mask is not None:
        present = present * rearrange(clip.view_mask.float(), "b v -> b 1 v 1 1 1")
    return present * rearrange(world.view_weight, "v -> v 1 1 1")
