"""Play: aimless motion that touches the block a lot and covers the whole table."""

import math
from collections.abc import Iterator

import numpy as np

from worldmodel.envs.pushing import TABLE, Point, before_contact, contact, drive, way_round
from worldmodel.envs.pusht import PushT
from worldmodel.envs.scene import WORLD_SIZE, placed

MIDDLE = np.array([WORLD_SIZE / 2, WORLD_SIZE / 2])
EDGE_DISTANCE = 130.0  # a block further from the middle is pushed back
WALL_DISTANCE = 185.0  # and one this far along x or y is not pushed further out
MOTIONS = ("push", "cross", "roam", "pause")
SHARES = (0.6, 0.25, 0.11, 0.04)


def play(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Targets without end: pushes from all sides, dashes across the block, free motion, pauses."""
    motions = {"push": push, "cross": cross, "roam": roam, "pause": pause}
    while True:
        yield from motions[str(rng.choice(MOTIONS, p=SHARES))](env, rng)


def random_lead(rng: np.random.Generator) -> float:
    """How far ahead of the agent the targets lie, from a crawl to a dash (log-uniform)."""
    return math.exp(rng.uniform(math.log(20.0), math.log(300.0)))


def random_push(env: PushT, rng: np.random.Generator) -> tuple[Point, Point]:
    """Start and direction of a push; one that leads to the middle when the block is near a wall."""
    pose, offset = env.block_pose, MIDDLE - env.block_centre
    num_tries = 12 if np.linalg.norm(offset) > EDGE_DISTANCE else 1
    turn = np.array([0.0, 0.0, pose[2]])
    pushes = []
    for _ in range(num_tries):
        point, inwards = contact(rng.uniform())
        tilted = placed(inwards, np.array([0.0, 0.0, rng.uniform(-0.9, 0.9)]))
        pushes.append((placed(before_contact(point, inwards), pose), placed(tilted, turn)))
    inside = [(s, d) for s, d in pushes if TABLE[0] <= s.min() and s.max() <= TABLE[1]]
    return max(inside or pushes, key=lambda push: float(push[1] @ offset))


def push(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Go round to a random place on the outline and push straight."""
    start, direction = random_push(env, rng)
    yield from drive(
        env, way_round(env.agent_position, start, env.block_pose), rng.uniform(90, 350), limit=14
    )
    end = (start + direction * rng.uniform(50, 260)).clip(*TABLE)
    yield from push_until_wall(env, end, random_lead(rng))


def push_until_wall(env: PushT, end: Point, lead: float) -> Iterator[Point]:
    """Straight to `end`, but never a block near a wall further out: it would be forced through."""
    for target in drive(env, [end], lead, limit=18):
        outwards = float((env.block_centre - MIDDLE) @ (end - env.agent_position)) > 0
        if outwards and np.abs(env.block_centre - MIDDLE).max() > WALL_DISTANCE:
            return
        yield target


def cross(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Straight from here across the block to a point behind it."""
    offset = env.block_centre + rng.normal(0, 25, 2) - env.agent_position
    distance = max(float(np.linalg.norm(offset)), 1.0)
    end = env.agent_position + offset * (1 + rng.uniform(10, 140) / distance)
    yield from push_until_wall(env, end.clip(40, WORLD_SIZE - 40), random_lead(rng))


def roam(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """To a random place on the table, round the block."""
    goal = rng.uniform(*TABLE, 2)
    path = way_round(env.agent_position, goal, env.block_pose)
    yield from drive(env, path, rng.uniform(60, 500), limit=14)


def pause(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Hold still for a moment."""
    target = env.agent_position
    for _ in range(int(rng.integers(2, 7))):
        yield target
