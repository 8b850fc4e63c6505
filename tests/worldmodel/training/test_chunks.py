"""Training of a world model whose latents are four frames each."""

from dataclasses import replace

import torch
from tiny import random_clip
from tiny_chunks import chunk_world

from worldmodel.model.precision import full_precision
from worldmodel.streaming.coded import by_latent
from worldmodel.training.loss import LossConfig, draw, self_generated, training_loss


def drawn(world, **config):
    settings = LossConfig(**{"forward_fraction": 1.0, **config})
    generator = torch.Generator().manual_seed(0)
    return settings, draw(world, settings, batch=4, frames=13, generator=generator, largest_gap=1)


def test_the_loss_moves_the_number_of_known_actions_and_every_step_of_the_state():
    world, clip = chunk_world(), random_clip(chunk_world(), batch=4, frames=13)
    config, draws = drawn(world)
    assert draws.noise.shape == (4, 3, 1, 4, 4, 4)
    assert draws.known.shape == (4, 3)
    assert draws.passes > 0
    draws = replace(draws, known=torch.arange(12).reshape(4, 3) % 4 + 1)
    loss, parts = training_loss(world, clip, draws, config)
    loss.backward()
    assert set(parts) == {"frames", "states"}
    assert (world.conditioner.known.weight.grad.abs().amax(1) > 0).all()
    assert (world.dit.state_out.weight.grad.abs().amax(1) > 0).all()
    assert world.dit.state_out.weight.shape[0] == 8


def test_unknown_actions_do_not_matter_and_known_ones_do():
    world, clip = chunk_world(), random_clip(chunk_world(), batch=4, frames=13)
    config, draws = drawn(world)
    draws = replace(draws, known=torch.full((4, 3), 2))
    losses = []
    with full_precision(), torch.no_grad():
        for changed in (None, 3, 1):
            actions = clip.actions.clone()
            if changed is not None:
                actions.view(4, 3, 4, 2)[:, :, changed] += 1
            losses.append(training_loss(world, replace(clip, actions=actions), draws, config)[0])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_states_of_predicted_context_are_those_at_the_end_of_a_chunk():
    """With all of the context predicted, and no displacement predicted, the states stay where they began."""
    world = chunk_world()
    clip = random_clip(world, batch=4, frames=13)
    _, draws = drawn(world, forward_replaced=1.0, forward_passes=1)
    cut, _ = by_latent(world.codec, clip, draws.known)
    with torch.no_grad():
        world.dit.state_out.weight.zero_()
        world.dit.state_out.bias.copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 2]))
        _, states = self_generated(world, cut, cut.latents, draws)
    moved = world.conditioner.displacement_scale * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(states[:, 1], cut.states[:, 0] + moved)
