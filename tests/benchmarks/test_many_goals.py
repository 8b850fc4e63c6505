"""Demonstrations of many goals: each place is reached, and an episode repeats with its seed."""

import runpy

import numpy as np
from places import BENCHMARKS

from worldmodel.envs import make_env
from worldmodel.envs.pusht.env import POSITION_RADIUS
from worldmodel.envs.pusht.expert import towards_place


def blind():
    """An environment that draws nothing: the behaviours do not look."""
    env = make_env("pusht")
    env.get_obs = dict
    return env


def test_the_block_is_brought_to_a_place():
    env, place = blind(), np.array([180.0, 300.0])
    env.reset(seed=3)
    for _ in range(60):
        env.step(towards_place(env, place))
    assert np.linalg.norm(env.block_centre - place) < POSITION_RADIUS


def test_an_episode_has_several_goals_and_repeats_with_its_seed():
    script = runpy.run_path(str(BENCHMARKS / "many_goals.py"))

    def run(seed):
        env, behaviour = blind(), script["ManyGoals"]()
        env.reset(seed=3)
        behaviour.watch(env)
        behaviour.reset([seed])
        centres = []
        for _ in range(80):
            env.step(behaviour.act({})[0].numpy().astype(np.float64))
            centres.append(env.block_centre)
        return np.array(centres)

    first = run(0)
    np.testing.assert_array_equal(run(0), first)
    assert np.linalg.norm(first - run(1), axis=1).max() > 2 * POSITION_RADIUS
