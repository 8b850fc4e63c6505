"""Advance streams of a world whose latents are several frames each.

A latent is denoised as a whole, under the actions of all its frames. As long as some of these are not known, the
last known one takes their place and the frames up to it are shown; a latent is finished, and becomes part of
the past, when all its actions are known. So a step costs a whole latent, and what is shown of a latent that is not
finished is a preview: its noise is the same, but later actions may still change it a little.
"""

from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from worldmodel.streaming.advance import Parts, denoised, noise_of_step
from worldmodel.streaming.coded import held_actions
from worldmodel.streaming.state import StreamState


@dataclass(frozen=True)
class Foreseen:
    """The next frames of streams, which were denoised together because the actions of all were told in advance.

    Attributes:
        before: The streams before each of these frames.
        actions: The action of each.
        states: The streams after it.
        settings: Denoising steps and temperature.
    """

    before: tuple[StreamState, ...]
    actions: tuple[Float[Tensor, "b a"], ...]
    states: tuple[StreamState, ...]
    settings: tuple[int, float]

    def go_on(self, state: StreamState, actions: Tensor, settings: tuple[int, float]) -> bool:
        """Whether the second frame is what follows `state` under `actions`."""
        expected = len(self.states) > 1 and self.before[1] is state and self.settings == settings
        return expected and torch.equal(self.actions[1].cpu(), actions.cpu())


def foresee(
    world: Parts,
    state: StreamState,
    foreseen: Foreseen | None,
    actions: Float[Tensor, "b a"],
    ahead: Float[Tensor, "b m a"] | None,
    num_steps: int,
    temperature: float,
) -> Foreseen:
    """The next frame of every stream, the first one of the result, and those that are denoised with it.

    Args:
        world: A world model with chunks.
        state: The streams.
        foreseen: The result for the frame before; it is used if the action is the one that was told.
        actions: Raw actions of the next frame.
        ahead: Those of the frames after it, as far as they are known.
        num_steps: Denoising steps.
        temperature: Scale of the noise.

    Raises:
        ValueError: The actions have another width.
    """
    settings = (num_steps, temperature)
    if foreseen is not None and foreseen.go_on(state, actions, settings):
        return Foreseen(foreseen.before[1:], foreseen.actions[1:], foreseen.states[1:], settings)
    known = actions[:, None]
    if ahead is not None:
        known = torch.cat([known, ahead.to(known)], dim=1)[:, : frames_together(state)]
    states = tuple(advance_chunk(world, state, known, num_steps, temperature))
    return Foreseen((state, *states[:-1]), known.unbind(1), states, settings)


def frames_together(state: StreamState) -> int:
    """How many frames can be had at once: so many are left in the latent of every stream."""
    return state.chunk.actions.shape[1] - int(state.chunk.known.max())


@torch.no_grad()
def advance_chunk(
    world: Parts, state: StreamState, actions: Float[Tensor, "b m a"], num_steps: int, temperature: float
) -> list[StreamState]:
    """The streams after each of `m` actions, at most `frames_together(state)`; one latent is denoised.

    Args:
        world: A world model with chunks.
        state: The streams; its cache is written to.
        actions: Raw actions.
        num_steps: Denoising steps.
        temperature: Scale of the noise.

    Raises:
        ValueError: The actions have another width.
    """
    chunk, batch, many = state.chunk, len(state), actions.shape[1]
    if actions.shape[2] != chunk.actions.shape[2]:
        wide = chunk.actions.shape[2]
        raise ValueError(f"actions have width {actions.shape[2]}, the world model expects {wide} for each frame")
    actions = actions.to(world.device).float()
    place = chunk.known[:, None] + torch.arange(many, device=chunk.known.device)
    filled = chunk.actions.scatter(1, repeat(place, "b m -> b m a", a=actions.shape[2]), actions)
    known = chunk.known + many
    told = rearrange(held_actions(filled, known), "b k a -> b 1 (k a)")
    start = None if chunk.states is None else chunk.states[:, None]
    condition = world.conditioner(told, start, (batch, 1), known=known[:, None])
    noise = noise_of_step(world, state, num_steps, temperature)
    latent, *moved = denoised(world, world.engine(), world.sampler, state, condition, noise, num_steps)
    frames, features = world.codec.decode_next(latent, chunk.features)
    states = world.conditioner.moved_along(chunk.states, moved[0]) if moved else None
    rows = torch.arange(batch, device=known.device)

    def shown(index: int) -> StreamState:
        at, count = chunk.known + index, chunk.known + index + 1
        seen = {"frames": frames[rows, at], "states": None if states is None else states[rows, at]}
        open_one = replace(state, **seen, chunk=replace(chunk, actions=filled, known=count))
        done = count == filled.shape[1]
        if not done.any():
            return open_one
        last = None if states is None else states[:, -1]
        fresh = replace(chunk, features=features, states=last, actions=filled, known=torch.zeros_like(count))
        return replace(state, **seen, frame=state.frame + 1, latent=latent, chunk=fresh).where(done, open_one)

    return [shown(index) for index in range(many)]
