"""The simulator of rope and sand beside a dream."""

import pytest
import torch
from tiny import tiny_world

from demos.driving.simulation import Simulation
from demos.driving.start import start_from_data
from worldmodel.data import open_episodes
from worldmodel.envs.record import RecordConfig, record


@pytest.mark.parametrize("name", ["pusht-rope", "pusht-sand"])
def test_the_simulator_stands_where_the_recording_does_and_goes_back(name, tmp_path):
    record(RecordConfig(name, tmp_path / "data", episodes=1, behaviour="play", size=32, horizon=9, workers=1))
    world = tiny_world(size=(32, 32))
    start = start_from_data(open_episodes(tmp_path / "data"), world, episode=0)
    assert start.has_simulator and start.environment == name
    simulation = Simulation(start, world)
    seen = simulation.frames.int()
    assert (seen - start.frames.int()).abs().float().mean() < 2  # the recording is a video
    for target in ([60.0, 400.0], [400.0, 60.0]):
        later = simulation.step(torch.tensor(target))
    assert (later.int() - seen).abs().max() > 50
    simulation.rewind(0)
    assert torch.equal(simulation.frames.int(), seen)
    simulation.close()
