"""Driving by hand: keys become actions, actions become frames."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import random_clip, tiny_world

from demos.session import (
    DriveSession,
    context_from_data,
    context_from_environment,
    key_bindings,
)
from worldmodel.data import open_episodes

DATA = Path(__file__).parent / "data" / "lerobot_v30_pusht"


def make_world(**settings):
    """A tiny world with actions in [-10, 30], and a context of three frames at state 100."""
    world = tiny_world(**{"relative_to": {}, **settings})
    low, high = (torch.full((world.action_dim * world.stride,), end) for end in (-10.0, 30.0))
    span = torch.stack([torch.zeros(world.state_dim), torch.ones(world.state_dim)])
    world.conditioner.set_statistics(torch.stack([low, high]), span, span[1])
    clip = random_clip(world, batch=1, frames=3)
    states = None if clip.states is None else torch.full_like(clip.states, 100)
    return world, replace(clip, states=states)


def test_a_key_aims_from_the_predicted_state():
    session = DriveSession(*make_world(relative_to={0: 1}, state_dim=3), speed=0.5)
    # Half range 20, half speed: a push of 10 beyond the state, 100, or beyond rest, 0.
    assert session.action(["right"]).tolist() == [110, 0]
    assert session.action(["left", "down"]).tolist() == [90, 10]
    assert session.action(["left", "right"]).tolist() == [100, 0]
    # The recorded range ends at -10.
    session.speed = 1.0
    assert session.action(["up"]).tolist() == [0 + 100, -10]


def test_a_chunk_repeats_the_push():
    session = DriveSession(*make_world(relative_to={0: 0}, stride=2), speed=0.5)
    assert session.action(["right", "down"]).tolist() == [110, 10, 110, 10]


@pytest.mark.parametrize(
    "action_dim, views, state_dim", [(1, ("eye",), 0), (7, ("a", "b", "c"), 7), (14, ("a",), 3)]
)
def test_any_robot(action_dim, views, state_dim):
    settings = {"action_dim": action_dim, "views": views, "state_dim": state_dim}
    session = DriveSession(*make_world(**settings), num_steps=1)
    for key in session.bindings:
        frame = session.step([key])
    assert frame.shape == (len(views), 16, 24, 3)
    assert session.num_frames == len(session.bindings) == 2 * min(action_dim, 6)
    assert len(session.states) == (session.num_frames + 1 if state_dim else 0)


def test_reset_repeats_the_dream():
    session = DriveSession(*make_world())
    first = [session.step(["left"]) for _ in range(3)]
    session.reset()
    assert session.num_frames == 0
    again = [session.step(["left"]) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_what_cannot_be_steered_is_refused():
    with pytest.raises(ValueError, match="action_dim 0"):
        DriveSession(*make_world(action_dim=0))
    session = DriveSession(*make_world(action_dim=1))
    with pytest.raises(ValueError, match=r"\['up'\].*\['left', 'right'\]"):
        session.action(["up"])
    assert key_bindings(1) == {"left": (0, -1), "right": (0, 1)}


def test_starting_from_recorded_frames():
    world = tiny_world(size=(32, 32), stride=2)
    source = open_episodes(DATA, size=(32, 32))
    context = context_from_data(source, world, episode=1, start=5)
    assert context.frames.shape == (1, 8, 2, 32, 32, 3)
    assert torch.equal(context.frames[0], source.read(1, 5, 20, stride=2).frames)
    assert context.actions.shape == (1, 7, 4)
    length = source.lengths[1]
    short = context_from_data(source, world, episode=1, start=length - 3)
    assert torch.equal(short.frames[0, :, 0], source.read(1, length - 3, length, 2).frames[:, 0])
    with pytest.raises(ValueError, match=f"has {length} frames, none at start {length}"):
        context_from_data(source, world, episode=1, start=length)


def test_starting_from_a_fresh_episode():
    world = tiny_world(size=(32, 32), stride=2)
    context = context_from_environment("pusht", world, seed=4)
    assert context.frames.shape == (1, 8, 2, 32, 32, 3)
    # The agent aims at where it is, so it stays where the reset put it.
    assert torch.allclose(context.states, context.states[:, :1].expand_as(context.states), atol=2)
    assert torch.allclose(context.actions[0, 0, :2], context.states[0, 0])
    DriveSession(world, context).step(["left"])
    with pytest.raises(ValueError, match=r"pusht: no \['observation.images.side'\]"):
        context_from_environment("pusht", tiny_world(views=("side",), size=(32, 32)), seed=4)
