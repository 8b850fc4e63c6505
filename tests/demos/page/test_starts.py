"""Where the demo of a world begins when nobody names data."""

import os
import sys
from dataclasses import replace

import pytest
from places import LEROBOT_V30
from tiny import tiny_world

from demos.driving.start import action_names
from demos.page.app import DemoConfig, find_starts, with_starts
from worldmodel import files
from worldmodel.data import open_episodes
from worldmodel.model import folder as model_folder

STARTS = "checkpoints/starts/pusht"


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    """The folder of the episodes that ship with a package; the current folder is an empty one."""
    found = tmp_path / "package" / STARTS
    found.parent.mkdir(parents=True)
    os.symlink(LEROBOT_V30, found)
    for module in (files, model_folder):
        monkeypatch.setattr(module, "PLACES", (tmp_path / "package",))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return found


@pytest.fixture
def world():
    world = tiny_world(size=(64, 64))
    world.config = replace(world.config, robot_type="pusht")
    return world


@pytest.fixture
def no_simulator(monkeypatch):
    monkeypatch.setitem(sys.modules, "gym_pusht", None)  # as if the extra were not installed


def test_without_the_simulator_a_world_starts_from_episodes_that_ship(world, no_simulator, shipped):
    config = with_starts(DemoConfig(), world)
    starts, fresh, source = find_starts(config, world)
    assert config.data == shipped and fresh is None and len(source) == len(starts) == 8
    assert not any(start.has_simulator for start in starts)
    assert starts[0].context.frames.shape == (1, 8, 2, 64, 64, 3)


def test_the_simulator_comes_first(world):
    assert with_starts(DemoConfig(), world).data is None


def test_the_data_of_the_user_comes_first(world, no_simulator):
    assert with_starts(DemoConfig(data=LEROBOT_V30), world).data == LEROBOT_V30


def test_a_robot_without_episodes_that_ship_needs_data(world, no_simulator):
    world.config = replace(world.config, robot_type="so100")
    with pytest.raises(
        ValueError, match=r"robot_type 'so100' is not an environment that can be made here.*pass --data"
    ):
        find_starts(with_starts(DemoConfig(), world), world)


def test_a_world_of_a_simulator_that_is_not_installed_says_what_to_install(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    world.config = replace(world.config, robot_type="metaworld:push-v3")
    with pytest.raises(ValueError, match=r"can be made here \(it needs .*\[metaworld\]'\), so starts .* pass --data"):
        find_starts(with_starts(DemoConfig(), world), world)


def test_episodes_that_ship_are_found_from_any_folder(world, no_simulator):
    assert len(open_episodes(STARTS)) == 8
    assert action_names(world, STARTS, "") == action_names(world, LEROBOT_V30, "") == ("x", "y")
