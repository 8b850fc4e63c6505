"""LIBERO: a Panda arm seen by a camera in front of it and one at its wrist; a name for every task."""

import worldmodel.envs.libero.headless  # noqa: F401

# isort: split

from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import UInt8

from worldmodel.envs.libero.shift import NEARER, SHIFTS, swapped, turn_camera
from worldmodel.envs.libero.simulator import Point, Simulator
from worldmodel.envs.libero.tasks import find_tasks
from worldmodel.envs.mujoco.render import SceneRenderer, check_size, fixed_camera
from worldmodel.envs.shift import check_shift

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
STATE_LIMIT = np.float32([2, 2, 2, 6.3, 6.3, 6.3, 0.05, 0.05])
PLAY_STEPS = 150
DOWNWARDS = np.diag([1.0, -1.0, -1.0])
"""The hand's orientation at a start, as a matrix."""
COLLISION_GROUP = 0
"""MuJoCo's group of the shapes that only collide; they hide the ones to be seen."""
Observation = dict[str, np.ndarray]


class Libero(gymnasium.Env):
    """One of LIBERO's tasks (Liu et al. 2023, arXiv 2306.03310), or all tasks of a suite.

    Observations:
        `observation.images.agentview`: from a camera in front of the robot, uint8 `size size 3`.
        `observation.images.wrist`: from above the fingers, likewise.
        `observation.state`: the hand's x, y, z in metres, its orientation as axis times angle in radians, and
            the places of both fingers in metres, float32.

    An action is seven numbers from -1 to 1: how far the hand's target moves along x, y and z, in 5 cm, how far it
    turns about these axes, in 0.5 radians, and the gripper, positive to close. The reward is 1 where the goal is
    reached, else 0; success (`info["success"]`) terminates.

    A start is a pure function of the seed. The seeds 0 to 49 are the fixed starts of the benchmark, which policies
    are compared from. Any other seed places the objects anew in the regions that the task names, as for the
    benchmark's demonstrations, so that training data never begin at a start of the benchmark. If the name has no
    task, seed `s` begins the task `s % n` of the suite's `n` tasks with the seed `s // n`. Things come to
    rest in ten steps before the first picture.

    Args:
        name: `libero:SUITE/TASK` with the task's number or name, as in `libero:libero_object/0`; or `libero:SUITE`.
        size: Side of both pictures in pixels, 16..480.
        time_limit: Steps (of 1/20 s) after which an episode is truncated.
        shift: One controlled change, for tests out of distribution. `camera`: the camera in front of the robot is
            turned about the scene by 15 degrees. `start-region`: the object to be taken starts 6 cm nearer
            to the robot, beside its usual region (libero_object only). `object-swap`: the objects have
            swapped their places, as in LIBERO-PRO (arXiv 2510.03827). `action-noise`: every behaviour has twice
            the noise of the noisy expert. Empty for none.

    Raises:
        ValueError: There is no such suite, task or shift, or a number is out of range.
    """

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 20}
    action_names = ("x", "y", "z", "turn_x", "turn_y", "turn_z", "gripper")
    state_names = ("x", "y", "z", "axis_x", "axis_y", "axis_z", "finger_0", "finger_1")
    stops_on_success = True
    shifts = tuple(each for each in SHIFTS if each not in ("start-region", "action-noise"))

    def __init__(self, name: str, *, size: int = 64, time_limit: int = 280, shift: str = ""):
        self.tasks = find_tasks(name)
        if time_limit < 1:
            raise ValueError(f"time_limit is at least 1 step, got {time_limit}")
        check_shift(name, shift, self.shifts)
        if shift == "object-swap":
            self.tasks = find_tasks(swapped(name))
        self.name, self.shift, self.time_limit = name, shift, time_limit
        self.render_mode = "rgb_array"
        self.size, self.steps, self.current = size, 0, 0
        self._made: tuple[int, Simulator, SceneRenderer] | None = None
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = spaces.Dict(
            {f"observation.images.{view}": image for view in CAMERAS}
            | {"observation.state": spaces.Box(-STATE_LIMIT, STATE_LIMIT)}
        )
        check_size(size)

    @property
    def task(self) -> str:
        """The task of the current episode in words."""
        return self.tasks[self.current].words

    @property
    def simulator(self) -> Simulator:
        """The simulation of the current episode."""
        return self._current()[0]

    def episode_steps(self, behaviour: str) -> int:
        """Most steps of a recorded episode."""
        return PLAY_STEPS if behaviour == "play" else self.time_limit

    def get_obs(self) -> Observation:
        """Draw the current state and return both pictures and the state."""
        pictures = {f"observation.images.{view}": self._picture(camera) for view, camera in CAMERAS.items()}
        return pictures | {"observation.state": self.simulator.state.astype(np.float32)}

    def render(self) -> UInt8[np.ndarray, "size size 3"]:
        """The picture of the camera in front of the robot."""
        return self._picture(CAMERAS["agentview"])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; the start is a pure function of `seed`.

        Args:
            seed: Seed of the start; `None` continues the random stream.
            options: Not used.
        """
        super().reset(seed=seed, options=options)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        start, self.current = divmod(number, len(self.tasks))
        self.simulator.begin(start % 2**32)
        self.arrange()
        self.simulator.settle()
        self.steps = 0
        return self.get_obs(), {"success": False}

    def arrange(self) -> None:
        """Change the start where a shift asks for it."""

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        """Apply `action` for 1/20 s.

        Raises:
            ValueError: The action is not seven finite numbers.
        """
        motion = np.asarray(action, np.float64)
        if motion.shape != (7,) or not np.isfinite(motion).all():
            raise ValueError(f"an action of {self.name} is seven finite numbers, got {action!r}")
        self.simulator.step(motion.clip(-1, 1))
        self.steps += 1
        success = self.simulator.success
        return self.get_obs(), float(success), success, self.steps >= self.time_limit, {"success": success}

    def close(self) -> None:
        """Free the simulation and what draws it."""
        if self._made is not None:
            self._made[2].close()
            self._made = None

    def _picture(self, camera: str) -> UInt8[np.ndarray, "size size 3"]:
        simulator, renderer = self._current()
        return renderer.picture(simulator.data, fixed_camera(simulator.model, camera))

    def _current(self) -> tuple[Simulator, SceneRenderer]:
        """The simulation of the current task and its pictures; it takes 0.7 GB, so the one before is freed."""
        if self._made is None or self._made[0] != self.current:
            self.close()
            simulator = Simulator(self.tasks[self.current])
            if self.shift == "camera":
                turn_camera(simulator.model, CAMERAS["agentview"])
            renderer = SceneRenderer(None, simulator.model, self.size)
            renderer.option.geomgroup[COLLISION_GROUP] = 0
            self._made = self.current, simulator, renderer
        return self._made[1:]


class LiberoObject(Libero):
    """A task of libero_object, or of a suite made from it: one object is to be put into the basket."""

    shifts = SHIFTS

    @property
    def object_position(self) -> Point:
        """The object that is to be taken, in metres."""
        return self.simulator.place_of(self.simulator.control.obj_of_interest[0])

    @property
    def goal_position(self) -> Point:
        """The basket, in metres."""
        return self.simulator.place_of(self.simulator.control.obj_of_interest[1])

    @property
    def hand_position(self) -> Point:
        """The point between the fingers, in metres."""
        return self.simulator.hand

    @property
    def tilt(self) -> Point:
        """The turn that brings the fingers back downwards: axis times angle in radians."""
        return self.simulator.turn_to(DOWNWARDS)

    @property
    def object_top(self) -> float:
        """The height of the object's highest point, in metres."""
        return self.simulator.top_of(self.simulator.control.obj_of_interest[0])

    @property
    def neighbours(self) -> list[tuple[Point, float]]:
        """Place and height of every object besides the one to be taken, in metres."""
        names = self.simulator.control.env.objects_dict.keys() - {self.simulator.control.obj_of_interest[0]}
        return [(self.simulator.place_of(name), self.simulator.top_of(name)) for name in sorted(names)]

    def arrange(self) -> None:
        """Move the object where the shift `start-region` asks for it."""
        if self.shift == "start-region":
            self.simulator.move(self.simulator.control.obj_of_interest[0], NEARER)
