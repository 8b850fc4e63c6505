"""Three updates of a tiny world, the last one resumed: which weights go where, and by how much."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30
from safetensors.torch import load_file
from tiny import tiny_world

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import next_batch, posttrain
from rl_posttrain.rewards.mix import RewardWeights, build_rewards
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.data.sample import split_episodes
from worldmodel.world_model import WorldModel

Weights = dict[str, torch.Tensor]


def state_of(out: Path) -> dict[str, Weights]:
    """Weights of a saved state: `world`, `old` and `average`, which is that of the world."""
    (file,) = (out / "state").glob("*.safetensors")
    starts = {"world": "model.world.", "old": "model.old.", "average": "average.world."}
    tensors = load_file(file)
    return {
        part: {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
        for part, start in starts.items()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[PosttrainConfig, list[dict[str, Weights]]]:
    """The settings, and the states before any update, after one, two and three."""
    folder = tmp_path_factory.mktemp("run")
    world = tiny_world()
    world.save(folder / "world", dtype=torch.float32)
    config = PosttrainConfig(
        world=folder / "world",
        data=LEROBOT_V30,
        out=folder / "out",
        groups=1,
        candidates=2,
        context=2,
        prefix=1,
        branch=2,
        steps=1,
        warmup=2,
        learning_rate=1e-3,
        muon=False,
        old_decay_rate=0.25,
        old_decay=0.4,
        average_decay=0.95,
        kl_weight=0.1,
        validation_episodes=1,
        validation_horizon=2,
        patience=0,
    )
    begin = {name: value.detach() for name, value in world.named_parameters()}
    states = [dict.fromkeys(("world", "old", "average"), begin)]
    for steps in (1, 2, 3):
        posttrain(replace(config, steps=steps, resume=steps > 1))
        states.append(state_of(config.out))
    return config, states


def moved(before: Weights, after: Weights) -> float:
    """The largest change of a weight."""
    return max(float((after[name] - value).abs().max()) for name, value in before.items())


def test_the_learning_rate_warms_up(run):
    """AdamW's first step moves weights by the learning rate: half of 1e-3, since the warm-up takes two updates."""
    states = run[1]
    assert moved(states[0]["world"], states[1]["world"]) == pytest.approx(5e-4, rel=0.05)
    assert moved(states[1]["world"], states[2]["world"]) > 6e-4


@pytest.mark.parametrize(("update", "stays"), [(1, 0.0), (2, 0.25), (3, 0.4)])
def test_the_old_policy_follows_by_its_schedule(run, update, stays):
    """By a quarter more of it stays after each update, at most 0.4."""
    before, after = run[1][update - 1 : update + 1]
    for name, old in before["old"].items():
        expected = stays * old + (1 - stays) * after["world"][name]
        torch.testing.assert_close(after["old"][name], expected, atol=1e-7, rtol=1e-5)
    assert moved(after["old"], after["world"]) > 1e-5 or not stays


@pytest.mark.parametrize(("update", "decay"), [(1, 1 / 10), (2, 2 / 11), (3, 3 / 12)])
def test_the_average_warms_up(run, update, decay):
    before, after = run[1][update - 1 : update + 1]
    for name, average in before["average"].items():
        expected = decay * average + (1 - decay) * after["world"][name]
        torch.testing.assert_close(after["average"][name], expected, atol=1e-7, rtol=1e-5)


def test_the_average_is_what_is_saved(run):
    config, states = run
    saved = dict(WorldModel.load(config.out).named_parameters())
    assert states[3]["average"].keys() == saved.keys()
    for name, value in states[3]["average"].items():
        torch.testing.assert_close(saved[name], value, msg=name)
    assert moved(states[3]["average"], states[3]["world"]) > 1e-4


def test_the_old_policy_draws_the_candidates(run):
    """The third update's reward is that of the batch which the old policy after the second one draws."""
    config, states = run
    world = WorldModel.load(config.world)
    source = EpisodeCache(open_episodes(config.data, tuple(world.size), world.views))
    train, _ = split_episodes(source, 1)
    rewards = build_rewards(RewardWeights(), world, source, train, None, branch=2)
    rows = [json.loads(row) for row in (config.out / "updates.jsonl").read_text().splitlines()]
    found = {}
    for part in ("old", "world"):
        world.load_state_dict(states[2][part], strict=False)
        found[part] = next_batch(config, world, source, train, rewards, 2)[1]["reward"]
    assert rows[2]["reward"] == pytest.approx(found["old"], abs=1e-6)
    assert abs(found["old"] - found["world"]) > 1e-5
    assert [row["gap"] > 0 for row in rows] == [False, False, True]


def test_the_reference_stays_where_the_run_began(run):
    """So there is a distance to it from the second update on."""
    rows = [json.loads(row) for row in (run[0].out / "updates.jsonl").read_text().splitlines()]
    assert [row["kl"] > 0 for row in rows] == [False, True, True]
