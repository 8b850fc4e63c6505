"""The discriminator learns before it rewards: by how much, from what, and what does not move meanwhile."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30
from tiny import tiny_world

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.pathwise.terms import PictureTerms
from rl_posttrain.posttraining.pathwise.update import PathwiseUpdate
from rl_posttrain.posttraining.pathwise.warmup import learn_realism
from rl_posttrain.rewards.realism import Realism
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.training.accelerator import start_accelerator
from worldmodel.training.log import RunLog


def settings(out: Path, updates: int) -> PosttrainConfig:
    pathwise = PathwiseConfig(frames=4, pictures=4, passes=1, realism_rate=1e-3, realism_warmup=updates)
    return PosttrainConfig(
        world="world", data=LEROBOT_V30, out=out, objective="pathwise", groups=1, pathwise=pathwise, log="none"
    )


class Learner:
    """Trains a discriminator from one update to another; calling it again goes on with the same one."""

    def __init__(self, out: Path):
        self.out, self.source = out, EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))
        torch.manual_seed(0)
        realism = Realism()
        self.terms = PictureTerms({"realism": realism}, {"realism": 0.5}, realism)
        (self.optimizer,) = self.terms.optimizers(1e-3)

    def __call__(self, first: int, last: int, minutes: float | None = None) -> tuple[PathwiseUpdate, list[dict]]:
        """The objective, and the progress that was saved."""
        config, saved = replace(settings(self.out, last), minutes=minutes), []
        update = PathwiseUpdate(tiny_world(), self.terms, config.pathwise, config.loss)
        log = RunLog(start_accelerator("cpu", self.out, "none"), self.out, total_steps=9, minutes=minutes)
        with log:
            learn_realism(
                config, update, self.optimizer, self.source, (range(4), range(4, 6)), log, first, saved.append
            )
        return update, saved


@pytest.fixture
def learn(tmp_path) -> Learner:
    return Learner(tmp_path)


def test_the_discriminator_moves_and_the_world_model_does_not(learn, tmp_path):
    update, saved = learn(0, 2)
    before = dict(tiny_world().named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in update.world.named_parameters())
    assert all(weight.grad is None for weight in update.world.parameters())
    torch.manual_seed(0)
    fresh = dict(Realism().named_parameters())
    moved = [float((w - fresh[name]).abs().max()) for name, w in update.terms[0].realism.named_parameters()]
    assert 0.5e-3 < max(moved) < 1e-2
    assert [(row["step"], row["learned"]) for row in saved] == [(0, 2)]
    rows = [json.loads(line) for line in (tmp_path / "discriminator.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert "told_apart" not in rows[0] and 0 <= rows[1]["told_apart"] <= 1


def test_a_stopped_warm_up_goes_on_as_if_it_had_not_stopped(learn, tmp_path):
    (update, _), _ = learn(0, 1), learn(1, 3)
    rows = [json.loads(line) for line in (tmp_path / "discriminator.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    resumed = update.terms[0].realism.state_dict()
    whole, _ = Learner(tmp_path)(0, 3)
    for name, weight in whole.terms[0].realism.state_dict().items():
        torch.testing.assert_close(resumed[name], weight)
    assert learn(3, 3)[1] == []  # nothing is left to learn


def test_minutes_that_are_over_before_the_world_model_moves_are_said(learn, tmp_path):
    with pytest.raises(ValueError, match=r"--minutes 1e-06 are over after 1 of 3 updates of the discriminator"):
        learn(0, 3, minutes=1e-6)
    (row,) = [json.loads(line) for line in (tmp_path / "discriminator.jsonl").read_text().splitlines()]
    assert "told_apart" in row
