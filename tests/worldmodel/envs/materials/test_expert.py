import itertools

import numpy as np
import pytest

from worldmodel.envs import make_env
from worldmodel.envs.materials.expert import GOAL, GOAL_RADIUS, RING_GAP, behind_a_piece, way_round
from worldmodel.envs.scripts import behave

NAMES = ("pusht-rope", "pusht-sand")


def blind(name):
    """An environment that draws nothing: the scripts do not look."""
    env = make_env(name)
    env.get_obs = dict
    return env


def run(env, behaviour: str, seed: int, steps: int) -> tuple[np.ndarray, list[float]]:
    """Targets, and the share of the material in the goal after each."""
    env.reset(seed=seed)
    targets, shares = [], [env.share]
    for target in itertools.islice(behave(behaviour, env, np.random.default_rng(seed)), steps):
        env.step(target)
        targets.append(target)
        shares.append(env.share)
    return np.array(targets), shares


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("behaviour", ["expert", "noisy", "play"])
def test_a_behaviour_is_a_function_of_states_and_generator(name, behaviour):
    env = blind(name)
    first, second = (run(env, behaviour, 4, 25)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(run(env, behaviour, 5, 25)[0], first)
    if behaviour != "noisy":
        assert first.min() >= 14 and first.max() <= 498


def test_gathering_brings_the_material_in():
    """From these starts; a rope of other starts may take longer, and much of the sand escapes."""
    for name, steps, least in (("pusht-rope", 50, 0.9), ("pusht-sand", 60, 0.25)):
        shares = run(blind(name), "expert", 0, steps)[1]
        assert max(shares) >= least > shares[0] + 0.1, name


def test_a_push_begins_beyond_a_piece_outside_the_goal_but_not_in_a_wall():
    env = blind("pusht-sand")
    env.reset(seed=0)
    for body in env.bodies:
        body.position = 256, 200
    assert behind_a_piece(env, np.random.default_rng(0)) is None, "all lie in the goal"
    env.bodies[0].position = 495, 256
    assert behind_a_piece(env, np.random.default_rng(0)) is None, "behind it is the wall"
    env.bodies[1].position = 256, 396
    np.testing.assert_allclose(behind_a_piece(env, np.random.default_rng(0)), [256, 396 + RING_GAP])


def test_after_a_success_the_expert_holds_still_and_then_plays():
    env = blind("pusht-sand")
    env.reset(seed=0)
    for index, body in enumerate(env.bodies):
        column, row = divmod(index, 9)
        body.position = 196 + 15 * column, 196 + 15 * row
    env.agent.position = 60, 60
    targets = list(itertools.islice(behave("expert", env, np.random.default_rng(0)), 8))
    np.testing.assert_array_equal(targets[:5], np.full((5, 2), 60.0))
    assert not np.array_equal(targets[-1], [60, 60])


def test_the_way_round_goes_the_shorter_way_outside_the_goal():
    right, below = GOAL + np.array([180.0, 0]), GOAL + np.array([0, 180.0])
    for start, end in ((right, below), (below, right)):
        way = np.array(way_round(start, end)) - GOAL
        assert (way >= -1e-9).all(), "through the quarter between them"
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 180, atol=1e-9)
    inside = np.array(way_round(GOAL + np.array([20.0, 0]), GOAL - np.array([150.0, 1]))) - GOAL
    assert np.linalg.norm(inside, axis=1).min() >= GOAL_RADIUS + RING_GAP - 1e-9
