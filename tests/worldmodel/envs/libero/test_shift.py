"""LIBERO's controlled shifts, as far as they need no simulation of LIBERO."""

import numpy as np
import pytest

try:
    import worldmodel.envs.libero.headless  # noqa: F401
except ValueError as error:  # it names the package that is missing
    pytest.skip(str(error), allow_module_level=True)

import mujoco

from worldmodel.envs.libero.shift import CENTRE, swapped, turn_camera
from worldmodel.envs.libero.tasks import find_tasks

SCENE = """
<mujoco><worldbody>
<camera name="front" pos="0.95 0 1" xyaxes="0 1 0 -0.7 0 0.7"/><camera name="other" pos="1 0 1"/>
<geom type="box" size="0.1 0.1 0.1"/>
</worldbody></mujoco>
"""


def test_the_camera_is_turned_about_the_middle_of_the_scene():
    """A quarter of a turn to the left brings a camera in front of the scene, 1 m from the middle, to its left."""
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    other = model.cam_pos[1].copy()
    mujoco.mj_forward(model, data)
    before = data.cam_xmat[0].reshape(3, 3).copy()
    turn_camera(model, "front", np.pi / 2)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(model.cam_pos[0], [*(CENTRE + np.array([0.0, 1.0])), 1.0], atol=1e-9)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(data.cam_xmat[0].reshape(3, 3), quarter @ before, atol=1e-6)
    np.testing.assert_array_equal(model.cam_pos[1], other)


def test_the_usual_turn_is_15_degrees():
    model = mujoco.MjModel.from_xml_string(SCENE)
    turn_camera(model, "front")
    offset = model.cam_pos[0, :2] - CENTRE
    assert np.degrees(np.arctan2(offset[1], offset[0])) == pytest.approx(15)
    assert np.linalg.norm(offset) == pytest.approx(1)


def test_a_swapped_task_keeps_its_number_and_words():
    (usual,), (other,) = find_tasks("libero:libero_object/3"), find_tasks(swapped("libero:libero_object/3"))
    assert (other.suite, other.number, other.words) == ("libero_object_swap", 3, usual.words)
    assert swapped("libero:libero_object") == "libero:libero_object_swap"
