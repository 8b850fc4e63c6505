"""Rivals: a training that resumes, and what is measured of one whose dreams are known."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes, tiny_world
from places import BENCHMARKS, LEROBOT_V30
from torch import nn

from worldmodel.data import open_episodes
from worldmodel.streaming.state import Observation

sys.path.insert(0, str(BENCHMARKS))
rivals = pytest.importorskip("rivals")
tables = pytest.importorskip("rivals_tables")
training = pytest.importorskip("rivals_training")
diamond = pytest.importorskip("rivals_diamond")


class Convolution:
    """A rival: a convolution of the last frame, which adds the mean of the action; it learns from random pairs."""

    num_steps = 3

    def __init__(self, lesson):
        source = self.source = lesson.source
        self.episodes = lesson.episodes
        self.views, self.size, self.fps, self.stride = source.views, source.size, source.fps, 1
        self.action_dim, self.state_dim = source.action_dim, source.state_dim
        self.layer = nn.Conv2d(3, 3, 3, padding=1)
        self.optimizer = torch.optim.Adam(self.layer.parameters(), 1e-2)

    def next_frames(self, frames, actions):
        return self.layer(frames) + actions.mean(1)[:, None, None, None]

    def learn(self):
        CLOCK.seconds += 1
        episode = int(np.random.choice(self.episodes))  # noqa: NPY002
        at = int(torch.randint(self.source.lengths[episode] - 1, ()))
        clip = self.source.read(episode, at, at + 2)
        now, then = clip.frames[:, 0].permute(0, 3, 1, 2).float().div(255).split(1)
        loss = (self.next_frames(now, clip.actions / 1000) - then).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self):
        return {"layer": self.layer.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.layer.load_state_dict(state["layer"])
        self.optimizer.load_state_dict(state["optimizer"])

    def parameters(self):
        return self.layer.parameters()

    def stream(self, context, *, seeds):
        return ConvolutionStream(self, context)


class ConvolutionStream:
    def __init__(self, rival, context):
        self.rival, self.observation = rival, Observation(context.frames[:, -1], context.states[:, -1])

    @torch.no_grad()
    def step(self, actions, *, num_steps):
        before = self.observation.frames[:, 0].permute(0, 3, 1, 2).float() / 255
        after = self.rival.next_frames(before, actions / 1000).clamp(0, 1).mul(255).to(torch.uint8)
        self.observation = Observation(after.permute(0, 2, 3, 1)[:, None], actions)
        return self.observation


class Seconds:
    """A clock that goes on by a second with every step of a `Convolution`."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


CLOCK = Seconds()


def lesson(**settings):
    source = DrawnEpisodes([20, 30, 20], lambda e, t: 90 + 3 * t, views=("top",))
    return training.Lesson(source, range(2), **{"code": {}, **settings})


class Killed(Convolution):
    def learn(self):
        if CLOCK.seconds == 4:
            raise KeyboardInterrupt
        return super().learn()


def test_a_training_that_was_killed_repeats_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_SECONDS", 1.0)
    monkeypatch.setitem(training.CLOCKS, "cpu", CLOCK)
    CLOCK.seconds = 0.0
    whole, steps = training.trained(Convolution, lesson(), tmp_path / "whole", minutes=0.1, seed=1)
    CLOCK.seconds = 0.0
    with pytest.raises(KeyboardInterrupt):
        training.trained(Killed, lesson(), tmp_path / "parts", minutes=0.1, seed=1)
    parts, all_steps = training.trained(Convolution, lesson(), tmp_path / "parts", minutes=0.1, seed=1)
    assert steps == all_steps == 6
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)
    CLOCK.seconds = 0.0
    another, _ = training.trained(Convolution, lesson(), tmp_path / "another", minutes=0.1, seed=2)
    assert not torch.equal(next(whole.parameters()), next(another.parameters()))


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Convolution, "learn", lambda self: float("nan"))
    with pytest.raises(ValueError, match=r"nans: the loss is nan at step 0$"):
        training.trained(Convolution, lesson(), tmp_path / "nans", minutes=0.1, seed=1)


def test_the_code_of_a_project_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^--code has no other: git clone https://a, then pass --code other FOLDER$"):
        lesson().folder("other", "https://a")
    with pytest.raises(ValueError, match=r"^--code other .*gone: there is no such folder"):
        lesson(code={"other": tmp_path / "gone"}).folder("other", "https://a")
    assert lesson(code={"other": tmp_path}).folder("other", "https://a") == tmp_path


def test_two_projects_may_have_modules_of_the_same_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "common_words.py").write_text(f"WORD = {name!r}\n")
        (tmp_path / name / "model_of_it.py").write_text("from common_words import WORD\n")
    before = list(sys.path)
    found = [training.modules_of(tmp_path / name, "model_of_it")[0].WORD for name in ("one", "two")]
    assert found == ["one", "two"] and sys.path == before and "common_words" not in sys.modules


class Telling(diamond.Diamond):
    """A denoiser that remembers two frames, and brightens the last one by the last action and a tenth of the first."""

    past, action_dim, like_ours = 2, 2, False

    def __init__(self):
        self.mean, self.deviation = torch.tensor([10.0, 10.0]), torch.tensor([2.0, 2.0])

    def sample(self, obs, act):
        self.seen = act[:, :, 0].tolist()
        told = act[:, 1, 0] + act[:, 0, 0] / 10
        return obs[:, -1] + told[:, None, None, None] / 127.5, []


