"""A policy that drives a dream, alone and steered."""

import pytest
import torch
from tiny import random_clip, tiny_world

from demos.driving.session import DriveSession
from demos.driving.start import Start
from demos.driving.steering import drive_by_policy, make_driver
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.steering.steered import SteeredPolicy
from worldmodel.dreams.verdict import Verdict

SIZE = (16, 24)


@pytest.fixture
def session() -> DriveSession:
    world = tiny_world(size=SIZE)
    return DriveSession(world, Start(random_clip(world, batch=1, frames=3)), num_steps=1, seed=3)


@pytest.fixture
def policy(tmp_path) -> str:
    torch.manual_seed(0)
    config = PolicyConfig(("top",), SIZE, 2, 2, relative_to={0: 0, 1: 1}, chunk=2, width=8)
    ClonedPolicy(config).save(tmp_path / "policy")
    return str(tmp_path / "policy")


def judge(seen):
    """The further to the right, the better; never a success."""
    return Verdict(seen.states[:, 0], torch.zeros(len(seen.states), dtype=torch.bool))


def test_the_chosen_future_has_the_highest_score(session, policy):
    before, count = session.stream.observation.frames.clone(), session.num_frames
    driver = make_driver(session, policy, judge, plans=3)
    driven = list(drive_by_policy(session, driver, judge, frames=3))
    assert [each.step for each in driven] == [1, 2, 3] and not any(each.solved for each in driven)
    first, second, third = (each.futures for each in driven)
    assert first.names == ("its own plan", "plan 2", "plan 3") and first.frames.shape == (3, 9, 2, *SIZE, 3)
    assert first.best == int(first.scores.argmax())
    assert torch.equal(first.scores, second.scores) and not torch.equal(second.scores, third.scores)  # plans of two
    assert torch.equal(session.stream.observation.frames, before) and session.num_frames == count


def test_steered_and_alone(session, policy):
    """One plan means that nothing is imagined; a success ends the drive."""
    alone = make_driver(session, policy, judge, plans=1)
    assert isinstance(alone, ClonedPolicy) and isinstance(make_driver(session, policy, judge, plans=2), SteeredPolicy)
    solved = lambda seen: Verdict(torch.ones(1), torch.ones(1, dtype=torch.bool))  # noqa: E731
    (only,) = drive_by_policy(session, alone, solved, frames=5)
    assert only.futures is None and only.solved and only.reward == 1.0


def test_numbers_out_of_range_are_named(session, policy):
    with pytest.raises(ValueError, match="1 to 8 plans, got 9"):
        make_driver(session, policy, judge, plans=9)
    with pytest.raises(ValueError, match="1 to 100 frames, got 0"):
        next(drive_by_policy(session, make_driver(session, policy, judge, plans=1), judge, frames=0))
