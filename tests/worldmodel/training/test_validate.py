"""The quick look during training: dreams beside copies, and a film at the speed of the stride."""

from dataclasses import replace

import av
import pytest
from drawn_episodes import DrawnEpisodes
from tiny import tiny_world

from worldmodel.training.validate import validate


def test_a_world_that_copies_is_as_good_as_a_copy(tmp_path):
    source = DrawnEpisodes([16, 16], lambda e, t: 100 + 2 * t, size=(16, 24))
    found = validate(tiny_world(random=False, stride=2), source, [0, 1], tmp_path, 3, horizon=4, num_steps=1)
    assert set(found) == {"validation/psnr_1", "validation/copy_psnr_1"}
    assert found["validation/psnr_1"] == pytest.approx(found["validation/copy_psnr_1"], abs=0.01)
    with av.open(str(tmp_path / "00000003.mp4")) as container:
        assert container.streams.video[0].average_rate == 5, "10 recorded frames/s, every second one dreamed"


def test_a_world_of_one_step_is_validated_with_one(tmp_path):
    world = tiny_world(random=False)
    world.config = replace(world.config, max_steps=1)
    source = DrawnEpisodes([16, 16], lambda e, t: 100 + 2 * t, size=(16, 24))
    assert validate(world, source, [0, 1], tmp_path, 3, horizon=4)
