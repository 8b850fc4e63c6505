"""Driving by hand: keys become actions, actions become frames."""


import pytest
import torch

from conditioning.conditioner import ConditionerConfig
from demos.session import (
    DriveSession,
    key_bindings,
)
from worldmodel.data.clip import Clip
from worldmodel.dit import DiTConfig
from worldmodel.world_model import WorldModel, WorldModelConfig

DIT = DiTConfig(width=32, encoder_depth=1, decoder_depth=1, time_interval=1, head_width=16)


def make_world(action_dim=2, state_dim=2, views=("top", "wrist"), relative_to=None, stride=1):
    """An untrained world: actions range over [-10, 30], frames are 16 x 16."""
    torch.manual_seed(0)
    conditioner = ConditionerConfig(action_dim, state_dim, stride, relative_to=relative_to or {})
    world = WorldModel(WorldModelConfig(views, (16, 16), 10.0, conditioner, DIT)).eval()
    ones = torch.ones(action_dim * stride)
    world.conditioner.set_statistics(
        torch.stack([-10 * ones, 30 * ones]),
        torch.stack([torch.zeros(state_dim), torch.ones(state_dim)]),
        torch.ones(state_dim),
    )
    return world


def make_context(world):
    views, width = len(world.views), world.action_dim * world.stride
    frames = torch.randint(0, 256, (1, 3, views, 16, 16, 3), dtype=torch.uint8)
    states = 100 * torch.ones(1, 3, world.state_dim) if world.state_dim else None
    return Clip(frames, torch.zeros(1, 2, width), states)


def test_a_key_aims_from_the_predicted_state():
    world = make_world(relative_to={0: 1}, state_dim=3)
    session = DriveSession(world, make_context(world), speed=0.5)
    # Half range 20, half speed: a push of 10 beyond the state, 100, or beyond rest, 0.
    assert session.action(["right"]).tolist() == [110, 0]
    assert session.action(["left", "down"]).tolist() == [90, 10]
    assert session.action(["left", "right"]).tolist() == [100, 0]
    # The recorded range ends at -10.
    session.speed = 1.0
    assert session.action(["up"]).tolist() == [0 + 100, -10]


def test_a_chunk_repeats_the_push():
    world = make_world(relative_to={0: 0}, stride=2)
    session = DriveSession(world, make_context(world), speed=0.5)
    assert session.action(["right", "down"]).tolist() == [110, 10, 110, 10]


@pytest.mark.parametrize(
    "action_dim, views, state_dim", [(1, ("eye",), 0), (7, ("a", "b", "c"), 7), (14, ("a",), 3)]
)
def test_any_robot(action_dim, views, state_dim):
    world = make_world(action_dim, state_dim, views)
    session = DriveSession(world, make_context(world), num_steps=1)
    for key in session.bindings:
        frame = session.step([key])
    assert frame.shape == (len(views), 16, 16, 3)
    assert session.num_frames == len(session.bindings) == 2 * min(action_dim, 6)
    assert len(session.states) == (session.num_frames + 1 if state_dim else 0)


def test_reset_repeats_the_dream():
    world = make_world()
    session = DriveSession(world, make_context(world))
    first = [session.step(["left"]) for _ in range(3)]
    session.reset()
    assert session.num_frames == 0
    again = [session.step(["left"]) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_what_cannot_be_steered_is_refused():
    world = make_world(action_dim=0)
    with pytest.raises(ValueError, match="action_dim 0"):
        DriveSession(world, make_context(make_world()))
    world = make_world(action_dim=1)
    session = DriveSession(world, make_context(world))
    with pytest.raises(ValueError, match=r"\['up'\].*\['left', 'right'\]"):
        session.action(["up"])
    assert key_bindings(1) == {"left": (0, -1), "right": (0, 1)}
