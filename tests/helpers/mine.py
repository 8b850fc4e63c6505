"""Modules of somebody else, in a folder of their own, each with a name that was never imported before."""

import itertools
import sys
from pathlib import Path

_numbers = itertools.count()

ENV = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Square(gymnasium.Env):
    """A bright square of 4 pixels; an action moves it by at most 2. Success: x is at least 10."""

    metadata = {"render_fps": 10}
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    observation_space = spaces.Dict({"observation.images.top": spaces.Box(0, 255, (16, 16, 3), np.uint8)})
    time_limit = 12

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.integers(0, 6, 2).astype(float)
        self.picture = np.zeros((16, 16, 3), np.uint8)
        return self.look(), {}

    def step(self, action):
        self.place = np.clip(self.place + 2 * action, 0, 12)
        solved = bool(self.place[0] >= 10)
        return self.look(), self.place[0] / 10, False, False, {"is_success": solved}

    def look(self):
        """The same array every time, as real simulators do it."""
        self.picture[:] = 30
        x, y = np.round(self.place).astype(int)
        self.picture[y : y + 4, x : x + 4] = 230
        return {"observation.images.top": self.picture}


class Ending(Square):
    """Terminates on success, and says nothing else about it."""

    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        return observation, reward, info["is_success"], False, {}
'''

POLICIES = '''
import torch


def right(observation):
    return torch.tensor([[1.0, 0.0]]).expand(len(observation["observation.images.top"]), 2)


class Left:
    def reset(self, seeds):
        self.number = len(seeds)

    def act(self, observation):
        return torch.tensor([[-1.0, 0.0]]).expand(self.number, 2)


left = Left()


def make_left():
    return Left()


class Chance:
    """Another direction for every seed."""

    def reset(self, seeds):
        self.actions = torch.stack([torch.tensor([1.0, 0.0]) * ((seed % 3) - 1) for seed in seeds])

    def act(self, observation):
        return self.actions


class Watching(Left):
    def watch(self, env):
        self.env = env

    def act(self, observation):
        return torch.from_numpy((8 - self.env.place) / 2)[None]


class Deaf:
    def act(self, observation):
        return None


class Needy(Left):
    def __init__(self, size):
        self.size = size


def two(observation, info):
    return None


number = 3


class Lists(Left):
    def act(self, observation):
        return [0.0, 0.0]
'''


def write_module(folder: Path, text: str, name: str = "mine") -> str:
    """Write a module, whose name starts with `name`; returns its name."""
    module = f"{name}_{next(_numbers)}"
    assert module not in sys.modules
    (folder / f"{module}.py").write_text(text)
    return module
