"""Real classes at tiny size, shared by tests."""

import torch

from conditioning.conditioner import ConditionerConfig
from worldmodel.data import Clip
from worldmodel.model.dit import DiTConfig
from worldmodel.world_model import WorldModel, WorldModelConfig

TINY_DIT = DiTConfig(width=32, patch=8, encoder_depth=2, decoder_depth=1, window=4, head_width=16)


def tiny_world(
    dit: DiTConfig = TINY_DIT, *, views=("top", "wrist"), size=(16, 24), random=True, **conditioner
) -> WorldModel:
    """A world model with random weights; `random=False` keeps the zero-initialised outputs."""
    torch.manual_seed(0)
    settings = {"action_dim": 2, "state_dim": 2, "relative_to": {0: 0, 1: 1}, **conditioner}
    config = WorldModelConfig(views=views, size=size, fps=10.0, conditioner=ConditionerConfig(**settings), dit=dit)
    world = WorldModel(config).eval()
    if random:
        with torch.no_grad():
            for parameter in world.dit.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return world


def random_clip(world: WorldModel, *, batch=2, frames=6, seed=0) -> Clip:
    """Noise pictures with actions and states of the right widths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames, len(world.views), *world.size, 3)
    width = world.action_dim * world.stride
    actions = torch.rand(batch, frames - 1, width, generator=generator)
    states = torch.rand(batch, frames, world.state_dim, generator=generator)
    return Clip(
        frames=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        actions=actions if width else None,
        states=states if world.state_dim else None,
    )
