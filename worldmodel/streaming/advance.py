"""Begin and advance streams: pure functions of their state, except that they write to its cache."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from conditioning.conditioner import Conditioner, Conditioning
from worldmodel.data.clip import Clip
from worldmodel.model.backbone import Backbone, EncodedFrames
from worldmodel.model.codec import LatentCodec
from worldmodel.model.flow import Predict, Sampler, guided
from worldmodel.model.precision import compute_dtype
from worldmodel.streaming.coded import code_clip, skipped_frames
from worldmodel.streaming.cuda_graph import replayed
from worldmodel.streaming.engine import EncodedFrame, FoldedEngine
from worldmodel.streaming.noise import stream_noise
from worldmodel.streaming.plain import PlainEngine
from worldmodel.streaming.state import OpenChunk, StreamState

Seeds = int | Sequence[int]
"""A noise seed for each stream; a whole number `s` gives stream `i` the seed `s + i`."""


@runtime_checkable
class Parts(Protocol):
    """The parts of a `WorldModel` that streams use; they are explained there."""

    dit: Backbone
    conditioner: Conditioner
    codec: LatentCodec
    sampler: Sampler
    device: torch.device
    allowed_steps: tuple[int, ...]
    knows_no_action: bool
    chunk: int
    guidance: float

    def check(self, clip: Clip) -> None:
        """Raise a `ValueError` when the clip does not fit."""
        ...

    def bound(self, latents: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Clamp latents to the values that pictures can have."""
        ...

    def engine(self) -> FoldedEngine | PlainEngine:
        """The engine that computes a step with the current weights."""
        ...


def begin(world: Parts, context: Clip, seeds: Seeds) -> StreamState:
    """Read the context; returns the state at its last frame.

    Raises:
        ValueError: Context or seeds do not fit.
    """
    world.check(context)
    context = context.to(world.device)
    coded = code_clip(world.codec, context)
    latents, states = coded.latents, coded.states
    batch, frames = latents.shape[:2]
    state = StreamState(
        cache=world.dit.new_cache(batch, compute_dtype(world.device)),
        frame=torch.zeros(batch, dtype=torch.long, device=world.device),
        latent=latents[:, 0],
        frames=context.frames[:, -1],
        reference=latents[:, 0].clone(),
        states=None if states is None else states[:, 0],
        seeds=seed_of_each(seeds, batch),
        view_mask=context.view_mask,
        words=world.conditioner.vectors(context.task, batch),
    )
    for index in range(frames - 1):
        actions = None if coded.actions is None else coded.actions[:, index]
        check_actions(world, state, actions)
        reached = None if coded.reached is None else coded.reached[:, index]
        observe(world, state, actions, latents[:, index + 1], reached)
        now = None if states is None else states[:, index + 1]
        state = replace(state, frame=state.frame + 1, latent=latents[:, index + 1], states=now)
    if world.chunk == 1:
        return state
    skipped = skipped_frames(context.frames.shape[1], world.chunk)
    return replace(state, chunk=_first_chunk(world, latents, state.states, skipped))


def _first_chunk(world: Parts, latents: Tensor, states: Tensor | None, skipped: int) -> OpenChunk:
    """The chunk after these latents, of which nothing is known yet; the decoder reads the latents for its features."""
    features = None
    for latent in latents.unbind(1):
        _, features = world.codec.decode_next(latent, features)
    config, batch = world.conditioner.config, len(latents)
    return OpenChunk(
        features=features,
        states=states,
        actions=latents.new_zeros(batch, world.chunk, config.action_dim * config.stride),
        known=torch.zeros(batch, dtype=torch.long, device=latents.device),
        skipped=torch.full((batch,), skipped, device=latents.device),
    )


def seed_of_each(seeds: Seeds, streams: int) -> Int[Tensor, "b"]:
    """One seed per stream.

    Raises:
        ValueError: There are fewer or more seeds than streams.
    """
    each = [seeds + i for i in range(streams)] if isinstance(seeds, int) else list(seeds)
    if len(each) != streams:
        raise ValueError(f"got {len(each)} seeds for {streams} streams")
    return torch.tensor(each, dtype=torch.long)


def check_actions(world: Parts, state: StreamState, actions: Tensor | None) -> None:
    """Raise a `ValueError` when these actions do not fit the streams; the conditioner checks their width."""
    if actions is None and (world.chunk > 1 or not world.knows_no_action):
        raise ValueError(
            "actions are None, but this world model was trained with an action at every frame: it does not know "
            "what happens without one"
        )
    if world.guidance != 1 and actions is not None and not world.knows_no_action:
        raise ValueError(
            f"guidance is {world.guidance}, but this world model was trained with an action at every frame, so that "
            "guidance has nothing to start from; train it with --action-dropout, or set guidance to 1"
        )
    if world.guidance != 1 and (world.chunk > 1 or not (world.dit.separable or world.dit.rewrites)):
        raise ValueError(
            f"guidance is {world.guidance}, but this network remembers a frame before it denoises the next one; "
            "guidance needs one that does not, such as that of `pretrain tiny`"
        )
    if actions is not None and len(actions) != len(state):
        raise ValueError(f"got actions for {len(actions)} streams, there are {len(state)}")


