"""PushT from two cameras, and PushT-Position: the same world with a task that small policies can learn."""

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # nothing opens a window
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from gym_pusht.envs.pusht import PushTEnv
from gymnasium import spaces
from jaxtyping import Float

from worldmodel.envs.pusht.scene import WORLD_SIZE, Scene
from worldmodel.envs.pusht.shift import SHIFTS, outer_start, turned_action
from worldmodel.envs.shift import check_shift
from worldmodel.processes import undisturbed

POSITION_RADIUS = 30.0  # world units
POSITION_REWARD_RANGE = 256.0
POSITION_MIN_START = 60.0
Observation = dict[str, np.ndarray]


class PushT(PushTEnv):
    """The world of gym-pusht seen by two cameras, with a time limit.

    Observations:
        `observation.images.top`: the whole table, uint8 `size size 3`.
        `observation.images.wrist`: the fifth of the table's side around the agent, likewise.
        `observation.state`: the agent's x and y in world units, 0..512, float32.

    An action is the agent's target (x, y) in world units, 0..512, followed for 0.1 s by
    gym-pusht's PD control; targets outside are clipped. The reward is the covered share of the goal
    divided by 0.95, at most 1; success (`info["success"]`) is a coverage above 0.95 and terminates.
    A start is a pure function of the seed and the same as gym-pusht's.

    Args:
        size: Side of both pictures in pixels, 16..256.
        time_limit: Steps after which an episode is truncated.
        shift: One controlled change, for tests out of distribution. `start-region`: the block
            starts outside the usual square. `agent-speed`: behaviours move the agent twice as fast.
            `action-noise`: every behaviour has twice the noise of the noisy expert. `turned-actions`: the
            agent moves 60 degrees to the side of where it is sent. Empty for none.

    Raises:
        ValueError: There is no such shift, or a number is out of range.
    """

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_names = ("x", "y")
    state_names = ("x", "y")
    name = "pusht"
    task = "Push the T-shaped block onto the green target."
    stops_on_success = False  # recordings go on to the time limit

    def __init__(self, *, size: int = 64, time_limit: int = 120, shift: str = ""):
        super().__init__(obs_type="state", render_mode="rgb_array")
        check_shift(self.name, shift, SHIFTS)
        self.shift = shift
        if time_limit < 1:
            raise ValueError(f"time_limit is at least 1 step, got {time_limit}")
        self.time_limit = time_limit
        self.steps = 0
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "observation.images.top": image,
                "observation.images.wrist": image,
                "observation.state": spaces.Box(0, WORLD_SIZE, (2,), np.float32),
            }
        )
        self._setup()
        goal_body = self.get_goal_pose_body(self.goal_pose)
        rectangles = [np.array(shape.get_vertices()) for shape in self._block_shapes]
        self.block_corners = np.concatenate(rectangles)
        self.scene = Scene(rectangles, self.goal_pose, size=size)
        self.goal_centre = np.array(goal_body.local_to_world(self.block.center_of_gravity))

    @property
    def agent_position(self) -> Float[np.ndarray, "2"]:
        """Centre of the agent's disc in world units."""
        return np.array(self.agent.position)

    @property
    def block_pose(self) -> Float[np.ndarray, "3"]:
        """The block's origin (x, y) in world units and its angle in radians."""
        return np.array([*self.block.position, self.block.angle])

    @property
    def block_centre(self) -> Float[np.ndarray, "2"]:
        """The block's centre of gravity in world units."""
        return np.array(self.block.local_to_world(self.block.center_of_gravity))

    @property
    def solved(self) -> bool:
        """Whether the current state is a success."""
        return self.score(self._get_coverage())[1]

    def _set_state(self, state: Sequence[float] | Float[np.ndarray, "5"]) -> None:
        with undisturbed():  # as in `step`
            super()._set_state(state)

    def get_obs(self) -> Observation:
        """Draw the current state and return both pictures and the agent's position."""
        self.scene.draw(self.agent_position, self.block_pose)
        return {
            "observation.images.top": self.scene.top(),
            "observation.images.wrist": self.scene.wrist(),
            "observation.state": self.agent_position.astype(np.float32).clip(0, WORLD_SIZE),
        }

    def render(self) -> np.ndarray:
        """The 256-pixel canvas that both cameras are cut from."""
        return self.scene.canvas.copy()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; the start is a pure function of `seed`.

        Args:
            seed: Seed of the start; `None` continues the random stream.
            options: `{"reset_to_state": (agent_x, agent_y, block_x, block_y, angle)}` as in
                gym-pusht.
        """
        observation, info = super().reset(seed=seed, options=options)
        if self.shift == "start-region" and options is None:
            centre = np.array(self.block.center_of_gravity)
            start = outer_start(self.block_corners, centre, self.np_random)
            observation, info = super().reset(options={"reset_to_state": start})
        self.steps = 0
        info["success"] = info.pop("is_success")
        info["coverage"] = self._get_coverage()
        return observation, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        """Follow the target `action` for 0.1 s.

        Raises:
            ValueError: The action is not two finite numbers.
        """
        target = np.asarray(action, np.float64)
        if target.shape != (2,) or not np.isfinite(target).all():
            raise ValueError(f"an action of {self.name} is two finite numbers, got {action!r}")
        if self.shift == "turned-actions":
            target = turned_action(self.agent_position, target)
        with undisturbed():  # Ctrl-C within the simulator's calls back to Python would be lost
            observation, _, _, _, info = super().step(target.clip(0, WORLD_SIZE))
        del info["is_success"]
        self.steps += 1
        reward, info["success"] = self.score(float(info["coverage"]))
        return observation, reward, info["success"], self.steps >= self.time_limit, info

    def score(self, coverage: float) -> tuple[float, bool]:
        """Reward and success of the current state."""
        return min(coverage / self.success_threshold, 1.0), coverage > self.success_threshold


class PushTPosition(PushT):
    """PushT judged by the place of the block alone.

    Success: the block's centre of gravity lies within 30 world units of the goal's, whatever the
    angle. The reward is dense and bounded: `max(0, 1 - distance / 256)` with the distance of the
    two centres in world units, so 1 on the goal and above 0.88 on success. A start is a pure
    function of the seed, at least 60 world units from the goal. The time limit is 60 steps.
    """

    name = "pusht-position"
    task = "Push the T-shaped block to the green target; its angle does not matter."
    stops_on_success = True

    def __init__(self, *, size: int = 64, time_limit: int = 60, shift: str = ""):
        super().__init__(size=size, time_limit=time_limit, shift=shift)

    @property
    def distance(self) -> float:
        """World units between the centres of gravity of block and goal."""
        return float(np.linalg.norm(self.block_centre - self.goal_centre))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode away from the goal; see `PushT.reset`."""
        observation, info = super().reset(seed=seed, options=options)
        while options is None and self.distance < POSITION_MIN_START:
            observation, info = super().reset()
        info["success"] = self.distance <= POSITION_RADIUS
        return observation, info

    def score(self, coverage: float) -> tuple[float, bool]:
        """Reward and success of the current state; the coverage does not matter."""
        reward = max(0.0, 1.0 - self.distance / POSITION_REWARD_RANGE)
        return reward, self.distance <= POSITION_RADIUS
