"""A steered policy in a folder: what it names, where it is found, and when its fingerprint changes."""

import asyncio
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mine import write_module
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.policies.find import find_policies, load_policy, policy_fingerprint
from policy_eval.serving.policy_host import PolicyHost, copied
from policy_eval.steering.saved import SteeredDescription, load_steered, read_steered, save_steered
from policy_eval.steering.steered import SteeredPolicy

SIZE = (16, 16)
MINE = '''
import torch


class Twice:
    """The policy's plan and others further and further to the right."""

    def __call__(self, policy, observation, k, sigma, seeds, step):
        return policy.plan(observation)[:, None] + torch.arange(0.0, k).reshape(1, k, 1, 1)


def last(candidates):
    return candidates.plans[..., 0, 0]


number = 3


def bare(observation):
    return torch.zeros(1, 2)
'''


@pytest.fixture
def parts(tmp_path, monkeypatch) -> SteeredDescription:
    """A policy, a world and a judge in the current folder, and what names them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    torch.manual_seed(0)
    ClonedPolicy(PolicyConfig(("top",), SIZE, 2, 2, relative_to={0: 0, 1: 1}, chunk=2, width=8)).save("policy")
    tiny_world(size=SIZE).save("world")
    LearnedJudge(JudgeShape(("top", "wrist"), SIZE, width=8)).save("judge")
    return SteeredDescription("policy", "world", "judge", k=3, lookahead=2, spread=0.5)


def seen() -> dict[str, torch.Tensor]:
    pictures = torch.zeros(1, *SIZE, 3, dtype=torch.uint8)
    return {
        "observation.images.top": pictures,
        "observation.images.wrist": pictures,
        "observation.state": torch.tensor([[1.0, 1.0]]),
    }


def test_a_folder_is_loaded_like_any_policy(parts, tmp_path):
    save_steered(parts, tmp_path / "runs" / "steered")
    assert json.loads(Path("runs/steered/steered.json").read_text())["policy"] == "../../policy"
    one = load_policy("runs/steered")
    assert isinstance(one, SteeredPolicy) and (one.k, one.lookahead, one.num_steps) == (3, 2, 1)
    assert not one.between, "the value of a plan is that of its last frame"
    torch.testing.assert_close(one.sigma, 0.5 * one.world.conditioner.action_scale)
    assert one.needs.views == {"top": SIZE, "wrist": SIZE} and one.needs.state_dim == 2
    one.reset([0])
    assert one.act(seen()).shape == (1, 2) and one.choice.scores.shape == (1, 3)
    assert list(find_policies(["runs"])) == list(find_policies(["runs/steered"])) == ["steered"]
    assert set(find_policies([".", "runs"])) == {"policy", "steered"}


def test_the_folder_moves_with_its_parts(parts, tmp_path, monkeypatch):
    """A part is looked for beside the folder, not in the current one."""
    save_steered(parts, tmp_path / "steered")
    before = policy_fingerprint("steered")
    (tmp_path / "elsewhere").mkdir()
    for name in ("policy", "world", "judge", "steered"):
        shutil.move(name, tmp_path / "elsewhere" / name)
    monkeypatch.chdir("/")
    assert load_steered(tmp_path / "elsewhere" / "steered").k == 3
    assert policy_fingerprint(tmp_path / "elsewhere" / "steered") == before


def test_other_names_are_kept_as_given(parts, tmp_path):
    """The shipped models, the hub, modules and servers have one name everywhere; `lerobot:` stands before a folder."""
    named = replace(parts, policy="lerobot:policy", world="hf://me/world@main", judge="http://localhost:1/judge")
    save_steered(named, tmp_path / "steered")
    stored = json.loads((tmp_path / "steered" / "steered.json").read_text())
    assert [stored[name] for name in ("policy", "world", "judge")] == ["lerobot:../policy", named.world, named.judge]
    assert read_steered("steered").policy == f"lerobot:{os.path.normpath('policy')}"
    save_steered(replace(parts, world="checkpoints/pusht", judge=None), tmp_path)
    stored = json.loads((tmp_path / "steered.json").read_text())
    assert (stored["policy"], stored["world"], stored["judge"]) == ("./policy", "checkpoints/pusht", None)


def test_the_fingerprint_changes_with_everything_that_is_named(parts, tmp_path):
    module = write_module(tmp_path, MINE)
    described = replace(parts, proposal=f"{module}:Twice", scorer=f"{module}:last")
    save_steered(described, tmp_path / "steered")
    found = [policy_fingerprint("steered"), policy_fingerprint("steered")]
    save_steered(replace(described, k=4), tmp_path / "steered")
    found.append(policy_fingerprint("steered"))
    ClonedPolicy(PolicyConfig(("top",), SIZE, 2, 2, chunk=2, width=4)).save("policy")
    found.append(policy_fingerprint("steered"))
    tiny_world(size=SIZE, random=False).save("world")
    found.append(policy_fingerprint("steered"))
    LearnedJudge(JudgeShape(("top", "wrist"), SIZE, width=4)).save("judge")
    found.append(policy_fingerprint("steered"))
    (tmp_path / f"{module}.py").write_text(MINE + "# changed\n")
    found.append(policy_fingerprint("steered"))
    assert found[0] == found[1] and len(set(found)) == 6


def test_proposals_and_scorers_of_yours(parts, tmp_path):
    """Each plan lies one unit to the right of the one before; the rightmost is taken."""
    module = write_module(tmp_path, MINE)
    save_steered(replace(parts, judge=None, proposal=f"{module}:Twice", scorer=f"{module}:last"), tmp_path / "steered")
    one = load_policy("steered")
    one.reset([0])
    own = one.policy.plan(seen())[:, 0]
    torch.testing.assert_close(one.act(seen()), own + 2)


def test_mistakes_are_one_line(parts, tmp_path):
    module = write_module(tmp_path, MINE)
    tiny_world(size=(16, 24)).save("other")
    steered = tmp_path / "steered"
    for wrong, message in (
        ({"policy": f"{module}:bare"}, "it has no method plan, so there are no plans to choose from"),
        ({"policy": "nowhere"}, "nowhere: no such folder"),
        ({"world": "other", "judge": None, "scorer": "random"}, "needs pictures of top of 16 x 16, they are 16 x 24"),
        ({"judge": None}, "the scorer value needs a judge"),
        ({"scorer": "values"}, "there is no scorer 'values'; known are value, random, .*did you mean 'value'"),
        ({"proposal": "jiter"}, "there is no proposal 'jiter'; known are jitter, samples, and module:name"),
        ({"scorer": f"{module}:number"}, "expected a callable, found an object of the class int"),
        ({"num_steps": 3}, r"num_steps is one of \(1, 2, 4\), got 3"),
        ({"k": 0}, "k, lookahead and context are at least 1, got 0, 2 and 4"),
    ):
        save_steered(replace(parts, **wrong), steered)
        with pytest.raises(ValueError, match=message) as raised:
            load_policy("steered")
        assert "\n" not in str(raised.value) and "steered.json" in str(raised.value)
    save_steered(parts, steered)
    save_steered(replace(parts, policy="steered"), tmp_path / "again")
    with pytest.raises(ValueError, match=r"policy .*steered: it is steered already"):
        load_policy("again")
    (steered / "steered.json").write_text('{"format": 1, "policy": "policy", "world": "world", "kay": 3}')
    with pytest.raises(ValueError, match=r"steered\.json: unknown field 'kay'"):
        load_policy("steered")


def test_a_cloned_policy_is_wanted(parts, tmp_path):
    """`imagine` trains weights, and a steered policy has none."""
    save_steered(parts, tmp_path / "steered")
    with pytest.raises(ValueError, match=r"this is a steered policy, .*not a policy: policy\.json is missing"):
        ClonedPolicy.load("steered")


def test_copies_share_the_world_and_remember_for_themselves(parts, tmp_path):
    """The server of a policy has a copy for each stream."""
    save_steered(parts, tmp_path / "steered")
    one = load_policy("steered")
    one.reset([0])
    other = copied(one)
    other.reset([1])
    assert other.world is one.world and other.policy is not one.policy
    other.act(seen())
    assert one.choice is None and one.step == 0 and other.step == 1
    assert next(other.policy.parameters()).data_ptr() == next(one.policy.parameters()).data_ptr()


def test_a_server_answers_with_the_steered_action(parts, tmp_path):
    """Two streams of one visitor: each one remembers for itself, and both are asked for their first action."""
    save_steered(parts, tmp_path / "steered")
    guest = PolicyHost(load_policy("steered"), {}).enter()
    observation = {name: value[0].numpy() for name, value in seen().items()}
    answers = [asyncio.run(guest.answer({**observation, "stream": stream, "seed": 5})) for stream in (0, 1)]
    one = load_policy("steered")
    one.reset([5])
    expected = one.act(seen())
    for answer in answers:
        assert torch.from_numpy(answer["actions"]).allclose(expected, atol=1e-4)
    assert guest.hello()["needs"]["views"] == {"top": SIZE, "wrist": SIZE}
