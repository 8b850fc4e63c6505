"""Dreams under guidance on the actions."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY_DIT, random_clip, tiny_world

from worldmodel.model.precision import full_precision
from worldmodel.world_model import WorldModel

CLEAR = torch.tensor([[0.9, -0.4], [-0.7, 0.8]])


def guided_world(weight: float, **changes) -> WorldModel:
    """A world model that was trained with actions dropped, or so it says."""
    world = tiny_world(**changes)
    world.train_data = [{"action_dropout": 0.2}]
    world.config = replace(world.config, guidance=weight)
    return world


def states_after(world: WorldModel, actions: torch.Tensor | None, num_steps: int = 1) -> torch.Tensor:
    """States are not clamped, so that guidance is exact in them."""
    stream = world.stream(random_clip(world, frames=3), seeds=0)
    return stream.step(actions, num_steps=num_steps).states


@pytest.mark.parametrize("dit", [TINY_DIT, replace(TINY_DIT, encoder_depth=0)], ids=["separable", "monolithic"])
@pytest.mark.parametrize("injection", ["token", "adaln", "cross"])
def test_the_effect_of_an_action_is_multiplied(injection, dit):
    with full_precision():
        told, untold = (states_after(guided_world(1.0, injection=injection, dit=dit), x) for x in (CLEAR, None))
        stretched = states_after(guided_world(2.5, injection=injection, dit=dit), CLEAR)
        nothing = states_after(guided_world(0.0, injection=injection, dit=dit), CLEAR)
    if injection != "cross":  # its gate begins at zero
        assert (told - untold).abs().max() > 1e-4
    torch.testing.assert_close(stretched, untold + 2.5 * (told - untold), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(nothing, untold, atol=1e-5, rtol=1e-4)


def test_the_fast_engine_and_the_modules_agree_under_guidance():
    with full_precision():
        fast, plain = guided_world(1.7), guided_world(1.7)
        plain.fast = False
        torch.testing.assert_close(states_after(fast, CLEAR, 2), states_after(plain, CLEAR, 2), atol=1e-5, rtol=1e-4)


def test_later_frames_remember_that_the_action_was_told():
    worlds = [guided_world(weight) for weight in (1.0, 2.0)]
    caches = []
    for world in worlds:
        stream = world.stream(random_clip(world, frames=3), seeds=0)
        stream.step(CLEAR)
        caches.append(stream.snapshot().state.cache)
    assert torch.equal(caches[0].keys, caches[1].keys) and torch.equal(caches[0].values, caches[1].values)


def test_without_an_action_there_is_nothing_to_guide():
    assert torch.equal(states_after(guided_world(3.0), None), states_after(guided_world(1.0), None))


def test_a_world_that_always_had_actions_cannot_be_guided():
    world = guided_world(1.5)
    world.train_data = [{"actions": True}]
    with pytest.raises(ValueError, match=r"guidance is 1.5, but .*train it with --action-dropout"):
        states_after(world, CLEAR)


def test_the_weight_is_saved(tmp_path):
    guided_world(1.25).save(tmp_path / "world")
    assert WorldModel.load(tmp_path / "world").guidance == 1.25
    assert tiny_world().guidance == 1.0
