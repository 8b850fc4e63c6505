"""Continued trainings that should keep the block in its place: how they differ, and what is measured."""

import re
import sys

import numpy as np
import pytest
import torch
from drawn_episodes import tiny_world
from places import BENCHMARKS, LEROBOT_V30

from worldmodel.data import open_episodes

sys.path.insert(0, str(BENCHMARKS))
objects = pytest.importorskip("objects")


def test_arms_differ_in_what_they_are_named_after(tmp_path):
    config = objects.Objects(tmp_path / "data", tmp_path / "test", tmp_path / "out")
    same, rollouts, clips = (objects.settings(config, arm, tmp_path / "arm") for arm in objects.ARMS)
    assert (same.batch, same.frames, same.loss) == (8, 13, objects.SHIPPED)
    assert rollouts.loss.forward_passes > same.loss.forward_passes and (rollouts.batch, rollouts.frames) == (8, 13)
    assert clips.frames == 32 and clips.loss == same.loss
    assert clips.batch * clips.frames == pytest.approx(same.batch * same.frames, rel=0.1)  # as many frames in a step
    assert {(each.clock, each.minutes, each.init) for each in (same, rollouts, clips)} == {("cpu", 5.0, config.world)}


def test_an_arm_that_is_not_there_is_named(tmp_path):
    config = objects.Objects(tmp_path, tmp_path, tmp_path, only=("longer", "longer clips"))
    with pytest.raises(ValueError, match=r"^--only: there is no arm 'longer'; there are more of the same, longer"):
        config.arms  # noqa: B018


def test_scores_of_a_dream_that_is_right_and_of_one_without_a_block():
    source = open_episodes(LEROBOT_V30, (64, 64), ("top",))
    truth = source.read(0, 0, 58).frames[None, :, 0]
    right = objects.window_scores("pusht", truth, truth[:, 8:])
    assert set(objects.DIGITS) < set(right) and all(values.shape[1] == 3 for values in list(right.values())[:-1])
    for name, value in (("block, px", 0), ("block missing", 0), ("overlap of the block's shape", 1), ("agent, px", 0)):
        assert right[name][0, :2].tolist() == pytest.approx([value] * 2, abs=1e-4)  # it is occluded after 50 frames
    gone = objects.window_scores("pusht", truth, torch.full_like(truth[:, 8:], 255))
    assert gone["block, px"][0, :2].tolist() == [32.0] * 2 and gone["block missing"][0, :2].tolist() == [1.0] * 2
    assert gone["overlap of the block's shape"][0, :2].tolist() == [0.0] * 2
    assert gone["block at every frame, px"][0, :25].tolist() == [32.0] * 25
    still = objects.window_scores("pusht", truth, truth[:, [7]].expand(-1, 50, -1, -1, -1))
    assert torch.equal(still["block, px"][:, :2], still["block at every frame, px"][:, [9, 24]])


def test_a_world_that_knows_the_episodes_is_not_measured(tmp_path):
    source, world = open_episodes(LEROBOT_V30, (64, 64), ("top",)), tiny_world(size=(64, 64), views=("top",))
    world.train_data = [
        {"fingerprint": source.fingerprint, "robot_type": "pusht", "reset_seeds": None, "episodes": [2, 3]}
    ]
    world.save(tmp_path / "world")
    config = objects.Objects(tmp_path / "data", tmp_path / "test", tmp_path / "out")
    with pytest.raises(ValueError, match=r"test: before was trained on 2 of 8 episodes$"):
        objects.measured(config, "before", tmp_path / "world", 0, source)


def scored(offset):
    values = [[10.0 + e, None, 20.0 + e + offset] for e in range(6)]
    scores = dict.fromkeys(objects.DIGITS, values) | {"block at every frame, px": [[1.0, 2.0, 3.0]]}
    return {"steps": 7, "episodes": list(range(6)), "scores": scores}


def test_tables_hold_means_and_paired_differences(tmp_path):
    found = {objects.BEFORE: scored(0.0), objects.SAME: scored(-1.0), "longer clips": scored(-3.0)}
    text = objects.markdown(found, seed=0)
    block = text[text.index("## block, px") : text.index("## block while")]
    assert re.search(r"\| before \| 7 \| 12\.5 \[\S+, \S+\] \| - \| 22\.5 \[\S+, \S+\] \| - \| - \|", block)
    assert re.search(r"\| more of the same .*\| 21\.5 \[\S+, \S+\] \| -1\.0 \[-1\.0, -1\.0\] \| - \|", block)
    assert re.search(r"\| longer clips .*\| -3\.0 \[-3\.0, -3\.0\] \| -2\.0 \[-2\.0, -2\.0\] \|", block)
    objects.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_a_mean_of_nothing_is_a_dash():
    assert objects.cell(np.full(3, np.nan), np.arange(3), 1, 0) == "-"
    assert objects.cell(np.array([1.0, np.nan, 2.0]), np.arange(3), 1, 0, "+") == "+1.5"
