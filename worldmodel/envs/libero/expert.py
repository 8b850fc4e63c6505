"""Scripted behaviours in libero_object: an expert, which puts the object into the basket, noise on it, and play."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from worldmodel.envs.behaviour import Behaviour
from worldmodel.envs.libero.env import LiberoObject
from worldmodel.envs.libero.simulator import Point
from worldmodel.envs.shift import NOISE

NOISE_RANGE = (0.05, 0.5)  # of the actions' range of -1 to 1
GAIN, TURN_GAIN = 12.0, 2.0  # action per metre, and per radian
OPEN, CLOSED = -1.0, 1.0
ABOVE = 0.12  # metres over the place where the object is taken
OVER_BASKET, INTO_BASKET = 0.28, 0.16  # metres over the basket's place
PALM = 0.045  # metres from the point between the fingers to the palm
LOWER = 0.008  # metres; the hand comes to rest above the point that it is sent to, too high for a flat object
CROWDED, ASIDE = 0.13, 0.02  # metres
HELD = 0.06  # metres from the hand to an object that it holds
PLAY_LOW, PLAY_HIGH = (-0.25, -0.3, 0.03), (0.2, 0.3, 0.3)  # metres, inside the picture
MOTIONS = ("push", "carry", "roam", "pause")
SHARES = (0.4, 0.4, 0.16, 0.04)

Action = Float[np.ndarray, "7"]
Aim = Callable[[], Point]


def behave(behaviour: Behaviour, env: LiberoObject, rng: np.random.Generator) -> Iterator[Action]:
    """Endless actions; a pure function of the environment's states and the generator."""
    actions = play(env, rng) if behaviour == "play" else expert(env)
    if env.shift == "action-noise":
        return with_noise(actions, rng, scale=NOISE)
    return with_noise(actions, rng) if behaviour == "noisy" else actions


def with_noise(actions: Iterator[Action], rng: np.random.Generator, *, scale: float = 1.0) -> Iterator[Action]:
    """Add Gaussian noise to every action, its sigma drawn once, log-uniform in 0.05..0.5.

    `scale` multiplies sigma.
    """
    sigma = scale * np.exp(rng.uniform(*np.log(NOISE_RANGE)))
    for action in actions:
        yield (action + rng.normal(0, sigma, 7)).clip(-1, 1)


def expert(env: LiberoObject) -> Iterator[Action]:
    """Take the object from above, carry it over the basket and let it fall; begin again if the hand is empty."""
    while True:
        yield from take(env, lambda: grasp(env))
        if np.linalg.norm(env.object_position - env.hand_position) > HELD:
            continue
        yield from drive(env, lambda: raised(env.goal_position, OVER_BASKET), CLOSED, limit=60, flat=0.015)
        yield from drive(env, lambda: raised(env.goal_position, INTO_BASKET), CLOSED, limit=20, height=0.03)
        yield from drive(env, still(env), OPEN, limit=20)
        yield from drive(env, lambda: raised(env.goal_position, OVER_BASKET), OPEN, limit=20, height=0.04)


def take(env: LiberoObject, place: Aim) -> Iterator[Action]:
    """Close the hand around a place and lift what is there."""
    yield from drive(env, lambda: raised(place(), ABOVE), OPEN, limit=60, flat=0.008, height=0.03)
    yield from drive(env, place, OPEN, limit=35, height=0.012)
    yield from drive(env, still(env), CLOSED, limit=9)
    lifted = env.hand_position
    lifted[2] = env.goal_position[2] + OVER_BASKET
    yield from drive(env, lambda: lifted, CLOSED, limit=30, height=0.04)


def grasp(env: LiberoObject) -> Point:
    """Where the hand takes the object: at its middle, or as low as the palm can go on a tall one.

    A flat object is taken aside of its middle if the palm would meet a higher neighbour.
    """
    point = env.object_position
    point[2] = max(point[2], env.object_top - PALM)
    if env.object_top < PALM:
        point[2] -= LOWER
        offsets = [place - env.object_position for place, top in env.neighbours if top > PALM]
        nearest = min(offsets, key=lambda offset: np.linalg.norm(offset[:2]), default=np.full(3, np.inf))
        point[0] -= ASIDE * np.sign(nearest[0]) * (np.linalg.norm(nearest[:2]) < CROWDED)
    return point


