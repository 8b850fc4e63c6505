import numpy as np
import pytest
from gymnasium import spaces

from worldmodel.envs.metaworld.shift import move_goal_region


def region(*columns: tuple[float, float]) -> spaces.Box:
    low, high = np.array(columns).T
    return spaces.Box(low, high, dtype=np.float64)


OBJECT = ((-0.1, 0.1), (0.6, 0.7), (0.02, 0.02))


def test_goal_region_moves_the_goals_x_only():
    moved = region(*OBJECT, (-0.1, 0.1), (0.8, 0.9), (0.05, 0.3))
    move_goal_region("reach-v3", moved)
    np.testing.assert_allclose(moved.low, [-0.1, 0.6, 0.02, 0.1, 0.8, 0.05])
    np.testing.assert_allclose(moved.high, [0.1, 0.7, 0.02, 0.2, 0.9, 0.3])


def test_a_task_without_a_random_goal_has_no_goal_region():
    for drawn in (region(*OBJECT), region(*OBJECT, (0.0, 0.0), (0.8, 0.9), (0.05, 0.3))):
        with pytest.raises(ValueError, match="goal-region needs a goal at a random x; window-open-v3 draws only Box"):
            move_goal_region("window-open-v3", drawn)
