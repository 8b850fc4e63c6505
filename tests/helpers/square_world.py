"""A square that is pushed to the right edge: a whole task in a handful of pixels."""

import copy
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.data.lerobot.write import LeRobotSchema, finalise, stage_episode
from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation

SIZE = 16
SCHEMA = LeRobotSchema(
    fps=10,
    views={"top": (SIZE, SIZE), "wrist": (SIZE, SIZE)},
    action_names=("x", "y"),
    state_names=("x", "y"),
    robot_type="square",
)


BOUNDS = (torch.zeros(2), torch.full((2,), 12.0))
"""Lowest and highest action."""


class SquareEnv(gymnasium.Env):
    """A white square of 4 pixels at `state`; an action is where it should go, at most 2 pixels.

    Success: x is at least 10. The reward is x / 10.
    """

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    action_space = spaces.Box(0, 12, (2,), np.float32)
    observation_space = spaces.Dict(
        {
            "observation.images.top": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "observation.images.wrist": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "observation.state": spaces.Box(0, 12, (2,), np.float32),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = np.array([self.np_random.integers(0, 6), self.np_random.integers(0, 12)])
        self.state = self.state.astype(np.float32)
        return self.observe(), {}

    def step(self, action):
        self.state = (self.state + np.clip(action - self.state, -2, 2)).astype(np.float32)
        solved = bool(self.state[0] >= 10)
        return self.observe(), float(self.state[0] / 10), solved, False, {"success": solved}

    def observe(self):
        picture = np.full((SIZE, SIZE, 3), 30, np.uint8)
        x, y = np.round(self.state).astype(int)
        picture[y : y + 4, x : x + 4] = 230
        return {
            "observation.images.top": picture,
            "observation.images.wrist": picture[::-1].copy(),
            "observation.state": self.state.copy(),
        }


class SquareStream:
    """Squares drawn exactly, with grains of noise that depend on each stream's seed."""

    def __init__(self, world, context, seeds):
        self.world = world
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.observation = Observation(context.frames[:, -1], context.states[:, -1])

    def step(self, actions, *, num_steps):
        self.world.take_step(actions, num_steps)
        states = self.observation.states
        states = states + (actions - states).clamp(-2, 2)
        frames = torch.full((len(states), 2, SIZE, SIZE, 3), 30, dtype=torch.uint8)
        for picture, (x, y) in zip(frames, states.round().int().tolist(), strict=True):
            picture[0, y : y + 4, x : x + 4] = 230
            picture[1] = picture[0].flip(0)
        if self.world.grain:
            shape, grain = frames.shape[1:], self.world.grain
            noise = [torch.randint(grain, shape, generator=generator) for generator in self.generators]
            frames = frames + torch.stack(noise).to(torch.uint8)
        self.observation = Observation(frames, states)
        return self.observation

    def branch(self, k):
        every = torch.arange(len(self.observation.frames)).repeat_interleave(k)
        branches = copy.copy(self)
        seeds = [generator.initial_seed() + branch for generator in self.generators for branch in range(k)]
        branches.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        branches.observation = Observation(self.observation.frames[every], self.observation.states[every])
        return branches

    def reset(self, streams, context, *, seeds):
        states, frames = self.observation.states.clone(), self.observation.frames.clone()
        states[streams], frames[streams] = context.states[:, -1], context.frames[:, -1]
        for stream, seed in zip(streams, seeds, strict=True):
            self.generators[stream] = torch.Generator().manual_seed(seed)
        self.observation = Observation(frames, states)


class SquareWorld:
    """The square's world; its plug is pulled after some steps, if that is asked for.

    Attributes:
        told: Actions of every step.
        num_steps: Denoising steps of every step.
    """

    views = ("top", "wrist")
    stride = 1

    def __init__(self, grain: int = 0, steps: int | None = None):
        self.grain, self.left = grain, steps
        self.told, self.num_steps = [], []

    def stream(self, context, *, seeds):
        return SquareStream(self, context, seeds)

    def take_step(self, actions, num_steps):
        self.told.append(actions)
        self.num_steps.append(num_steps)
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1


def right_edge(observation: Observation) -> Verdict:
    """As `SquareEnv` rewards: x / 10, and success from 10 on."""
    x = observation.states[:, 0]
    return Verdict(x / 10, x >= 10)


def to_the_right(state: np.ndarray) -> np.ndarray:
    return state + np.float32([2, 0])


def write_episodes(
    folder: Path,
    number: int,
    *,
    steps: int = 8,
    behave: Callable[[np.ndarray], np.ndarray] = to_the_right,
    failures: int = 0,
    seeded: bool = True,
) -> Path:
    """A LeRobot set of `number` episodes; the last `failures` of each four stop half-way.

    Args:
        folder: The set.
        number: Of episodes.
        steps: Of each episode.
        behave: From state to action.
        failures: Of each four episodes.
        seeded: Whether the episodes have reset seeds, as those of a simulator do.
    """
    env = SquareEnv()
    for episode in range(number):
        observation, _ = env.reset(seed=100 + episode)
        rows = []
        for step in range(steps):
            idle = episode % 4 >= 4 - failures and step >= 2
            action = env.state if idle else behave(env.state)
            action = action.clip(0, 12).astype(np.float32)
            following, reward, _, _, info = env.step(action)
            rows.append((observation, action, reward, info["success"]))
            observation = following
        seen, actions, rewards, successes = zip(*rows, strict=True)
        stacked = {key: np.stack([each[key] for each in seen]) for key in seen[0]}
        stage_episode(
            folder,
            episode,
            schema=SCHEMA,
            frames={view: stacked[f"observation.images.{view}"] for view in SCHEMA.views},
            actions=np.stack(actions),
            states=stacked["observation.state"],
            rewards=np.array(rewards, np.float32),
            successes=np.array(successes),
            task="right",
            metadata={"reset_seed": 100 + episode} if seeded else {},
        )
    finalise(folder, SCHEMA)
    return folder


def square_policy() -> ClonedPolicy:
    """A policy that hardly moves: the mean displacement is 0.2 pixels of the 2 it could be."""
    torch.manual_seed(0)
    config = PolicyConfig(views=("top",), size=(SIZE, SIZE), action_dim=2, state_dim=2, relative_to={0: 0, 1: 1})
    policy = ClonedPolicy(config).eval()
    policy.action_mean.copy_(torch.tensor([0.2, 0.0]))
    policy.state_mean.fill_(5.0)
    policy.state_std.fill_(3.0)
    return policy