def drive(
    env: LiberoObject,
    aim: Aim,
    gripper: float,
    *,
    limit: int,
    flat: float = 1.0,
    height: float = 1.0,
    gain: float = GAIN,
) -> Iterator[Action]:
    """Move the hand towards a point that may itself move, with the fingers downwards.

    Args:
        env: The environment.
        aim: Returns the point, in metres.
        gripper: What the gripper does.
        limit: Most actions.
        flat: Stop within this distance in x and y, metres, if `height` is reached, too.
        height: Stop within this distance in z. With both at 1 metre, which is everywhere, all actions are made.
        gain: Action per metre.
    """
    for _ in range(limit):
        offset = aim() - env.hand_position
        if (flat, height) != (1.0, 1.0) and np.linalg.norm(offset[:2]) < flat and abs(offset[2]) < height:
            return
        yield np.array([*(gain * offset).clip(-1, 1), *(TURN_GAIN * env.tilt).clip(-1, 1), gripper])


def still(env: LiberoObject) -> Aim:
    """The place where the hand is now."""
    place = env.hand_position
    return lambda: place


def raised(point: Point, height: float) -> Point:
    """A point above another, metres."""
    return point + np.array([0.0, 0.0, height])


def play(env: LiberoObject, rng: np.random.Generator) -> Iterator[Action]:
    """Aimless motion that touches the objects a lot: pushes, carries, free motion, pauses."""
    motions = {"push": push, "carry": carry, "roam": roam, "pause": pause}
    while True:
        yield from motions[str(rng.choice(MOTIONS, p=SHARES))](env, rng)


def some_object(env: LiberoObject, rng: np.random.Generator) -> Point:
    """Where to take an object: the one of the task in half of the cases, else one of the others."""
    others = [(place, top) for place, top in env.neighbours if not np.array_equal(place, env.goal_position)]
    if rng.random() < 0.5 or not others:
        return grasp(env)
    place, top = others[rng.integers(len(others))]
    return np.array([*place[:2], max(place[2], top - PALM) - LOWER * (top < PALM)])


def random_gain(rng: np.random.Generator) -> float:
    """A random gain, from a slow approach to full speed."""
    return GAIN * np.exp(rng.uniform(np.log(0.3), 0.0))


def push(env: LiberoObject, rng: np.random.Generator) -> Iterator[Action]:
    """Go to one side of an object and push through it."""
    place = some_object(env, rng)
    angle = rng.uniform(-np.pi, np.pi)
    forwards = np.array([np.cos(angle), np.sin(angle), 0.0])
    start, end = place - 0.09 * forwards, place + rng.uniform(0.0, 0.12) * forwards
    gripper = float(rng.choice([OPEN, CLOSED]))
    yield from drive(env, lambda: raised(start, ABOVE), gripper, limit=30, flat=0.02, height=0.05)
    yield from drive(env, lambda: start, gripper, limit=15, height=0.02)
    yield from drive(env, lambda: inside(end), gripper, limit=25, flat=0.02, gain=random_gain(rng))


def carry(env: LiberoObject, rng: np.random.Generator) -> Iterator[Action]:
    """Take an object, move it somewhere and let go."""
    place = some_object(env, rng)
    yield from take(env, lambda: place)
    aim, low = rng.uniform(PLAY_LOW, PLAY_HIGH), rng.uniform(0.05, 0.2)
    yield from drive(env, lambda: aim, CLOSED, limit=30, flat=0.03, gain=random_gain(rng))
    yield from drive(env, lambda: np.array([*aim[:2], low]), CLOSED, limit=15, height=0.03)
    yield from drive(env, still(env), OPEN, limit=5)


def roam(env: LiberoObject, rng: np.random.Generator) -> Iterator[Action]:
    """Move to a random place."""
    aim, gripper = rng.uniform(PLAY_LOW, PLAY_HIGH), rng.uniform(-1, 1)
    yield from drive(env, lambda: aim, gripper, limit=30, flat=0.03, height=0.05, gain=random_gain(rng))


def pause(env: LiberoObject, rng: np.random.Generator) -> Iterator[Action]:
    """Hold still for a moment."""
    yield from itertools.islice(drive(env, still(env), rng.uniform(-1, 1), limit=20), int(rng.integers(4, 12)))


def inside(point: Point) -> Point:
    """The nearest point inside the space in which play stays."""
    return point.clip(PLAY_LOW, PLAY_HIGH)
