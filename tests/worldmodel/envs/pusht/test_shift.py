"""PushT's controlled shifts: each changes what it says, and nothing else."""

import dataclasses
import itertools

import numpy as np
import pytest

from worldmodel.data import open_episodes
from worldmodel.envs import make_env
from worldmodel.envs.pusht.expert import behave
from worldmodel.envs.pusht.shift import TURN
from worldmodel.envs.record import RecordConfig, record


def blind(name="pusht", shift=""):
    """An environment that draws nothing: the behaviours do not look."""
    env = make_env(name, shift=shift)
    env.get_obs = dict
    return env


def starts(env, count=40):
    states = []
    for seed in range(count):
        env.reset(seed=seed)
        place = env.block_centre - np.array(env.block.center_of_gravity)
        states.append([*env.agent_position, *place, env.block.angle])
    return np.array(states)


def test_an_unknown_shift_is_refused():
    with pytest.raises(ValueError, match="pusht has no shift 'wind'; known are start-region"):
        make_env("pusht", shift="wind")


@pytest.mark.parametrize("name", ["pusht", "pusht-position"])
def test_start_region_moves_the_block_only(name):
    env = blind(name, "start-region")
    usual, shifted = starts(blind(name)), starts(env)
    np.testing.assert_array_equal(starts(env), shifted)  # a pure function of the seed

    def outside(states):
        return ((states[:, 2:4] < 100) | (states[:, 2:4] > 400)).any(1)

    assert outside(shifted).all()
    assert outside(usual).mean() < 0.2  # the agent or a wall pushes some blocks out
    assert shifted[:, :2].min() >= 49 and shifted[:, :2].max() <= 451
    assert np.ptp(shifted[:, 4]) > 5
    assert len(np.unique(shifted[:, 2])) == len(shifted)


def test_start_region_keeps_the_block_clear_of_the_walls():
    env = blind(shift="start-region")
    for seed in range(20):
        env.reset(seed=seed)
        before = env.block_pose
        env.step(env.agent_position)
        if np.linalg.norm(env.agent_position - env.block_centre) > 150:
            np.testing.assert_allclose(env.block_pose, before, atol=0.1)


def test_a_given_start_is_not_shifted():
    env = blind(shift="start-region")
    env.reset(options={"reset_to_state": (60, 60, 256, 256, 0.0)})
    np.testing.assert_allclose(env.block_pose, [256, 256, 0], atol=1e-6)


def mean_speed(shift, behaviour="play"):
    """World units per step over a few episodes."""
    env, total = blind(shift=shift), 0.0
    for seed in range(4):
        env.reset(seed=seed)
        targets = behave(behaviour, env, np.random.default_rng(seed))
        for target in itertools.islice(targets, 60):
            before = env.agent_position
            env.step(np.asarray(target))
            total += np.linalg.norm(env.agent_position - before) / (4 * 60)
    return total


def test_agent_speed_is_about_twice_as_high():
    usual = mean_speed("")
    assert 1.4 * usual < mean_speed("agent-speed") < 2.5 * usual


def test_turned_actions_move_the_agent_to_the_side():
    """Sent to the right, it goes down in the picture, where y grows, and never back."""
    for shift, turn in (("", 0.0), ("turned-actions", TURN)):
        env = blind(shift=shift)
        env.reset(options={"reset_to_state": (100, 100, 400, 400, 0.0)})
        env.step(np.array([160.0, 100.0]))
        way = env.agent_position - 100
        assert np.arctan2(way[1], way[0]) == pytest.approx(turn, abs=1e-6)
        assert np.linalg.norm(way) > 5


def spread(shift, behaviour):
    """Standard deviation of the targets around those of the undisturbed behaviour at rest."""
    sigmas = []
    for seed in range(30):
        env = blind("pusht-position", shift)
        env.reset(seed=seed)
        targets = behave(behaviour, env, np.random.default_rng(seed))
        drawn = np.array(list(itertools.islice(targets, 60)))  # the environment stands still
        sigmas.append(drawn.std(0).mean())
    return float(np.mean(np.log(sigmas)))


@pytest.mark.slow
def test_action_noise_is_twofold():
    """Sigma is log-uniform in 16..120 instead of 8..60: its logarithm moves by log 2."""
    usual = spread("", "noisy")
    assert spread("action-noise", "noisy") - usual == pytest.approx(np.log(2), abs=1e-6)
    assert spread("action-noise", "expert") - usual == pytest.approx(np.log(2), abs=1e-6)


def test_the_recording_names_its_shift(tmp_path):
    config = RecordConfig(
        env="pusht", out=tmp_path / "set", episodes=1, behaviour="play", size=32, shift="start-region", workers=1
    )
    source = open_episodes(record(config))
    assert source.shift == "start-region"
    state = make_env("pusht", shift="start-region").reset(seed=source.reset_seed(0))[0]
    np.testing.assert_array_equal(source.read(0, 0, 1).states[0], state["observation.state"])
    with pytest.raises(ValueError, match="with shift = 'start-region', you asked for ''"):
        record(dataclasses.replace(config, shift=""))
