"""The simulation of one task of LIBERO: starts, steps, and where things are. It draws nothing."""

import worldmodel.envs.libero.headless  # noqa: F401

# isort: split

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np
from jaxtyping import Float
from libero.libero.envs.env_wrapper import ControlEnv
from robosuite.utils.errors import RandomizationError
from robosuite.utils.transform_utils import quat2axisangle

from worldmodel.envs.libero.tasks import Task

SETTLE_STEPS = 10
"""Steps in which the arm stands still and things come to rest before an episode begins, as in LIBERO's evaluations."""
STILL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
MAX_DRAWS = 100
"""Attempts to place the objects so that none touches another."""

Point = Float[np.ndarray, "3"]


class Simulator:
    """The simulation of one task.

    Args:
        task: The task.
    """

    def __init__(self, task: Task):
        self.task = task
        with seeded(0):  # the constructor places the objects, too
            self.control = ControlEnv(
                bddl_file_name=str(task.problem),
                use_camera_obs=False,
                has_offscreen_renderer=False,
                hard_reset=False,
                ignore_done=True,
            )

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's model, the same for the life of the simulation."""
        return self.control.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        """MuJoCo's state."""
        return self.control.sim.data._data

    def begin(self, start: int) -> None:
        """Begin an episode; the state is a pure function of `start`.

        Args:
            start: Below the number of the task's fixed starts, one of these. Any other number is the seed with which
                the objects are placed in the regions that the task names, as for LIBERO's demonstrations.

        Raises:
            ValueError: No placement without contact was found.
        """
        with seeded(start):
            self._place()
        (robot,) = self.control.robots
        robot.gripper.current_action = np.zeros(robot.gripper.dof)
        if start < len(self.task.starts):
            self.control.sim.set_state_from_flattened(self.task.starts[start])
            self.control.sim.forward()

    def settle(self) -> None:
        """Let things come to rest."""
        for _ in range(SETTLE_STEPS):
            self.step(STILL)

    def step(self, action: Float[np.ndarray, "7"]) -> None:
        """Apply one action for 1/20 s."""
        self.control.step(action)

    @property
    def success(self) -> bool:
        """Whether the goal is reached in the current state."""
        return bool(self.control.check_success())

    @property
    def state(self) -> Float[np.ndarray, "8"]:
        """The hand's x, y, z in metres, its orientation as axis times angle in radians, and both fingers in metres."""
        (robot,) = self.control.robots
        quaternion = self.data.body(robot.robot_model.eef_name).xquat[[1, 2, 3, 0]]
        fingers = self.data.qpos[robot._ref_gripper_joint_pos_indexes]
        return np.concatenate([self.hand, quat2axisangle(quaternion.copy()), fingers])

    @property
    def hand(self) -> Point:
        """The point between the fingers, in metres."""
        (robot,) = self.control.robots
        return self.data.site_xpos[robot.eef_site_id].copy()

    def turn_to(self, wanted: Float[np.ndarray, "3 3"]) -> Point:
        """The turn from the hand's orientation to a wanted one, as axis times angle in radians."""
        (robot,) = self.control.robots
        now = self.data.body(robot.robot_model.eef_name).xmat.reshape(3, 3)
        turn = np.zeros(4)
        mujoco.mju_mat2Quat(turn, (wanted @ now.T).ravel())
        return quat2axisangle(turn[[1, 2, 3, 0]])

    def place_of(self, name: str) -> Point:
        """The place of an object of the scene, in metres."""
        return self.data.xpos[self.control.env.obj_body_id[name]].copy()

    def top_of(self, name: str) -> float:
        """The height of the highest point of an object, in metres, by the boxes around the shapes that collide."""
        root = self.control.env.obj_body_id[name]
        heights = []
        for geom in np.flatnonzero((self.model.body_rootid[self.model.geom_bodyid] == root) & self.model.geom_contype):
            turn = self.data.geom_xmat[geom].reshape(3, 3)
            centre = self.data.geom_xpos[geom] + turn @ self.model.geom_aabb[geom, :3]
            heights.append(centre[2] + np.abs(turn[2]) @ self.model.geom_aabb[geom, 3:])
        return float(max(heights))

    def move(self, name: str, offset: Point) -> None:
        """Move an object that can be moved, in metres."""
        joint = self.data.joint(self.control.env.objects_dict[name].joints[-1])
        joint.qpos[:3] += offset
        self.control.sim.forward()

    def _place(self) -> None:
        for _ in range(MAX_DRAWS):
            try:
                self.control.env.reset()
                return
            except RandomizationError:
                continue
        raise ValueError(f"{self.task.name}: the objects found no places without contact in {MAX_DRAWS} attempts")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """LIBERO places objects with numpy's global generator: seed it, and give the caller's state back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
