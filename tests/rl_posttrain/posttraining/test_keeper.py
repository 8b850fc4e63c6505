"""When a run stops and which of its world models it keeps."""

import json

import pytest
import torch
from drawn_episodes import tiny_world as grey_world
from matching import CrossedWorld, grey_episodes, twin_matcher
from places import LEROBOT_V30
from tiny import tiny_world

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.keeper import Keeper, is_kept, is_over
from rl_posttrain.posttraining.train import begin
from rl_posttrain.rewards.mix import RewardMix
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.training.log import RunLog
from worldmodel.world_model import WorldModel


@pytest.mark.parametrize(
    ("patience", "kept", "over"),
    [(2, (True,), False), (2, (True, False), False), (2, (True, False, False), True), (0, (True, False, False), False)],
)
def test_patience_counts_evaluations_since_one_was_kept(patience, kept, over):
    assert is_over(kept, patience) == over


NAN = float("nan")
BEST = (1.0, 2.0, 3.0, 4.0)
NOISY = (1.1, 2.2, 2.9, 4.0)
"""0.05 above the best, with a standard error of 0.065."""
HARMED = (1.1, 2.2, 3.1, 4.2)
"""0.15 above the best, with a standard error of 0.029."""


@pytest.mark.parametrize(
    ("patience", "values", "kept"),
    [
        (2, (BEST,), True),
        (2, (HARMED, BEST), True),
        (2, (BEST, NOISY), True),
        (2, (BEST, HARMED), False),
        (2, (BEST, NOISY, HARMED), False),  # counted from the best, not from the one before
        (0, (BEST, HARMED), True),
        (2, ((2.0,), (2.0,)), True),
        (2, ((2.0,), (2.1,)), False),  # one window has no standard error
        (2, ((NAN, 2.0, 3.0), (9.0, 2.0, 3.0)), True),
        (2, ((1.0, 2.0, 3.0), (NAN, 2.5, 3.5)), False),
        (2, ((NAN,), (NAN,)), True),
    ],
)
def test_a_world_is_kept_unless_it_is_worse_than_the_best(patience, values, kept):
    assert is_kept(values, patience) == kept


def test_a_worse_world_model_does_not_take_the_place_of_a_better_one(tmp_path):
    """A tiny world copies its context and is evaluated first; one that turns everything white is worse."""
    config = PosttrainConfig(
        world=tmp_path, data=LEROBOT_V30, out=tmp_path / "out", validation_horizon=2, patience=2, num_steps=1
    )
    world, white = tiny_world(random=False), tiny_world(random=False)
    torch.nn.init.constant_(white.dit.head.last.bias, 2.0)
    torch.nn.init.constant_(white.dit.state_out.bias, 50.0)
    source = EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))
    accelerator = begin(config)
    log = RunLog(accelerator, config.out, total_steps=2, minutes=None, clock="cpu")
    keeper = Keeper(config, world, source, range(1), RewardMix({}, {}, None), log)
    with log:
        keeper.evaluate(world)
        keeper.evaluate(white)
    rows = [json.loads(row) for row in (config.out / "evaluations.jsonl").read_text().splitlines()]
    assert rows[0]["held_back"] < rows[1]["held_back"]
    assert [row["kept"] for row in rows] == [True, False]
    assert keeper.kept == rows[0]["step"]
    assert rows[0]["psnr"] > rows[1]["psnr"] + 3
    assert WorldModel.load(config.out).dit.head.last.bias.abs().max() == 0
    assert not keeper.stopped
    with log:
        keeper.evaluate(white)
    assert keeper.stopped
    accelerator.end_training()


@pytest.mark.parametrize("guarded", [True, False])
def test_a_world_whose_cameras_stop_telling_one_story_is_not_kept(guarded, tmp_path):
    """All else is equal, so only the matcher can tell; the first world model is always kept."""
    config = PosttrainConfig(
        world=tmp_path, data=LEROBOT_V30, out=tmp_path / "out", validation_horizon=1, patience=2, num_steps=1
    )
    world, accelerator = grey_world(), begin(config)
    log = RunLog(accelerator, config.out, total_steps=2, minutes=None, clock="cpu")
    matcher = twin_matcher() if guarded else None
    keeper = Keeper(config, world, grey_episodes(), range(6), RewardMix({}, {}, None), log, matcher)
    with log:
        for each in (world, CrossedWorld(world.config).eval(), world):
            keeper.evaluate(each)
    rows = keeper.evaluations.rows
    assert [row["kept"] for row in rows] == [True, not guarded, True]
    assert rows[0]["held_back"] == rows[1]["held_back"]
    if guarded:
        assert rows[0]["cross_view"] == 1.0 and rows[1]["cross_view"] < 0.7
        assert rows[0]["cross_view_windows"] == [0.0] * 6
    accelerator.end_training()
