"""Where the demo of a world begins when nobody names data."""

import sys
from dataclasses import replace

import pytest
from places import LEROBOT_V30, ROOT
from tiny import tiny_world

from demos.driving.start import action_names
from demos.page.app import DemoConfig, find_starts, with_starts

SHIPPED = ROOT / "checkpoints" / "starts" / "pusht"


@pytest.fixture
def world():
    world = tiny_world(size=(64, 64))
    world.config = replace(world.config, robot_type="pusht")
    return world


@pytest.fixture
def no_simulator(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)  # as if the extra were not installed


def test_without_the_simulator_a_world_starts_from_episodes_that_ship(world, no_simulator, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = with_starts(DemoConfig(), world)
    starts, fresh, source = find_starts(config, world)
    assert config.data == SHIPPED and fresh is None and len(source) == len(starts) == 8
    assert not any(start.has_simulator for start in starts)
    assert action_names(world, "checkpoints/starts/pusht", "pusht") == ("x", "y")
    assert starts[0].context.frames.shape == (1, 8, 2, 64, 64, 3)


def test_data_and_the_simulator_come_first(world):
    assert with_starts(DemoConfig(), world).data is None
    assert with_starts(DemoConfig(data=LEROBOT_V30), world).data == LEROBOT_V30


def test_a_robot_without_episodes_that_ship_needs_data(world, no_simulator):
    world.config = replace(world.config, robot_type="so100")
    with pytest.raises(ValueError, match=r"robot_type 'so100' is no environment that can be made here.*pass --data"):
        find_starts(with_starts(DemoConfig(), world), world)
