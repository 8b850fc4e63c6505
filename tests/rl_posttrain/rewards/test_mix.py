"""Which rewards a run has, and with which weights."""

from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30
from tiny import tiny_world

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from rl_posttrain.rewards.agreement import StateAgreement, motion_agreement
from rl_posttrain.rewards.executability import Executability
from rl_posttrain.rewards.fidelity import Fidelity, moving_fidelity
from rl_posttrain.rewards.mix import RewardMix, RewardWeights, build_rewards, real_limits
from worldmodel.data import EpisodeCache, open_episodes

WEIGHTS = RewardWeights(fidelity=1.0, agreement=2.0, executability=3.0, state=4.0, motion=5.0, moving_area=6.0)


@pytest.fixture(scope="module")
def source():
    return EpisodeCache(open_episodes(LEROBOT_V30, (16, 24)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Inverse dynamics of random weights."""
    torch.manual_seed(0)
    shape = InverseDynamicsConfig(("top", "wrist"), (16, 24), 2, {0: 0, 1: 1}, keypoints=4, width=8)
    folder = tmp_path_factory.mktemp("dynamics")
    InverseDynamics(shape).save(folder)
    return folder


def test_every_reward_has_its_weight(source, folder):
    world = tiny_world()
    mix = build_rewards(WEIGHTS, world, source, range(2), folder, branch=4)
    expected = {"fidelity": 1, "agreement": 2, "executability": 3, "state": 4, "motion": 5, "moving_area": 6}
    assert mix.weights == expected and set(mix.rewards) == set(mix.names) == set(expected)
    assert mix.rewards["motion"] is motion_agreement and mix.rewards["moving_area"] is moving_fidelity
    state = mix.rewards["state"]
    assert isinstance(state, StateAgreement) and torch.equal(state.scale, world.conditioner.displacement_scale)
    executable = mix.rewards["executability"]
    assert isinstance(executable, Executability) and executable.limits.displacement
    assert executable.dynamics is mix.dynamics is mix.rewards["agreement"].dynamics


def test_rewards_of_objects_and_outcomes_are_as_fine_as_the_credit(source, folder):
    judge = LearnedJudge(JudgeShape(("top", "wrist"), (16, 24)))
    weights = RewardWeights(on_track=3.0, outcome=2.0, gate="both")
    settings = {"branch": 4, "judge": judge, "credit": "cell", "cell": 4}
    mix = build_rewards(weights, tiny_world(), source, range(2), folder, **settings)
    assert mix.weights == {"fidelity": 1.0, "on_track": 3.0, "outcome": 2.0, "agreement": 1.0, "executability": 0.5}
    assert (mix.credit, mix.grid, mix.gate) == ("cell", (4, 6), "both") and mix.rewards["outcome"].judge is judge
    assert mix.rewards["fidelity"] == mix.rewards["on_track"].fidelity == Fidelity(None, "cell", 4)
    assert mix.rewards["agreement"].credit == "cell"
    plain = build_rewards(RewardWeights(), tiny_world(), source, range(2), None, branch=4)
    assert plain.rewards["fidelity"].credit == "clip" and set(plain.rewards) == {"fidelity"}


def test_a_gate_needs_decoded_actions(source):
    with pytest.raises(ValueError, match=r"--reward.gate actions: compares decoded actions, so it needs --inverse-dyn"):
        build_rewards(RewardWeights(gate="actions"), tiny_world(), source, range(2), None, branch=4)


def test_by_default_states_and_motion_are_not_rewarded(source):
    mix = build_rewards(RewardWeights(), tiny_world(), source, range(2), None, branch=4)
    assert mix.weights == {"fidelity": 1.0} and mix.dynamics is None
    with pytest.raises(ValueError, match="all rewards have weight 0"):
        build_rewards(RewardWeights(fidelity=0.0), tiny_world(), source, range(2), None, branch=4)


def test_a_branch_too_short_for_a_jerk_is_refused(source, folder):
    with pytest.raises(ValueError, match="branch=2: jerk takes at least 3 actions"):
        build_rewards(RewardWeights(), tiny_world(), source, range(2), folder, branch=2)
    without = RewardWeights(executability=0.0)
    assert build_rewards(without, tiny_world(), source, range(2), folder, branch=2).names == ("fidelity", "agreement")


def test_limits_are_those_of_the_episodes_trained_on(source, folder):
    dynamics, world = InverseDynamics.load(folder), tiny_world()
    clip = source.read(1, 0, source.lengths[1]).map(lambda tensor: tensor[None])
    expected = dynamics.decode(clip)[0].quantile(0.99, dim=0)
    torch.testing.assert_close(real_limits(dynamics, source, range(1, 2), world).high, expected)


def test_the_sum_is_weighted_and_leaves_out_what_has_no_weight():
    """Two candidates standardise to -1 and 1, so the sum is the signed sum of the weights."""
    terms = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[9.0, 3.0]]), "c": torch.tensor([[0.0, 7.0]])}
    mix = RewardMix(dict.fromkeys("abc", motion_agreement), {"a": 1.0, "b": 0.25, "c": 0.0}, None)
    assert mix.names == ("a", "b")
    torch.testing.assert_close(mix.total(terms), torch.tensor([[-0.75, 0.75]]), atol=1e-3, rtol=0)
