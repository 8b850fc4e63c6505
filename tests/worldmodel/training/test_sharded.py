"""FSDP2: a pretrained transformer, divided over two processes, trains and is saved as in one."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from in_processes import in_processes
from places import LEROBOT_V30
from tiny import random_clip
from tiny_backbone import write_wan

from worldmodel.data.options import DataOptions
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.training.accelerator import joined, start_accelerator
from worldmodel.training.config import VideoConfig
from worldmodel.training.loss import LossConfig
from worldmodel.training.optimizers import build_optimizers
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

SMALL = {"batch": 2, "frames": 3, "size": (64, 64), "validation_episodes": 1, "average_decay": 0.5, "warmup": 1}


@pytest.fixture
def sharded(monkeypatch):
    """What `accelerate launch --use_fsdp --fsdp_version 2` sets."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")


def train(base: Path, out: Path, steps: int, *, processes: int, resume: bool = False) -> Path:
    """Train two adapters of rank 2 by `pretrain`; all steps of a run have the same schedule."""
    loss = LossConfig(weighting="velocity", forward_start=0.0, forward_fraction=1.0)
    dit = PretrainedConfig(str(base), lora_rank=2, width=16)
    options = {"steps": steps, "resume": resume, "dit": dit, "loss": loss, "log": "none", "device": "cpu"}
    reading = DataOptions(episodes=":3")
    config = VideoConfig(data=LEROBOT_V30, out=out, reading=reading, **SMALL, **options)
    in_processes(lambda: str(pretrain(config)), processes)
    return out


def losses(out: Path) -> Sequence[float]:
    with (out / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def predictions(world: WorldModel) -> torch.Tensor:
    clip = random_clip(world, batch=1, frames=3)
    stream = world.stream(clip, seeds=3)
    stream.step(torch.full((1, 2), 0.3), num_steps=2)
    return stream.latent


@pytest.mark.slow
def test_weights_that_two_processes_share_are_those_of_one(tmp_path, sharded):
    """Loss, moving average, clipping, saving, and the state, which another number of processes goes on from."""
    base = write_wan(tmp_path / "base", halvings=3)
    one = train(base, tmp_path / "one", 2, processes=1)
    two = train(base, tmp_path / "two", 2, processes=2)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    first, second = (WorldModel.load(each) for each in (one, two))
    torch.testing.assert_close(predictions(second), predictions(first), atol=1e-6, rtol=0)
    before = WorldModel.load(two)
    with torch.no_grad():
        for name, parameter in before.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert (predictions(before) - predictions(second)).abs().max() > 1e-5  # the adapters have learned something
    assert (two / "weights.safetensors").stat().st_size < (base / "transformer").stat().st_size + 2e5
    assert len(list((two / "state").glob("state-*"))) == 1
    train(base, one, 3, processes=2, resume=True)
    train(base, two, 3, processes=1, resume=True)
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)


def test_muon_and_the_first_version_are_refused(monkeypatch, sharded):
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(4, 4)})

    def refused() -> str:
        try:
            joined(start_accelerator("cpu", Path("out"), "none"), model, build_optimizers(model, 0.1, muon=True))
        except ValueError as error:
            return str(error)
        return ""

    assert (
        in_processes(refused)
        == ["Muon needs whole matrices, which FSDP does not keep; pass --no-muon, or launch without it"] * 2
    )
    monkeypatch.setenv("FSDP_VERSION", "1")
    assert in_processes(refused) == ["--fsdp_version 1: launch with --fsdp_version 2"] * 2
