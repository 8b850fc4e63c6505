"""Pretraining through the command line: exact resume, data parallelism, starting from another."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from fresh_python import worldmodel
from places import LEROBOT_V30
from tiny import tiny_world

from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.model.dit import DiTConfig
from worldmodel.processes.prefetch import Ahead
from worldmodel.training.build import build_world
from worldmodel.training.checkpoint import MovingAverage, load_state, save_state
from worldmodel.training.config import PretrainConfig
from worldmodel.training.loss import LossConfig
from worldmodel.training.optimizers import build_optimizers, learning_rate_factor
from worldmodel.training.pretrain import batch, clip_shape, frame_size, open_data, pretrain
from worldmodel.world_model import WorldModel

DATA = LEROBOT_V30
TINY = [
    "pretrain",
    "tiny",
    "--data",
    str(DATA),
    "--size",
    "16",
    "24",
    "--batch",
    "8",
    "--frames",
    "4",
    "--validation-episodes",
    "1",
    "--validation-interval",
    "1000",
    "--relative-to",
    "0",
    "0",
    "1",
    "1",
    "--dit.width",
    "32",
    "--dit.head-width",
    "16",
    "--dit.patch",
    "8",
    "--dit.encoder-depth",
    "2",
    "--dit.decoder-depth",
    "1",
]


def command(out, *options: str) -> list[str]:
    return [sys.executable, "-m", "worldmodel.cli", *TINY, "--out", str(out), *options]


def losses(out) -> list[float]:
    with (out / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [float(row["loss"]) for row in rows]


def run(out, *options: str) -> None:
    done = worldmodel(*TINY, "--out", out, *options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_killed_run_resumes_with_the_losses_of_an_uninterrupted_one(tmp_path):
    options = ("--steps", "12", "--save-interval", "2", "--seed", "3", "--long-interval", "3")
    run(tmp_path / "whole", *options)
    expected = losses(tmp_path / "whole")
    killed, table = tmp_path / "killed", tmp_path / "killed" / "losses.csv"
    after = 5
    process = subprocess.Popen(command(killed, *options), start_new_session=True)
    while not table.exists() or len(table.read_text().splitlines()) <= after:
        assert process.poll() is None or len(table.read_text().splitlines()) > after
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run(killed, *options, "--resume")
    assert losses(killed) == pytest.approx(expected, abs=1e-6)
    whole, resumed = WorldModel.load(tmp_path / "whole"), WorldModel.load(killed)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
    assert list(killed.glob("validation/*.mp4"))


def launch(num_processes: int, *arguments: str) -> subprocess.CompletedProcess:
    """A command in gloo processes, under `accelerate launch`."""
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
    launcher += ["--dynamo_backend", "no", "--num_processes", str(num_processes)]
    return subprocess.run([sys.executable, *launcher, *arguments[1:]], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tmp_path):
    options = ("--steps", "3", "--save-interval", "1000", "--long-interval", "2")
    run(tmp_path / "one", *options)
    done = launch(2, *command(tmp_path / "two", *options))
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two[0] == pytest.approx(one[0], rel=1e-4)
    assert two == pytest.approx(one, rel=2e-3)
    assert done.stdout.count("device: ") == 1 and done.stderr.count("pretrain: step 3 of 3") == 1


@pytest.mark.slow
def test_labelled_training_starts_from_unlabelled_pretraining(tmp_path):
    options = ("--steps", "2", "--save-interval", "1000")
    run(tmp_path / "video", *options, "--no-use-actions")
    video = WorldModel.load(tmp_path / "video")
    assert video.action_dim == 0
    run(tmp_path / "robot", *options, "--init", str(tmp_path / "video"))
    robot = WorldModel.load(tmp_path / "robot")
    assert robot.action_dim == 2
    (noted,) = video.train_data
    labelled = {name: value for name, value in noted.items() if name != "actions"}
    assert noted["actions"] is False and robot.train_data == [noted, labelled]
    assert video.knows_no_action and robot.knows_no_action


@pytest.mark.slow
def test_one_camera_of_two_is_trained_on_and_dreamt(tmp_path):
    run(tmp_path / "one", "--steps", "1", "--views", "wrist")
    assert WorldModel.load(tmp_path / "one").views == ("wrist",)
    dream = ["--world", tmp_path / "one", "--data", DATA, "--out", tmp_path / "dream.mp4"]
    assert worldmodel("rollout", *dream, "--horizon", "3").returncode == 0
    assert (tmp_path / "dream.mp4").stat().st_size > 0


def test_every_third_batch_has_half_as_many_clips_twice_as_long():
    config = PretrainConfig(Path("data"), Path("out"), batch=8, frames=10, long_interval=3)
    assert [clip_shape(config, i) for i in range(4)] == [(8, 10), (8, 10), (4, 19), (8, 10)]
    assert clip_shape(replace(config, long_interval=0), 2) == (8, 10)
    assert clip_shape(replace(config, batch=1), 2) == (1, 19)


def test_batches_drop_the_share_of_actions_that_is_asked_for(tmp_path):
    source = EpisodeCache(open_episodes(DATA, (16, 24)), tmp_path)
    config = PretrainConfig(DATA, tmp_path / "out", batch=2, frames=4, action_dropout=0.999)
    world, accelerator = tiny_world(views=source.views), Accelerator(cpu=True)
    _, dropped = batch(config, world, source, [0, 1], accelerator, 0)
    assert not dropped.present.all(1).any()
    _, usual = batch(replace(config, action_dropout=0.0), world, source, [0, 1], accelerator, 0)
    assert usual.present is None and torch.equal(usual.noise, dropped.noise)
    with pytest.raises(ValueError, match="--action-dropout is at least 0 and below 1, got 1"):
        pretrain(replace(config, action_dropout=1.0))
    with pytest.raises(ValueError, match=r"--loss\.shortcut-interval 1 leaves no clip"):
        pretrain(replace(config, loss=LossConfig(shortcut_interval=1)))


def test_build_world_takes_over_what_fits(tmp_path):
    source = EpisodeCache(open_episodes(DATA, (16, 24)), tmp_path)
    dit = DiTConfig(width=32, head_width=16, encoder_depth=1, decoder_depth=1, patch=8)
    settings = {
        "stride": 1,
        "injection": "token",
        "relative_to": {0: 0},
        "use_actions": True,
        "codec": None,
        "init": None,
    }
    first = build_world(source, [0, 1], dit=dit, **settings)
    first.config = replace(first.config, temperature=0.5, guidance=1.5)
    first.save(tmp_path / "first")
    changed = {"init": tmp_path / "first", "stride": 2, "injection": "adaln"}
    second = build_world(source, [2], dit=DiTConfig(), **{**settings, **changed})
    assert second.config.dit == dit
    assert (second.config.temperature, second.config.guidance) == (0.5, 1.5)
    assert second.config.conditioner.injection == "token"
    assert second.conditioner.action_center.shape == (4,)
    assert torch.equal(second.dit.camera.view, first.dit.camera.view)
    assert [d["episodes"] for d in second.train_data] == [[0, 1], [2]]
    assert not any("/" in d["name"] for d in second.train_data)
    with pytest.raises(ValueError, match=r"relative_to has 5: 0.*2 action dims"):
        build_world(source, [0], dit=dit, **{**settings, "relative_to": {5: 0}})
    other = EpisodeCache(open_episodes(DATA, (24, 24)), tmp_path)
    with pytest.raises(ValueError, match=r"\(16, 24\).*\(24, 24\)"):
        build_world(other, [0], dit=dit, **{**settings, "init": tmp_path / "first"})


def test_learning_rate_factor_by_hand():
    assert learning_rate_factor(0, 0.0, warmup=4) == 0.25
    assert learning_rate_factor(10, 0.5, warmup=4) == 1.0
    assert learning_rate_factor(10, 0.75, warmup=4) == pytest.approx(0.5)
    assert learning_rate_factor(10, 1.0, warmup=4) == 0.0


def test_training_state_round_trip(tmp_path):
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 2)})
    optimizers, average = build_optimizers(model, 0.1, muon=True), MovingAverage(model, 0.9)
    for step in range(3):
        model["head"](model["encoder"](torch.ones(1, 4))).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        average.update(model, step)
    save_state(tmp_path, model, average, optimizers, {"step": 3, "seconds": 1.5})
    fresh = torch.nn.ModuleDict({"encoder": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 2)})
    fresh_optimizers, fresh_average = (build_optimizers(fresh, 0.1, muon=True), MovingAverage(fresh, 0.9))
    assert load_state(tmp_path, fresh, fresh_average, fresh_optimizers)["step"] == 3
    for a, b in zip(average.shadow, fresh_average.shadow, strict=True):
        assert torch.equal(a, b)
    for before, after in zip(optimizers, fresh_optimizers, strict=True):
        for key, entries in before.state_dict()["state"].items():
            for name, value in entries.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(after.state_dict()["state"][key][name]))
    with pytest.raises(ValueError, match="nothing to resume"):
        load_state(tmp_path / "none", fresh, fresh_average, fresh_optimizers)
    with pytest.raises(ValueError, match="another model"):
        other = torch.nn.Linear(2, 2)
        load_state(tmp_path, other, MovingAverage(other, 0.9), [])
    with pytest.raises(ValueError, match=r"encoder.weight is \(4, 4\), not \(1, 4\)"):
        other = torch.nn.ModuleDict({"encoder": torch.nn.Linear(4, 1), "head": model["head"]})
        load_state(tmp_path, other, MovingAverage(other, 0.9), [])


@pytest.mark.parametrize("enabled", [False, True])
def test_batches_made_ahead_are_those_asked_for(enabled):
    made = []

    def make(step: int) -> int:
        made.append(step)
        if step == 7:
            raise ValueError("step 7")
        return 10 * step

    with Ahead(make, enabled=enabled) as batches:
        assert [batches(step) for step in (3, 4, 5, 2)] == [30, 40, 50, 20]
        with pytest.raises(ValueError, match="step 7"):
            batches(7)
    assert made[:3] == [3, 4, 5]
    assert (6 in made) == enabled


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ((64, 64), (64, 64)),
        ((90, 100), (96, 104)),  # padded to whole patches
        ((480, 640), (96, 128)),
        ((720, 1280), (80, 144)),
        ((128, 96), (128, 96)),
    ],
)
def test_large_pictures_become_smaller_in_the_same_shape(own, expected, tmp_path):
    budget = frame_size(PretrainConfig(tmp_path, tmp_path))
    assert budget.size(own) == expected


def test_the_size_of_the_frames_can_be_chosen(tmp_path, capsys):
    config = PretrainConfig(LEROBOT_V30, tmp_path, validation_episodes=1, picture_pixels=32 * 32)
    assert open_data(config).size == (32, 32)
    assert "pictures of 96 x 96 are read at 32 x 32" in capsys.readouterr().out
    assert open_data(replace(config, size="native")).size == (96, 96)
    assert open_data(replace(config, size=(48, 96))).size == (48, 96)
    assert open_data(replace(config, codec="vae")).size == (96, 96)
    world = tmp_path / "world"
    tiny_world(size=(64, 64)).save(world)
    assert frame_size(replace(config, init=world)) == (64, 64)
