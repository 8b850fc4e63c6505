import sys
from pathlib import Path

import pytest
import torch
from mine import ENV, POLICIES, write_module
from rank_set import write_rank_set

from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.find import find_policies, load_policy, policy_fingerprint


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def policies(here) -> str:
    return write_module(here, POLICIES)


def test_a_policy_is_loaded_from_a_folder_or_by_name(here, policies):
    made = write_rank_set(here / "set", policies=1, episodes=1)
    folder = made.policies / "policy-0"
    assert isinstance(load_policy(folder), ClonedPolicy) and isinstance(load_policy(str(folder)), ClonedPolicy)
    for name, action in (("right", 1.0), ("Left", -1.0), ("make_left", -1.0)):
        policy = load_policy(f"{policies}:{name}")
        policy.reset([0, 1])
        actions = policy.act({"observation.images.top": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)})
        assert actions.tolist() == [[action, 0.0]] * 2
    found = find_policies([made.policies, f"{policies}:right", Path(f"{policies}:Left")])
    assert list(found) == ["policy-0", "right", "Left"]
    assert load_policy(found["Left"]).reset([0]) is None


def test_a_folder_comes_before_a_module_of_that_name(here, policies):
    made = write_rank_set(here / "set", policies=1, episodes=1)
    (made.policies / "policy-0").rename(here / f"{policies}:right")
    assert isinstance(load_policy(f"{policies}:right"), ClonedPolicy)
    assert list(find_policies([f"{policies}:right"])) == [f"{policies}:right"]


def test_a_fingerprint_changes_with_the_source_text(here):
    names = [write_module(here, text) for text in (POLICIES, POLICIES, POLICIES + "# changed\n")]
    first, second, third = (policy_fingerprint(f"{name}:right") for name in names)
    assert first == second != third


def test_what_is_no_policy_is_named(here, policies):
    (here / "empty").mkdir()
    other = write_module(here, POLICIES)
    environment = write_module(here, ENV)
    for spec, message in (
        ("nowhere", "policy nowhere: no such folder, and not module:name"),
        ("empty", r"policy empty: no policy here, policy\.json is missing"),
        ("nowhere:right", "policy nowhere:right: there is no module nowhere, neither in "),
        (f"{policies}:rihgt", "has no 'rihgt'; did you mean 'right'?"),
    ):
        with pytest.raises(ValueError, match=message):
            find_policies([spec])
    for spec, message in (
        (f"{policies}:Watching", "it has a method watch, so it needs the simulator and can only record"),
        (f"{policies}:Deaf", "a policy has reset and act; an object of the class Deaf has no reset"),
        (f"{policies}:number", "expected an object with reset and act, or a function of the observation"),
        (f"{environment}:Square", "an object of the class Square has no act"),
    ):
        with pytest.raises(ValueError, match=message):
            load_policy(spec)
    with pytest.raises(ValueError, match=f"two policies are called 'right': {policies}:right and {other}:right"):
        find_policies([f"{policies}:right", f"{other}:right"])


def test_random_numbers_come_from_the_seeds(policies):
    policy = load_policy(f"{policies}:Chance")
    policy.reset([3, 4, 5])
    assert policy.act({})[:, 0].tolist() == [-1.0, 0.0, 1.0]
