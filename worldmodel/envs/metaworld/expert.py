"""Scripted behaviours in Meta-World: its own experts, the same with noise, and play."""

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from metaworld.policies import ENV_POLICY_MAP

from worldmodel.envs.behaviour import Behaviour
from worldmodel.envs.metaworld.env import MetaWorld
from worldmodel.envs.shift import NOISE

NOISE_RANGE = (0.05, 0.5)  # of the actions' range of -1 to 1
GAIN = 10.0  # action per metre, as in Meta-World's experts
PLAY_LOW, PLAY_HIGH = (-0.2, 0.5, 0.05), (0.2, 0.85, 0.3)  # metres, inside the scene's picture
MIDDLE = np.array([0.0, 0.7])
ABOVE = 0.12  # metres over the object
GRASP_HEIGHT = 0.03
REACH = 0.02
OPEN, CLOSED = -1.0, 0.8
MOTIONS = ("push", "carry", "roam", "pause")
SHARES = (0.5, 0.3, 0.16, 0.04)

Action = Float[np.ndarray, "4"]
Point = Float[np.ndarray, "3"]


def behave(behaviour: Behaviour, env: MetaWorld, rng: np.random.Generator) -> Iterator[Action]:
    """Endless actions; a pure function of the environment's states and the generator."""
    actions = play(env, rng) if behaviour == "play" else expert(env)
    if env.shift == "action-noise":
        return with_noise(actions, rng, scale=NOISE)
    return with_noise(actions, rng) if behaviour == "noisy" else actions


def expert(env: MetaWorld) -> Iterator[Action]:
    """Meta-World's scripted policy of the task; it sees the object and the goal."""
    policy = ENV_POLICY_MAP[env.name.removeprefix("metaworld:")]()
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that its actions are clipped
            action = policy.get_action(env.vector)
        yield action.clip(-1, 1)


def with_noise(actions: Iterator[Action], rng: np.random.Generator, *, scale: float = 1.0) -> Iterator[Action]:
    """Add Gaussian noise to every action, its sigma drawn once, log-uniform in 0.05..0.5.

    `scale` multiplies sigma.
    """
    sigma = scale * np.exp(rng.uniform(*np.log(NOISE_RANGE)))
    for action in actions:
        yield (action + rng.normal(0, sigma, 4)).clip(-1, 1)


def play(env: MetaWorld, rng: np.random.Generator) -> Iterator[Action]:
    """Aimless motion that touches the object a lot: pushes, carries, free motion, pauses."""
    motions = {"push": push, "carry": carry, "roam": roam, "pause": pause}
    while True:
        yield from motions[str(rng.choice(MOTIONS, p=SHARES))](env, rng)


def drive(env: MetaWorld, aim: Point, gripper: float, *, limit: int, gain: float = GAIN) -> Iterator[Action]:
    """Move towards a point until the hand is within 2 cm of it, or for `limit` actions."""
    for _ in range(limit):
        offset = aim - env.hand_position
        if np.linalg.norm(offset) < REACH:
            return
        yield np.append((gain * offset).clip(-1, 1), gripper)


def random_gain(rng: np.random.Generator) -> float:
    """A random gain, from a slow approach to full speed."""
    return GAIN * np.exp(rng.uniform(np.log(0.3), 0.0))


def inside(point: Point) -> Point:
    """The nearest point inside the space in which play stays."""
    return point.clip(PLAY_LOW, PLAY_HIGH)


def raised(point: Point, height: float) -> Point:
    """A point above another, metres."""
    return point + np.array([0.0, 0.0, height])


def push(env: MetaWorld, rng: np.random.Generator) -> Iterator[Action]:
    """Go round to a random side of the object, more often an outer one, and push through it."""
    goal = MIDDLE + rng.normal(0, 0.08, 2)
    forwards = np.append(goal - env.object_position[:2], 0.0)
    angle = np.arctan2(forwards[1], forwards[0]) + rng.normal(0, 0.8)
    forwards = np.array([np.cos(angle), np.sin(angle), 0.0])
    gripper = float(rng.choice([OPEN, CLOSED]))
    start = env.object_position - rng.uniform(0.06, 0.1) * forwards
    yield from drive(env, inside(raised(start, ABOVE)), gripper, limit=8)
    yield from drive(env, inside(start), gripper, limit=5)
    end = env.object_position + rng.uniform(0.03, 0.15) * forwards
    yield from drive(env, inside(end), gripper, limit=10, gain=random_gain(rng))


def carry(env: MetaWorld, rng: np.random.Generator) -> Iterator[Action]:
    """Take the object from above, move it somewhere and let go."""
    above = inside(raised(env.object_position, ABOVE))
    yield from drive(env, above, OPEN, limit=8)
    grasp = raised(env.object_position, rng.uniform(0.5, 1.5) * GRASP_HEIGHT)
    yield from drive(env, grasp, OPEN, limit=5)
    yield from itertools.repeat(np.array([0, 0, 0, CLOSED]), int(rng.integers(1, 4)))
    aim = rng.uniform(PLAY_LOW, (*PLAY_HIGH[:2], 0.2))
    yield from drive(env, aim, CLOSED, limit=10, gain=random_gain(rng))
    yield from itertools.repeat(np.array([0, 0, 0, OPEN]), 2)


def roam(env: MetaWorld, rng: np.random.Generator) -> Iterator[Action]:
    """Move to a random place."""
    aim, gripper = rng.uniform(PLAY_LOW, PLAY_HIGH), rng.uniform(-1, 1)
    yield from drive(env, aim, gripper, limit=10, gain=random_gain(rng))


def pause(env: MetaWorld, rng: np.random.Generator) -> Iterator[Action]:
    """Hold still for a moment."""
    gripper = rng.uniform(-1, 1)
    for _ in range(int(rng.integers(2, 6))):
        yield np.array([0.0, 0.0, 0.0, gripper])
