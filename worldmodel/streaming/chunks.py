"""Advance streams of a world whose latents are several frames each.

A latent is denoised as a whole, under the actions of all its frames. As long as some of these are not known, the
last known one takes their place and the frames up to it are shown; a latent is finished, and becomes part of
the past, when all its actions are known. So a step costs a whole latent, and what is shown of a latent that is not
finished is a preview: its noise is the same, but later actions may still change it a little.
"""

from dataclasses import replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from worldmodel.streaming.advance import Parts, denoised, noise_of_step
from worldmodel.streaming.coded import held_actions
from worldmodel.streaming.state import StreamState


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
