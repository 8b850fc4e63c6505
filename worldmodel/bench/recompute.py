"""The next frame without a cache: the whole context is read again, as most world models do.

The same weights give the same frame; the cost grows with the context. Only the benchmark and the
tests use it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.model.precision import autocast
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel


@torch.no_grad()
def recomputed_step(
    world: WorldModel, context: Clip, actions: Float[Tensor, "b a"] | None, *, num_steps: int = 2
) -> Observation:
    """The result of `world.stream(context).step(actions)` at temperature 0, computed from the frames alone.

    Args:
        world: A separable world model.
        context: All frames of the streams so far, with the actions between them.
        actions: Raw actions at the last frame; `None` means no action is known.
        num_steps: Denoising steps.

    Raises:
        ValueError: If the world model is monolithic.
    """
    if not world.dit.separable:
        raise ValueError("encoder_depth is 0: a monolithic world model has no encoder to run again")
    context = context.to(world.device)
    latents = world.codec.encode(context.frames)
    told = None
    if actions is not None:
        told = actions.to(world.device).float()[:, None]
        told = told if context.actions is None else torch.cat([context.actions, told], dim=1)
    with autocast(world.device):
        words = world.conditioner.vectors(context.task, len(latents))
        conditioning = world.conditioner(told, context.states, latents.shape[:2], words=words)
        encoded = world.dit.encode(latents, conditioning, view_mask=context.view_mask)
        last = encoded.tail(latents.shape[1] - 1)
        silence = (torch.zeros_like(latents[:, -1:]),)
        if world.state_dim:
            silence = (*silence, torch.zeros_like(context.states[:, -1:]))
        clean = world.sampler(lambda z, tau, step_size: world.predict(last, z, tau, step_size), silence, num_steps)
    states = None
    if world.state_dim:
        states = world.conditioner.moved(context.states[:, -1], clean[1][:, 0].float())
    return Observation(world.codec.decode(world.bound(clean[0][:, 0].float())), states)
