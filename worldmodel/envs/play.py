"""Play: aimless motion that touches the block a lot and covers the whole table."""

import math
from collections.abc import Iterator

import numpy as np

from worldmodel.envs.pushing import (
    TABLE,
    Point,
    before_contact,
    clearance,
    contact,
    drive,
    in_block_frame,
    turned,
    way_round,
)
from worldmodel.envs.pusht import PushT
from worldmodel.envs.scene import AGENT_RADIUS, WORLD_SIZE, placed

MIDDLE = np.array([WORLD_SIZE / 2, WORLD_SIZE / 2])
EDGE_DISTANCE = 130.0  # a block further from the middle is pushed back
WALL_DISTANCE = 185.0  # and one this far along x or y is not pushed further out
MOTIONS = ("push", "cross", "roam", "pause")
SHARES = (0.76, 0.12, 0.09, 0.03)


def play(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Targets without end: pushes from all sides, dashes across the block, free motion, pauses."""
    motions = {"push": push, "cross": cross, "roam": roam, "pause": pause}
    while True:
        yield from motions[str(rng.choice(MOTIONS, p=SHARES))](env, rng)


def random_lead(rng: np.random.Generator) -> float:
    """How far ahead of the agent the targets lie, from a crawl to a dash (log-uniform)."""
    return math.exp(rng.uniform(math.log(25.0), math.log(300.0)))


def random_contact(env: PushT, rng: np.random.Generator) -> tuple[Point, Point]:
    """Where to stand before a push and the point to push at, on a random side of the block.

    The side that leads to the middle when the block is near a wall.
    """
    pose, offset = env.block_pose, MIDDLE - env.block_centre
    num_tries = 12 if np.linalg.norm(offset) > EDGE_DISTANCE else 1
    contacts = [contact(rng.uniform()) for _ in range(num_tries)]
    pushes = [
        (placed(before_contact(point, inwards), pose), placed(point, pose))
        for point, inwards in contacts
    ]
    inside = [push for push in pushes if TABLE[0] <= push[0].min() and push[0].max() <= TABLE[1]]
    return max(inside or pushes, key=lambda push: float((push[1] - push[0]) @ offset))


def push(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Go round to a random place on the outline and push, with a few turns on the way."""
    start, aim = random_contact(env, rng)
    path = way_round(env.agent_position, start, env.block_pose)
    yield from drive_inside(env, path, rng.uniform(70, 350), limit=14)
    for _ in range(int(rng.integers(2, 7))):
        onwards = turned(aim - env.agent_position, rng.uniform(-0.3, 0.3))
        length = max(float(np.linalg.norm(onwards)), 1.0)
        end = env.agent_position + onwards * (1 + rng.uniform(30, 200) / length)
        yield from drive_inside(env, [end.clip(*TABLE)], random_lead(rng), limit=14)
        aim = env.block_centre + rng.normal(0, 25, 2)


def drive_inside(env: PushT, path: list[Point], lead: float, limit: int) -> Iterator[Point]:
    """`drive`, but a block near a wall is not pushed further out: it would be forced through."""
    for target in drive(env, path, lead, limit=limit):
        offset = env.block_centre - MIDDLE
        outwards = (target - env.agent_position) * np.sign(offset) > 0
        if (outwards & (np.abs(offset) > WALL_DISTANCE)).any() and touches(env, target):
            return
        yield target


def touches(env: PushT, target: Point) -> bool:
    """Whether the agent would reach the block on its way to `target`."""
    way = np.linspace(env.agent_position, target, 9)
    return bool(clearance(in_block_frame(way, env.block_pose)).min() < AGENT_RADIUS + 2)


def cross(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Straight from here across the block to a point behind it."""
    offset = env.block_centre + rng.normal(0, 25, 2) - env.agent_position
    distance = max(float(np.linalg.norm(offset)), 1.0)
    end = env.agent_position + offset * (1 + rng.uniform(10, 140) / distance)
    end = end.clip(40, WORLD_SIZE - 40)
    yield from drive_inside(env, [end], random_lead(rng), limit=16)


def roam(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """To a random place on the table, round the block."""
    goal = rng.uniform(*TABLE, 2)
    path = way_round(env.agent_position, goal, env.block_pose)
    yield from drive(env, path, rng.uniform(60, 500), limit=20)


def pause(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Hold still for a moment."""
    target = env.agent_position
    for _ in range(int(rng.integers(2, 7))):
        yield target
