"""Projection of the gripper and the object into the scene camera's picture."""

import numpy as np
import pytest

from worldmodel.envs import make_env

try:
    pass
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

from worldmodel.envs.metaworld.points import image_points, project
from worldmodel.envs.mujoco.render import free_camera


def test_projection_of_known_points():
    """The camera at (0, -2, 0) looks along y; a point one metre nearer is twice as far out."""
    camera = free_camera(azimuth=90.0, elevation=0.0, distance=2.0, lookat=(0.0, 0.0, 0.0))
    points = np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 1], [0.5, -1, 0]])
    expected = [[0.5, 0.5], [0.75, 0.5], [0.5, 0.25], [0.75, 0.5]]
    np.testing.assert_allclose(project(points, camera, fovy=90.0), expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_puck_is_where_it_is_drawn(seed):
    env = make_env("metaworld:push-v3")
    picture = env.reset(seed=seed)[0]["observation.images.scene"].astype(int)
    red, green, blue = np.moveaxis(picture, -1, 0)
    puck = (red > 50) & (green < 15) & (blue < 15)
    gripper, puck_point = image_points(env)
    rows, columns = np.nonzero(puck)
    drawn = np.stack([columns, rows], -1) + 0.5
    drawn = drawn[np.abs(drawn - puck_point).max(-1) < 5]  # the arm has such pixels as well
    assert len(drawn) >= 6
    drawn = drawn.mean(0)
    assert np.abs(drawn - puck_point).max() < 1.0
    assert ((gripper > 0) & (gripper < 64)).all()
    assert np.abs(gripper - puck_point).max() > 3