def test_every_remembered_frame_of_diamond_has_the_action_after_it():
    source = DrawnEpisodes([20], lambda e, t: 100 + 0 * t, action=lambda e, t: 10 + 2 * t, views=("top",))
    clip = source.read(0, 0, 8).map(lambda tensor: tensor[None])
    stream = diamond.DiamondStream(Telling(), clip)
    first = stream.step(torch.full((1, 2), 50.0), num_steps=2).frames
    assert stream.rival.seen == [[6.0, 20.0]] and first.unique().tolist() == [121]
    stream.step(torch.full((1, 2), 12.0), num_steps=2)
    assert stream.rival.seen == [[20.0, 1.0]] and stream.observation.frames.unique().tolist() == [124]
    stream.reset([0], source.read(0, 0, 1).map(lambda tensor: tensor[None]), seeds=[0])
    stream.step(torch.full((1, 2), 12.0), num_steps=2)
    assert stream.rival.seen == [[0.0, 1.0]] and stream.observation.frames.unique().tolist() == [101]


def test_scores_of_a_dream_that_is_right_and_of_one_that_stands_still():
    source = open_episodes(LEROBOT_V30, (64, 64), ("top",))
    truth = source.read(0, 0, 33).frames[None]
    right = rivals.window_scores(source, truth, truth[:, 8:])
    still = rivals.window_scores(source, truth, truth[:, [7]].expand(-1, 25, -1, -1, -1, -1))
    assert right["PSNR, dB"].tolist() == [[50.0, 50.0, 50.0]] and right["agent, px"].tolist() == [[0.0, 0.0, 0.0]]
    assert still["agent, px"][0, 2] > 2 and still["masked PSNR, dB"][0, 2] < still["PSNR, dB"][0, 2] < 40
    assert rivals.listed(torch.tensor([[1.5, torch.nan]])) == [[1.5, None]]


def test_a_world_that_knows_the_episodes_is_not_measured(tmp_path):
    source, world = open_episodes(LEROBOT_V30, (64, 64), ("top",)), tiny_world(size=(64, 64), views=("top",))
    origin = {"fingerprint": source.fingerprint, "robot_type": "pusht", "reset_seeds": None}
    world.train_data = [{**origin, "episodes": [2, 3]}]
    config = rivals.Rivals(tmp_path / "data", tmp_path / "test", tmp_path / "out")
    with pytest.raises(ValueError, match=r"^--held-out .*test: 2 of its 8 episodes are also in --data$"):
        rivals.measured(config, "ours", rivals.Entry(world, 2, 5, 9), source)


def scored(values):
    return {"episodes": [0, 0, 1, 2, 3, 4], "scores": {"PSNR, dB": [[value, None, value + 1] for value in values]}}


def test_tables_hold_means_and_paired_differences():
    quality = {"ours, 2 steps": scored([20.0, 21, 22, 23, 24, 25]), "theirs": scored([18.0, 19, 20, 21, 22, 23])}
    text = tables.quality_tables(quality, "ours, 2 steps", seed=0)
    assert re.search(r"\| ours, 2 steps \| 22\.5 \[\S+, \S+\] \| - \| 23\.5 \[", text)
    assert "## PSNR, dB: the world minus ours, 2 steps" in text
    assert "| theirs | -2.0 [-2.0, -2.0] | - | -2.0 [-2.0, -2.0] |" in text


def test_the_speed_table_has_the_ratio_of_rounds_that_took_turns():
    speed = {"ours": {"1": [20.0, 40, 20, 40, 30]}, "theirs": {"1": [10.0, 20, 10, 20, 15]}}
    speed["copying"] = {"1": [1000.0] * 5}
    about = {name: {"weights": 3_600_000, "steps": 7} for name in ("ours", "theirs")}
    about["copying"] = {"weights": 0, "steps": 0}
    lines = tables.speed_table(speed, about, "ours", seed=0).splitlines()
    assert lines[2] == "| world | weights | training steps | frames/s, batch 1 | ours is |"
    assert lines[4] == "| ours | 3.60M | 7 | 30.0 | - |"
    assert lines[5] == "| theirs | 3.60M | 7 | 15.0 | 2.00 times as fast [2.00, 2.00] |"
    assert lines[6:] == ["| copying | - | - | 1000.0 | - |"]


def test_the_whole_table_of_a_rival_and_its_picture(tmp_path, monkeypatch, capsys):
    """From training to tables; ours is a tiny world that is there already."""
    world = tiny_world(size=(64, 64), views=("top",))
    world.save(tmp_path / "world")
    (tmp_path / "world" / "state").mkdir()
    (tmp_path / "world" / "state" / "state.json").write_text('{"step": 5}')
    monkeypatch.setattr(rivals, "train_ours", lambda config: tmp_path / "world")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    config = rivals.Rivals(
        LEROBOT_V30,
        LEROBOT_V30,
        tmp_path / "out",
        rivals={"theirs": "test_rivals:Convolution"},
        minutes=0.002,
        speed_batches=(1,),
        rounds=1,
        frames=1,
        starts=1,
        validation_episodes=1,
    )
    rivals.main(config)
    said = capsys.readouterr().out
    for name in ("ours, 2 steps", "ours, 1 step", "copying", "theirs"):
        assert f"| {name} | " in said
    assert (tmp_path / "out" / "rivals.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"settings.json: seed is 0, now it is 1; choose another --out"):
        rivals.main(replace(config, seed=1))
    with pytest.raises(ValueError, match=r"^--only: there is no world their; there are ours, copying, theirs$"):
        rivals.main(replace(config, only=("their",)))
