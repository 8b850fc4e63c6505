"""Recordings with the cameras, actions and states of the Unitree G1, for those who want to try the commands at once.

    worldmodel record stand_in:StandIn --out data/g1_bottle --episodes 8

A grey square goes where the first two joints point. It says nothing about the robot, nor about the figures of the
tutorial.
"""

import gymnasium
import numpy as np
from gymnasium import spaces

JOINTS = 26


class StandIn(gymnasium.Env):
    """A drawn camera of 160 x 120 pixels at 30 frames/s, and 26 joints that follow their targets."""

    metadata = {"render_fps": 30}  # noqa: RUF012
    time_limit = 48
    task = "Pick up the yellow bottle on the table."
    action_space = spaces.Box(-1, 1, (JOINTS,), np.float32)
    observation_space = spaces.Dict(
        {
            "observation.images.cam_high": spaces.Box(0, 255, (120, 160, 3), np.uint8),
            "observation.state": spaces.Box(-np.inf, np.inf, (JOINTS,), np.float32),
        }
    )

    def reset(self, *, seed=None, options=None):
        """Begin at joints drawn from the seed."""
        super().reset(seed=seed)
        self.steps = 0
        self.joints = self.np_random.uniform(-0.5, 0.5, JOINTS).astype(np.float32)
        return self.look(), {}

    def step(self, action):
        """Go a fifth of the way to the target; every episode succeeds after 24 steps, as each recording does."""
        self.steps += 1
        self.joints += 0.2 * (np.asarray(action, np.float32) - self.joints)
        return self.look(), 0.0, False, False, {"success": self.steps >= 24}

    def look(self):
        """The picture and the joints."""
        picture = np.full((120, 160, 3), 60, np.uint8)
        row, column = (np.array([60, 80]) + np.array([45, 60]) * np.tanh(self.joints[:2])).astype(int)
        picture[row - 10 : row + 10, column - 10 : column + 10] = 220
        return {"observation.images.cam_high": picture, "observation.state": self.joints.copy()}
