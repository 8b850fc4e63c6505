"""Rewards of yours: by name or passed, their weights and signs, and what is said when they are wrong."""

import json
import textwrap
from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30
from tiny import random_clip, tiny_world

from rl_posttrain import Reward, Rollout, posttrain
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import judge
from rl_posttrain.rewards.extra import CheckedReward, find_rewards, rewards_read
from rl_posttrain.rewards.mix import RewardWeights, build_rewards
from worldmodel.cli import main
from worldmodel.data import EpisodeCache, open_episodes

MODULE = """
    import torch

    def number(rollout):
        return torch.arange(len(rollout.imagined.frames))

    class Dark:
        def __call__(self, rollout):
            return -rollout.imagined.frames.float().mean(dim=(1, 2, 3, 4, 5))

    class Needy:
        def __init__(self, size):
            pass

    def short(rollout):
        return torch.zeros(1)

    def plain(rollout):
        return 0.5

    def broken(rollout):
        return torch.tensor([0.0] * (len(rollout.imagined.frames) - 1) + [float("nan")])

    def raising(rollout):
        return rollout.reference.frames[0] / nothing

    def fidelity(rollout):
        return torch.zeros(len(rollout.imagined.frames))

    three = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> str:
    """The name of a module with rewards, in the current folder; another one for each test."""
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture(scope="module")
def source():
    return EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))


def rollout(candidates: int = 3) -> Rollout:
    clip = random_clip(tiny_world(), batch=candidates)
    return Rollout(clip, clip)


def test_rewards_are_found_by_name_and_a_class_is_made(mine):
    found = find_rewards([f"{mine}:number=0.5", f"{mine}:Dark=-2"], {"passed": (lambda rollout: torch.zeros(3), 1.0)})
    assert {name: weight for name, (_, weight) in found.items()} == {"number": 0.5, "Dark": -2.0, "passed": 1.0}
    seen = rollout()
    assert found["number"][0](seen).tolist() == [0.0, 1.0, 2.0]
    assert found["Dark"][0](seen).dtype == torch.float32 and found["passed"][0](seen).tolist() == [0.0] * 3
    assert isinstance(found["Dark"][0], Reward)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}:number", "--reward.extra {}:number: has no weight, expected module:name=WEIGHT"),
        ("{}:number=much", "--reward.extra {}:number=much: the weight is 'much', expected a number"),
        ("{}:number=nan", "--reward.extra {}:number=nan: the weight is nan, expected a finite number"),
        ("number=1", "reward 'number' does not have the form module:name"),
        ("{}:nmber=1", "reward {}:nmber: {}.py has no 'nmber'; did you mean 'number'?"),
        ("{}:Needy=1", "reward {}:Needy: the class cannot be made without arguments: TypeError"),
        ("{}:three=1", "reward {}:three: expected a function of the rollout, found an object of the class int"),
    ],
)
def test_a_wrong_name_or_weight_is_named(text, said, mine):
    with pytest.raises(ValueError) as caught:
        find_rewards([text.format(mine)])
    message = str(caught.value).replace(f"{Path.cwd()}/", "")
    assert message.startswith(said.format(mine, mine)) and "\n" not in message


def test_two_rewards_have_two_names(mine, source):
    with pytest.raises(ValueError, match=r"two rewards are called 'number': mine_\d+:number and mine_\d+:number"):
        find_rewards([f"{mine}:number=1", f"{mine}:number=2"])
    with pytest.raises(ValueError, match="two rewards are called 'number'"):
        find_rewards([f"{mine}:number=1"], {"number": (torch.sum, 1.0)})
    with pytest.raises(ValueError, match="a reward is called 'fidelity' already, the known ones are fidelity, agree"):
        extra = find_rewards([f"{mine}:fidelity=1"])
        build_rewards(RewardWeights(), tiny_world(), source, range(2), None, branch=4, extra=extra)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short", r"shape \(3,\), or a map .*divisor of 24\), got \(1,\) of torch.float32"),
        ("plain", r"shape \(3,\), or a map of them, got an object of the class float"),
        ("broken", r"shape \(3,\), or a map of them, got nan for candidate 2"),
        ("raising", r"NameError: name 'nothing' is not defined \(.*mine_\d+.py, line \d+\)$"),
    ],
)
def test_a_bad_reward_is_one_line_that_names_it(name, said, mine):
    reward = find_rewards([f"{mine}:{name}=1"])[name][0]
    with pytest.raises(ValueError, match=rf"^reward mine_\d+:{name}: .*{said}"):
        reward(rollout())


def test_a_reward_that_looks_for_a_recording_is_told_that_there_is_none(mine):
    seen = Rollout(rollout().imagined, None)
    with pytest.raises(ValueError, match=r"AttributeError.*; in imagine there is no recording, so rollout.reference"):
        find_rewards([f"{mine}:raising=1"])["raising"][0](seen)


@pytest.mark.parametrize(("weight", "best"), [(3.0, 2), (-3.0, 0), (0.0, 1)])
def test_weight_and_sign_of_an_extra_reward_decide(weight, best, source):
    """Of three candidates, fidelity likes the middle one by less than three times its spread."""
    extra = {"number": (CheckedReward("number", lambda rollout: torch.arange(3.0)), weight)}
    mix = build_rewards(RewardWeights(), tiny_world(), source, range(2), None, branch=4, extra=extra)
    rewards = {**mix.rewards, "fidelity": lambda rollout: torch.tensor([0.0, 1.0, 0.0])}
    mix = mix.__class__(rewards, mix.weights, None)
    good, _, row = judge(PosttrainConfig("world", "data", Path("out"), candidates=3), mix, rollout(), 3)
    assert int(good[0].argmax()) == best and row["reward.number"] == 1.0
    assert mix.names == (("fidelity", "number") if weight else ("fidelity",))


def test_a_run_notes_its_rewards_and_their_code(mine, tmp_path):
    noted = rewards_read([f"{mine}:number=0.5"], {"passed": (torch.sum, -1.0)})
    (tmp_path / f"{mine}.py").write_text("other = 1")
    assert list(noted) == ["reward.extra"] and noted["reward.extra"].startswith(f"{mine}:number=0.5 ")
    assert noted["reward.extra"].endswith(", passed=-1")
    assert rewards_read([f"{mine}:number=0.5"], {"passed": (torch.sum, -1.0)}) != noted
    assert rewards_read([]) == {}


@pytest.fixture
def arguments(tmp_path) -> dict:
    tiny_world().save(tmp_path / "world")
    small = {"groups": 1, "candidates": 2, "context": 2, "prefix": 1, "branch": 2, "steps": 1, "patience": 0}
    small |= {"validation_episodes": 1, "validation_horizon": 4, "validation_interval": 1}
    return {"world": tmp_path / "world", "data": LEROBOT_V30, "out": tmp_path / "out", **small}


@pytest.mark.slow
def test_the_command_takes_rewards_and_a_changed_one_is_not_resumed(mine, arguments, tmp_path, capsys):
    flags = [word for name, value in arguments.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    flags += ["--reward.extra", f"{mine}:number=0.5", f"{mine}:Dark=-1"]
    assert main(["posttrain", *flags]) == 0
    spread = json.loads((tmp_path / "out" / "spread.json").read_text())
    assert set(spread) == {"fidelity", "number", "Dark"} and spread["number"]["within"] == 0.5
    last = json.loads((tmp_path / "out" / "evaluations.jsonl").read_text().splitlines()[-1])
    assert last["reward.Dark"] < 0
    flags[-1] = f"{mine}:Dark=-2"
    assert main(["posttrain", *flags, "--resume"]) == 2
    assert "reward.extra (fingerprint) was" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["named", "passed"])
def test_a_bad_reward_ends_the_run_before_it_trains(how, mine, arguments, tmp_path):
    named = RewardWeights(extra=(f"{mine}:broken=1",) if how == "named" else ())
    passed = {} if how == "named" else {"mine": (lambda rollout: torch.full((2,), torch.inf), 1.0)}
    with pytest.raises(
        ValueError, match=r"^reward (mine_\d+:broken|mine): returns one finite number for each candidate"
    ):
        posttrain(PosttrainConfig(**arguments, reward=named), passed)
    assert not (tmp_path / "out" / "updates.jsonl").exists()


@pytest.mark.slow
def test_python_passes_rewards(arguments, tmp_path):
    calls = []
    posttrain(
        PosttrainConfig(**arguments),
        {"mine": (lambda seen: calls.append(seen) or torch.ones(len(seen.imagined.frames)), 0.1)},
    )
    spread = json.loads((tmp_path / "out" / "spread.json").read_text())
    assert spread["mine"] == {"within": 0.0, "between": 0.0}
    assert all(seen.reference is not None for seen in calls) and len(calls) >= 3
