"""Controlled shifts of LIBERO, one change each, to measure world models and policies out of distribution."""

import mujoco
import numpy as np

SHIFTS = ("camera", "start-region", "object-swap", "action-noise")
NEARER = np.array([-0.06, 0.0, 0.0])
"""Metres; the regions of libero_object are 5 cm wide, so that the moved region does not overlap the usual one."""
TURN = np.radians(15.0)
CENTRE = np.array([-0.05, 0.0])
"""The middle of the objects' places on the floor, in metres; the camera is turned about it."""


def swapped(name: str) -> str:
    """The name of the same task in LIBERO-PRO's suite in which the objects have swapped their places."""
    suite, slash, task = name.partition("/")
    return f"{suite}_swap{slash}{task}"


def turn_camera(model: mujoco.MjModel, camera: str, angle: float = TURN) -> None:
    """Turn a camera about the vertical axis through the middle of the scene, by `angle` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    number = model.camera(camera).id
    offset = model.cam_pos[number, :2] - CENTRE
    model.cam_pos[number, :2] = CENTRE + np.array([[cosine, -sine], [sine, cosine]]) @ offset
    about = np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])
    mujoco.mju_mulQuat(model.cam_quat[number], about, model.cam_quat[number].copy())
