"""Meta-World: a Sawyer arm seen by a scene and a wrist camera; a name for every task."""

import worldmodel.envs.metaworld.headless  # noqa: F401

# isort: split

from typing import ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from jaxtyping import Float, UInt8
from metaworld.env_dict import ENV_CLS_MAP

from worldmodel.envs.metaworld.shift import CAMERA, SHIFTS, move_goal_region, move_start_region
from worldmodel.envs.mujoco.render import SceneRenderer, fixed_camera, free_camera
from worldmodel.envs.shift import check_shift

STEPS_PER_SECOND = 80  # steps of Meta-World; each is five steps of MuJoCo
PLAY_STEPS = 60
STATE_LOW = (-0.525, 0.348, -0.0525, 0.0)
STATE_HIGH = (0.525, 1.025, 0.7, 1.0)
SCENE_CAMERA = {"azimuth": 135.0, "elevation": -35.0, "distance": 1.0, "lookat": (0.0, 0.7, 0.12)}
TASKS = {
    "button-press-topdown-v3": "Press the button from above.",
    "door-open-v3": "Open the door.",
    "drawer-open-v3": "Open the drawer.",
    "push-v3": "Push the puck to the green goal.",
    "reach-v3": "Reach the goal with the hand.",
    "window-open-v3": "Open the window.",
}
Observation = dict[str, np.ndarray]


class MetaWorld(gymnasium.Env):
    """One of Meta-World's tasks (Yu et al. 2020, arXiv 1910.10897; v3 of the package).

    Observations:
        `observation.images.scene`: from a camera above the table, uint8 `size size 3`.
        `observation.images.wrist`: from between the fingers, likewise.
        `observation.state`: the hand's x, y, z in metres and the gripper's opening, 0 (closed) to
            1, float32.

    An action is four numbers from -1 to 1: how far the hand's target moves along x, y and z, in
    `action_repeat` centimetres, and the gripper's force, positive to close. The reward, 0 to 10, and
    the success (`info["success"]`) are those of Meta-World, for the state that the action leads to;
    success terminates. A start is a pure function of the seed.

    Args:
        name: `metaworld:` and a task, as in `metaworld:push-v3`.
        size: Side of both pictures in pixels, 16..480.
        time_limit: Steps after which an episode is truncated.
        action_repeat: Meta-World steps (of 1/80 s) per action; divides 80.
        shift: One controlled change, for tests out of distribution. `start-region`: the object
            starts in the strip beside the usual region in x, half as wide. `goal-region`: the goal lies there.
            `camera`: the scene camera is turned by 15 degrees and lowered by 5 degrees. `action-noise`: every behaviour
            has twice the noise of the noisy expert. Empty for none.

    Raises:
        ValueError: There is no such task or shift, or a number is out of range.
    """

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 16}
    action_names = ("x", "y", "z", "gripper")
    state_names = ("x", "y", "z", "gripper")
    stops_on_success = False  # recordings go on, so that they all have the same length

    def __init__(self, name: str, *, size: int = 64, time_limit: int = 30, action_repeat: int = 5, shift: str = ""):
        task = name.removeprefix("metaworld:")
        if task not in ENV_CLS_MAP:
            raise ValueError(f"Meta-World has no task {task!r}; it has {', '.join(ENV_CLS_MAP)}")
        if time_limit < 1:
            raise ValueError(f"time_limit is at least 1 step, got {time_limit}")
        if action_repeat < 1 or STEPS_PER_SECOND % action_repeat:
            raise ValueError(f"action_repeat divides {STEPS_PER_SECOND}, got {action_repeat}")
        check_shift(name, shift, SHIFTS)
        self.name, self.shift = f"metaworld:{task}", shift
        self.time_limit, self.action_repeat = time_limit, action_repeat
        self.task = TASKS.get(task, f"{task.removesuffix('-v3').replace('-', ' ').capitalize()}.")
        self.metadata = self.metadata | {"render_fps": STEPS_PER_SECOND // action_repeat}
        self.render_mode = "rgb_array"
        self.simulator = simulator(task)
        if shift == "start-region":
            move_start_region(task, self.simulator._random_reset_space)
        if shift == "goal-region":
            move_goal_region(task, self.simulator._random_reset_space)
        self.renderer = SceneRenderer(task, self.simulator.model, size)
        self.cameras = {
            "scene": free_camera(**SCENE_CAMERA | (CAMERA if shift == "camera" else {})),
            "wrist": fixed_camera(self.simulator.model, "gripperPOV"),
        }
        self.steps = 0
        self.vector = np.zeros(39)
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        state = spaces.Box(np.float32(STATE_LOW), np.float32(STATE_HIGH))
        self.action_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.observation_space = spaces.Dict(
            {f"observation.images.{view}": image for view in self.cameras} | {"observation.state": state}
        )

    def episode_steps(self, behaviour: str) -> int:
        """Steps of a recorded episode: play is long, for tests over a long horizon."""
        return PLAY_STEPS if behaviour == "play" else self.time_limit

    @property
    def hand_position(self) -> Float[np.ndarray, "3"]:
        """The hand in metres: x to the robot's right, y away from it, z up."""
        return self.vector[:3].copy()

    @property
    def object_position(self) -> Float[np.ndarray, "3"]:
        """The object of the task, or the handle of a fixed one, in metres."""
        return self.vector[4:7].copy()

    @property
    def goal_position(self) -> Float[np.ndarray, "3"]:
        """Where the object should be, in metres."""
        return self.vector[36:].copy()

    def get_obs(self) -> Observation:
        """Draw the current state and return both pictures, hand and gripper."""
        data = self.simulator.data
        pictures = {
            f"observation.images.{view}": self.renderer.picture(data, camera) for view, camera in self.cameras.items()
        }
        state = self.vector[:4].astype(np.float32).clip(STATE_LOW, STATE_HIGH)
        return pictures | {"observation.state": np.asarray(state, np.float32)}

    def render(self) -> UInt8[np.ndarray, "size size 3"]:
        """The scene camera's picture."""
        return self.renderer.picture(self.simulator.data, self.cameras["scene"])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; the start is a pure function of `seed`.

        Args:
            seed: Seed of the start; `None` continues the random stream.
            options: Not used.
        """
        super().reset(seed=seed, options=options)
        self.simulator.seed(int(self.np_random.integers(2**31)))
        self.vector, _ = self.simulator.reset()
        mujoco.mj_forward(self.simulator.model, self.simulator.data)  # it moves the goal
        self.steps = 0
        return self.get_obs(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        """Repeat `action` for `action_repeat` of Meta-World's steps.

        Raises:
            ValueError: The action is not four finite numbers.
        """
        motion = np.asarray(action, np.float32)
        if motion.shape != (4,) or not np.isfinite(motion).all():
            raise ValueError(f"an action of {self.name} is four finite numbers, got {action!r}")
        motion = motion.clip(-1, 1)
        for _ in range(self.action_repeat):
            self.simulator.curr_path_length = 0  # this class has its own time limit
            self.vector, reward, _, _, info = self.simulator.step(motion)
        self.steps += 1
        success = bool(info["success"])
        return (self.get_obs(), float(reward), success, self.steps >= self.time_limit, {"success": success})


def simulator(task: str) -> gymnasium.Env:
    """Meta-World's environment of a task: goal visible, start drawn from its own seed."""
    env = ENV_CLS_MAP[task]()
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._partially_observable = False
    del env.sawyer_observation_space  # cached while the goal was hidden
    return env
