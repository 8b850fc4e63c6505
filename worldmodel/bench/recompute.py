"""The next frame without a cache: the whole context is read again, as most world models do.

The same weights give the same frame; what it costs grows with the context. Only the benchmark and
the tests use it.
"""

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.model.dit import Encoded
from worldmodel.model.flow import sample
from worldmodel.model.precision import autocast
from worldmodel.streaming.state import Observation, RolloutState
from worldmodel.world_model import WorldModel


@torch.no_grad()
def recomputed_step(
    world: WorldModel, context: Clip, state: RolloutState, actions: Float[Tensor, "b a"] | None, *, num_steps: int = 2
) -> Observation:
    """What `world.step(state, actions)` shows, from the frames alone.

    Args:
        world: A separable world model.
        context: All frames of the streams so far, with the actions between them.
        state: `world.start(context)`; only its noise and its frame index are used.
        actions: Raw actions at the last frame; `None` means no action is known.
        num_steps: Denoising steps.

    Raises:
        ValueError: If the world model is monolithic.
    """
    if world.dit.monolithic:
        raise ValueError("encoder_depth is 0: a monolithic world model has no encoder to run again")
    context = context.to(world.device)
    latents = world.codec.encode(context.frames)
    told = None
    if actions is not None:
        told = actions.to(world.device).float()[:, None]
        told = told if context.actions is None else torch.cat([context.actions, told], dim=1)
    with autocast(world.device):
        conditioning = world.conditioner(told, context.states, latents.shape[:2])
        encoded = world.dit.encode(latents, conditioning, view_mask=context.view_mask)
        last = last_frame(encoded)
        noise = tuple(part[:, None] for part in world._noise(state, world.config.temperature))
        clean = sample(lambda z, tau, d: world.predict(last, z, tau, d), noise, num_steps)
    states = None
    if world.state_dim:
        moved = clean[1][:, 0].float() * world.conditioner.displacement_scale
        states = context.states[:, -1] + moved
    return Observation(world.codec.decode(world.bound(clean[0][:, 0].float())), states)


def last_frame(encoded: Encoded) -> Encoded:
    """The last frame of an encoded stretch, as if it had been streamed."""
    views = encoded.current.shape[2]
    rows = {"b": len(encoded.current), "v": views}

    def cut(flat: Tensor) -> Tensor:
        return rearrange(flat, "(b t v) ... -> b t v ...", **rows)[:, -1].flatten(0, 1)

    stem = replace(encoded.stem, tokens=cut(encoded.stem.tokens), maps=tuple(map(cut, encoded.stem.maps)))
    told = encoded.conditioning
    parts = {name: getattr(told, name) for name in ("tokens", "vector", "action_tokens")}
    conditioning = replace(told, **{name: None if part is None else part[:, -1:] for name, part in parts.items()})
    return replace(
        encoded, tokens=encoded.tokens[:, -1:], current=encoded.current[:, -1:], stem=stem, conditioning=conditioning
    )
