"""Where the gripper and the object are in the scene camera's picture."""

import mujoco
import numpy as np
from jaxtyping import Float

from worldmodel.envs.metaworld.env import MetaWorld

POINTS = ("gripper", "object")


def image_points(env: MetaWorld) -> Float[np.ndarray, "2 2"]:
    """Gripper and object (x, y) in the scene picture of the current state.

    Returns:
        One row for each of `POINTS`, in pixels of a 64-pixel picture; pixel i covers i..i + 1.
    """
    camera, fovy = env.cameras["scene"], env.simulator.model.vis.global_.fovy
    points = np.stack([env.hand_position, env.object_position])
    return project(points, camera, fovy) * 64


def project(points: Float[np.ndarray, "n 3"], camera: mujoco.MjvCamera, fovy: float) -> Float[np.ndarray, "n 2"]:
    """Pinhole projection by MuJoCo's free camera onto a square picture.

    Args:
        points: In metres.
        camera: Looks from `distance` metres at `lookat`, turned by `azimuth` and `elevation`.
        fovy: Vertical field of view in degrees.

    Returns:
        (x, y) as shares of the picture's side, 0..1 from the upper left corner.
    """
    azimuth, elevation = np.radians([camera.azimuth, camera.elevation])
    flat = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    forward = np.cos(elevation) * flat + np.array([0.0, 0.0, np.sin(elevation)])
    right = np.array([flat[1], -flat[0], 0.0])
    up = np.cross(right, forward)
    offset = points - (camera.lookat - camera.distance * forward)
    plane = np.stack([offset @ right, -(offset @ up)], -1) / (offset @ forward)[:, None]
    return 0.5 + 0.5 * plane / np.tan(np.radians(fovy) / 2)
