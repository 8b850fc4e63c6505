"""Every command on a pretrained transformer: a tiny random one, from training to a demo session."""

import csv
import json

import pytest
import torch
from rank_set import write_rank_set
from tiny_backbone import BACKBONES

from demos.driving.session import DriveSession
from demos.driving.start import start_from_data
from policy_eval.policies.find import load_policy
from policy_eval.serving.command import ServeConfig, open_host
from worldmodel import connect
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.wire.server import serving
from worldmodel.world_model import WorldModel

RUN = ["--lora-rank", "2", "--width", "16", "--steps", "4", "--batch", "2", "--frames", "3", "--size", "64", "64"]
RUN += [
    "--validation-episodes",
    "2",
    "--relative-to",
    "0",
    "0",
    "1",
    "1",
    "--loss.forward-start",
    "0.3",
    "--max-steps",
    "8",
]


def worldmodel(*arguments: object) -> None:
    """Run a command in this process; a mistake would be raised."""
    assert main([*map(str, arguments), "--traceback"]) == 0


@pytest.fixture(scope="module", params=sorted(BACKBONES))
def made(request, tmp_path_factory):
    """Data, a judge and policies of PushT-Position, a world on a pretrained transformer, and how it was trained."""
    folder = tmp_path_factory.mktemp(request.param)
    parts = write_rank_set(folder, policies=2, episodes=5)
    BACKBONES[request.param](folder / "base", halvings=3)
    out = folder / "pretrained"
    run = ["pretrain", "video", "--backbone", folder / "base", "--data", parts.starts, *RUN, "--log", "none"]
    worldmodel(*run, "--out", out)
    return parts, out, run


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


@pytest.mark.slow
def test_it_is_filmed_and_measured(made, tmp_path):
    parts, world, _ = made
    common = ["--world", world, "--data", parts.starts]
    worldmodel("rollout", *common, "--episode", 4, "--horizon", 3, "--num-steps", 8, "--out", tmp_path / "dream.mp4")
    worldmodel("fidelity", *common, "--horizon", 5, "--starts", 1, "--out", tmp_path / "fidelity.json")
    assert set(json.loads((tmp_path / "fidelity.json").read_text())["cameras"]) == {"top", "wrist"}


@pytest.mark.slow
def test_policies_are_ranked_steered_and_improved_in_it(made, tmp_path):
    parts, world, _ = made
    models = ["--world", world, "--judge", parts.judge, "--data", parts.starts, "--num-steps", 1]
    few = ["--episodes", 2, "--horizon", 3, "--device", "cpu"]
    worldmodel("rank", *models, *few, "--policies", parts.policies, "--out", tmp_path / "rank", "--workers", 1)
    policy = parts.policies / "policy-0"
    steered = ["--policy", policy, "--out", tmp_path / "steered", "--k", 2, "--lookahead", 2, "--workers", 1]
    worldmodel("steer", "--world", world, "--judge", parts.judge, "--device", "cpu", *steered)
    assert load_policy(tmp_path / "steered").k == 2
    run = ["--policy", policy, "--out", tmp_path / "better", "--updates", 1, "--streams", 4, "--horizon", 2]
    worldmodel("imagine", *models, *run, "--validation-starts", 2, "--validation-horizon", 2, "--pool", 4)
    assert (tmp_path / "better" / "policy.json").is_file()


@pytest.mark.slow
def test_it_is_posttrained_by_a_second_adapter(made, tmp_path):
    parts, world, _ = made
    out = tmp_path / "posttrained"
    run = ["--world", world, "--data", parts.starts, "--out", out, "--steps", 2, "--groups", 2, "--candidates", 2]
    run += ["--train", "lora", "--lora-rank", 2, "--validation-horizon", 4, "--prefix", 1, "--keep", 1]
    worldmodel("posttrain", *run, "--validation-episodes", 2)
    assert json.loads((out / "world.json").read_text())["config"]["dit"]["posttrained"] == [2]
    before, after = (WorldModel.load(each).state_dict() for each in (world, out))
    first = {name: value for name, value in before.items() if ".world." in name or ".told." in name}
    assert first and all(torch.equal(value, after[name]) for name, value in first.items())
    assert any(".posttrained0." in name for name in after)


@pytest.mark.slow
def test_it_is_served_and_driven(made):
    parts, world, _ = made
    host, door = open_host(ServeConfig(world=world, data=parts.starts, judge=parts.judge, port=0, device="cpu"))
    with serving(host, door) as url:
        env = connect(url, batch=1)
        env.reset(seed=0)
        frames = env.step(env.action_space.sample())[0]["observation.images.top"]
        assert frames.shape == (64, 64, 3)
        env.close()
    loaded = WorldModel.load(world)
    start = start_from_data(open_episodes(parts.starts, (64, 64)), loaded, episode=4)
    session = DriveSession(loaded, start, num_steps=1)
    assert session.step([next(iter(session.bindings))]).frames.shape == (2, 64, 64, 3)
    session.undo()
    assert session.num_frames == 0