def observe(world: Parts, state: StreamState, actions: Tensor | None, latent: Tensor, reached: Tensor | None) -> None:
    """Write the current frame to the cache, when the next latent is known, and the states at its frames."""
    engine = world.engine()
    clean = (latent,)
    if reached is not None:
        clean = latent, world.conditioner.displacements(reached, state.states)
    engine.remember(engine.encode(state, _condition(world, state, actions)), clean)


def advance(
    world: Parts, state: StreamState, actions: Tensor | None, num_steps: int, temperature: float, *, shown: bool = True
) -> StreamState:
    """Dream the next frame of every stream; writes to the cache of `state`.

    Under guidance the current frame is encoded without its action, too; the cache keeps the frame with the action.
    A frame that is not `shown` is not decoded: the pictures stay those of the frame before.
    """
    engine, sampler = world.engine(), world.sampler
    guidance = 1.0 if actions is None else world.guidance

    def run(state: StreamState, actions: Tensor | None, *noise: Tensor) -> tuple[Tensor, ...]:
        condition = _condition(world, state, actions)
        untold = None if guidance == 1 else _condition(world, state, None)
        latent, *displacements = denoised(world, engine, sampler, state, condition, noise, num_steps, untold)
        moved = [world.conditioner.moved(state.states, part) for part in displacements]
        return latent, *([world.codec.decode(latent)] if shown else []), *moved

    noise = noise_of_step(world, state, num_steps, temperature)
    step = replayed if engine.replays else _at_once
    latent, *rest = step(run, (engine, sampler, num_steps, guidance, shown), state, actions, noise)
    frames, *states = rest if shown else (state.frames, *rest)
    return replace(state, frame=state.frame + 1, latent=latent, frames=frames, states=states[0] if states else None)


def denoised(
    world: Parts,
    engine: FoldedEngine | PlainEngine,
    sampler: Sampler,
    state: StreamState,
    conditioning: Conditioning,
    noise: tuple[Tensor, ...],
    num_steps: int,
    untold: Conditioning | None = None,
) -> tuple[Tensor, ...]:
    """The next latent of every stream, and the displacement of its state; no noise stands for zeros.

    With `untold`, the conditioning without the action, the prediction is guided away from what it would be then.
    """

    def predictor(conditioning: Conditioning) -> tuple[Predict, EncodedFrame | EncodedFrames]:
        encoded = engine.encode(state, conditioning)
        return lambda z, tau, step_size: engine.decode(encoded, z, tau, step_size), encoded

    without = None if untold is None else predictor(untold)[0]
    predict, encoded = predictor(conditioning)
    if without is not None:
        predict = guided(predict, without, world.guidance)
    z = noise or tuple(state.latent.new_zeros(len(state), *shape) for shape in _shapes(world, state))
    clean = sampler(predict, z, num_steps)
    latent = world.bound(clean[0])
    engine.remember(encoded, (latent, *clean[1:]))
    return latent, *clean[1:]


def noise_of_step(world: Parts, state: StreamState, num_steps: int, temperature: float) -> tuple[Tensor, ...]:
    """The noise that the next latent starts from; none where it would make no difference."""
    silent = temperature == 0 or (num_steps == 1 and not world.dit.reads_noise)
    return () if silent else draw_noise(world, state, temperature)


def draw_noise(world: Parts, state: StreamState, temperature: float) -> tuple[Tensor, ...]:
    """Noise of the next latent, and of the displacement of the state where there is one."""
    shapes = _shapes(world, state)
    sizes = [math.prod(shape) for shape in shapes]
    flat = temperature * stream_noise(state.seeds, state.frame, [sum(sizes)])
    parts = flat.to(world.device).split(sizes, dim=-1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


def _shapes(world: Parts, state: StreamState) -> list[tuple[int, ...]]:
    """Shapes of the tensors that are denoised for one stream."""
    latent = tuple(state.latent.shape[1:])
    return [latent] if state.states is None else [latent, (world.chunk * state.states.shape[1],)]


def _at_once(run, key: object, state: StreamState, actions: Tensor | None, noise: tuple[Tensor, ...]):
    return run(state, actions, *noise)


def _condition(world: Parts, state: StreamState, actions: Tensor | None) -> Conditioning:
    return world.conditioner(
        None if actions is None else actions.to(world.device).float()[:, None],
        None if state.states is None else state.states[:, None],
        (len(state), 1),
        words=state.words,
    )
