"""Pretraining in several processes: the clips, the noise and the gradient of one, also after a resume."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from fresh_python import python
from in_processes import in_processes
from places import LEROBOT_V30
from tiny import TINY_DIT, tiny_world

import worldmodel.training.pretrain as pretraining
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.training.accelerator import joined, start_accelerator
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import TrainingStep, batch, parts_of, pretrain
from worldmodel.training.share import backward_in_parts

LAUNCH = "-m accelerate.commands.launch --multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no"


@pytest.fixture(scope="module")
def source():
    return EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))


def config(out: Path = Path("out"), **settings) -> PretrainConfig:
    small = {"batch": 4, "frames": 4, "size": (16, 24), "dit": TINY_DIT, "log": "none", "device": "cpu"}
    return PretrainConfig(data=LEROBOT_V30, out=out, validation_episodes=1, **{**small, **settings})


def hashes(clip) -> list[str]:
    return [sha256(frames.numpy().tobytes()).hexdigest()[:12] for frames in clip.frames]


@pytest.mark.parametrize("number", [2, 4])
def test_processes_read_the_clips_of_one_each_its_own(source, number):
    options = config(long_interval=2, batch=8)

    def drawn() -> list:
        accelerator, found = start_accelerator("cpu", Path("out"), "none"), []
        for step in range(2):
            clip, draws = batch(options, tiny_world(), source, range(6), accelerator, step)
            found.append((hashes(clip), draws.noise, draws.tau, draws.passes))
        return found

    (alone,) = in_processes(drawn, 1)
    shares = in_processes(drawn, number)
    for step, (clips, noise, tau, passes) in enumerate(alone):
        mine = [each[step] for each in shares]
        assert [clip for each in mine for clip in each[0]] == clips and len(mine[0][0]) == len(clips) // number
        assert torch.equal(torch.cat([each[1] for each in mine]), noise)
        assert torch.equal(torch.cat([each[2] for each in mine]), tau)
        assert {each[3] for each in mine} == {passes}


def first_gradient(source, accumulate: int = 1, **conditioner) -> torch.Tensor:
    world = tiny_world(**conditioner).train()
    options = config(accumulate=accumulate, use_actions=not world.describes)
    accelerator = start_accelerator("cpu", Path("out"), "none")
    model, _ = joined(accelerator, TrainingStep(world, options.loss), [], unused=world.describes)
    clip, draws = batch(options, world, source, range(6), accelerator, 5)
    backward_in_parts(accelerator, model, parts_of(clip, draws, accumulate))
    return torch.cat([each.grad.flatten() for each in world.parameters() if each.grad is not None]).double()


@pytest.mark.parametrize(
    ("processes", "accumulate", "conditioner"),
    [(2, 1, {}), (1, 2, {}), (2, 2, {}), (2, 1, {"action_dim": 0, "relative_to": {}, "latent_dim": 3})],
)
def test_two_processes_and_two_parts_have_the_gradient_of_the_whole(source, processes, accumulate, conditioner):
    """With latent actions, too, which are compared over the whole batch."""
    (alone,) = in_processes(lambda: first_gradient(source, **conditioner), 1)
    for found in in_processes(lambda: first_gradient(source, accumulate, **conditioner), processes):
        assert (found - alone).norm() <= 1e-5 * alone.norm()


def test_what_does_not_divide_is_refused(source):
    def refused(**settings) -> str:
        try:
            batch(config(**settings), tiny_world(), source, range(6), start_accelerator("cpu", Path("out"), "none"), 0)
        except ValueError as error:
            return str(error)
        return ""

    assert in_processes(lambda: refused(batch=7)) == ["batch 7 does not divide by 2 processes"] * 2
    said = "--accumulate 3 does not divide the 4 clips of a process"
    assert in_processes(lambda: refused(batch=8, accumulate=3)) == [said] * 2
    assert in_processes(lambda: refused(accumulate=0), 1) == ["--accumulate 0 does not divide the 4 clips of a process"]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """The clips of every step are those of an uninterrupted run in one process, in their order; so are the losses."""

    def run(out: Path, steps: int, resume: bool) -> list:
        found, sample = [], pretraining.sample_clips

        def noted(*arguments, **settings):
            clip = sample(*arguments, **settings)
            found.append((settings["index"], hashes(clip)))
            return clip

        pretraining.sample_clips = noted
        pretrain(config(out, steps=steps, resume=resume, warmup=1))
        return found

    (whole,) = in_processes(lambda: run(tmp_path / "whole", 6, False), 1)
    found: dict[int, list[str]] = {}
    for steps, processes in ((2, 2), (4, 1), (6, 2)):
        for part in in_processes(lambda s=steps: run(tmp_path / "parts", s, s > 2), processes):
            for step, clips in part:
                found.setdefault(step, []).extend(clips)
    assert sorted(found.items()) == whole and len(whole) == 6
    assert (tmp_path / "parts" / "losses.csv").read_text().count("\n") == 7


@pytest.mark.slow
def test_a_signal_to_all_processes_saves_once_and_goes_on(tmp_path):
    """As Ctrl-C in a terminal: the launcher and the processes get the signal, and the launcher passes it on."""
    options = "pretrain tiny --size 16 24 --batch 4 --frames 4 --validation-episodes 1 --log none --device cpu"
    options += " --dit.width 32 --dit.head-width 16 --dit.patch 8 --dit.encoder-depth 1 --dit.decoder-depth 1"
    run = ["-m", "worldmodel.cli", *options.split(), "--data", str(LEROBOT_V30), "--out", str(tmp_path / "run")]
    launch = [sys.executable, *LAUNCH.split(), "--num_processes", "2", *run]
    process = subprocess.Popen(
        [*launch, "--steps", "100000"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    table = tmp_path / "run" / "losses.csv"
    while not table.exists() or len(table.read_text().splitlines()) < 5:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert said.count("worldmodel pretrain: stopped and saved after step") == 1
    states = list((tmp_path / "run" / "state").glob("state-*.safetensors"))
    step = int(states[0].stem.removeprefix("state-"))
    assert len(states) == 1 and step == len(table.read_text().splitlines()) - 1
    assert python(*run, "--steps", step + 2, "--resume").returncode == 0
    assert len(table.read_text().splitlines()) == step + 3
