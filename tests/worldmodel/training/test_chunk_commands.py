"""Commands on world models whose latents are four frames each: one from scratch and one on a tiny Wan."""

import csv
import json

import pytest
import torch
from rank_set import write_rank_set
from tiny_backbone import tiny_wan
from tiny_chunks import tiny_video_codec

from worldmodel.cli import main
from worldmodel.world_model import WorldModel

RUN = [
    "--frames-per-latent",
    "4",
    "--steps",
    "4",
    "--batch",
    "2",
    "--frames",
    "5",
    "--size",
    "64",
    "64",
    "--log",
    "none",
]
RUN += ["--validation-episodes", "2", "--relative-to", "0", "0", "1", "1", "--loss.forward-start", "0.3"]
SCRATCH = ["--dit.width", "32", "--dit.patch", "2", "--dit.encoder-depth", "2", "--dit.head-width", "16"]


def worldmodel(*arguments: object) -> None:
    """Run a command in this process; a mistake would be raised."""
    assert main([*map(str, arguments), "--traceback"]) == 0


@pytest.fixture(scope="module", params=["tiny", "video"])
def made(request, tmp_path_factory):
    """Data, a judge and policies of PushT-Position, a world model, and how it was trained."""
    folder = tmp_path_factory.mktemp(request.param)
    parts = write_rank_set(folder, policies=2, episodes=5)
    tiny_video_codec().autoencoder.save_pretrained(folder / "base" / "vae")
    tiny_wan().save_pretrained(folder / "base" / "transformer")
    if request.param == "tiny":
        network = ["tiny", "--codec", folder / "base" / "vae", *SCRATCH]
    else:
        network = ["video", "--backbone", folder / "base", "--lora-rank", "2", "--width", "16"]
    run = ["pretrain", *network, "--data", parts.starts, *RUN]
    worldmodel(*run, "--out", folder / "pretrained")
    return parts, folder / "pretrained", run


def losses(out):
    with (out / "losses.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_resumed_run_repeats_an_uninterrupted_one(made, tmp_path):
    _, out, run = made
    worldmodel(*run, "--out", tmp_path, "--steps", 2)
    worldmodel(*run, "--out", tmp_path, "--resume")
    assert losses(tmp_path) == losses(out)
    assert (tmp_path / "weights.safetensors").read_bytes() == (out / "weights.safetensors").read_bytes()
    world = WorldModel.load(out)
    assert world.chunk == 4
    assert world.conditioner.action_scale.shape == (8,)
    assert not torch.equal(world.conditioner.action_scale, torch.ones(8))


@pytest.mark.slow
def test_it_is_filmed_measured_and_ranked_in(made, tmp_path):
    parts, world, _ = made
    common = ["--world", world, "--data", parts.starts]
    worldmodel("rollout", *common, "--episode", 4, "--horizon", 3, "--out", tmp_path / "dream.mp4")
    worldmodel("fidelity", *common, "--horizon", 5, "--starts", 1, "--out", tmp_path / "fidelity.json")
    assert set(json.loads((tmp_path / "fidelity.json").read_text())["cameras"]) == {"top", "wrist"}
    few = ["--judge", parts.judge, "--num-steps", 1, "--episodes", 2, "--horizon", 3, "--device", "cpu"]
    worldmodel("rank", *common, *few, "--policies", parts.policies, "--out", tmp_path / "rank", "--workers", 1)


@pytest.mark.slow
def test_it_cannot_be_posttrained_and_frames_fill_chunks(made, tmp_path, capsys):
    parts, world, run = made
    assert main([*map(str, ["posttrain", "--world", world, "--data", parts.starts, "--out", tmp_path / "better"])]) == 2
    assert "latents of 4 frames each cannot be post-trained" in capsys.readouterr().err
    assert main([*map(str, [*run, "--frames", 8, "--out", tmp_path / "other"])]) == 2
    assert "frames 8: latents are 1 frame and then 4 each; the nearest is 5" in capsys.readouterr().err
