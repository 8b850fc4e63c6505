"""Driving beside an environment of somebody else."""

import sys

import pytest
import torch
from mine import ENV, write_module
from tiny import tiny_world

from demos.driving.session import DriveSession
from demos.driving.start import action_names, start_from_data, start_from_environment
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.world_model import WorldModel


@pytest.fixture
def square(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return f"{write_module(tmp_path, ENV)}:Square"


def world_of(size: tuple[int, int] = (16, 16), stride: int = 1) -> WorldModel:
    return tiny_world(views=("top",), size=size, relative_to={}, state_dim=0, stride=stride)


def column(picture: torch.Tensor) -> int:
    """Where the square begins."""
    return int((picture[0, :, :, 0] > 130).float().amax(0).argmax())


def test_a_fresh_episode_stands_still_and_the_simulator_follows(square):
    world = world_of(stride=2)
    start = start_from_environment(square, world, seed=3)
    assert start.has_simulator and start.context.states is None
    assert (start.context.frames == start.context.frames[:, :1]).all()
    session = DriveSession(world, start, beside=True)
    before = column(session.now.truth)
    assert before == column(start.frames)
    action = torch.tensor([1.0, 0.0, 1.0, 0.0])  # two steps of 2 pixels
    assert column(session.simulation.step(action)) == before + 4
    session.simulation.rewind(0)
    assert column(session.simulation.frames) == before


def test_a_simulator_that_has_ended_stands_still(square):
    ending = square.replace(":Square", ":Ending")
    world = world_of()
    session = DriveSession(world, start_from_environment(ending, world, seed=3), beside=True)
    right = torch.tensor([1.0, 0.0])
    columns = [column(session.simulation.step(right)) for _ in range(8)]
    assert columns[-1] == columns[-2] == columns[-3] in (10, 11)
    assert column(session.simulation.step(-right)) == columns[-1]
    session.simulation.rewind(1)
    assert column(session.simulation.step(-right)) < columns[-1]


def test_a_recording_knows_its_simulator_where_the_pictures_have_its_size(square):
    assert main(["record", square, "--out", "data", "--episodes", "1", "--workers", "1"]) == 0
    source = open_episodes("data")
    start = start_from_data(source, world_of(), episode=0)
    assert (start.environment, start.seed, start.has_simulator) == (square, 0, True)
    other = open_episodes("data", size=(24, 24))
    assert not start_from_data(other, world_of((24, 24)), episode=0).has_simulator


def test_what_does_not_fit_is_named(square, tmp_path):
    with pytest.raises(
        ValueError, match=r"observation.images.top is \(16, 16\) pixels, the world model's are \(24, 24\)"
    ):
        start_from_environment(square, world_of((24, 24)), seed=0)
    ended = ENV.replace("False, False", "False, True")
    name = f"{write_module(tmp_path, ended)}:Square"
    with pytest.raises(ValueError, match="with the reset seed 4 it ends after 1 steps of standing still"):
        start_from_environment(name, world_of(), seed=4)


def test_action_names_are_those_of_the_environment(square, tmp_path):
    assert action_names(world_of(), None, square) == ("action_0", "action_1")
    named = ENV.replace("time_limit = 12", 'time_limit = 12\n    action_names = ("right", "down")')
    assert action_names(world_of(), None, f"{write_module(tmp_path, named)}:Square") == ("right", "down")
    assert action_names(world_of(), None, "nowhere:Square") == ("dim 1", "dim 2")
