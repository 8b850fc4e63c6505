"""Play: aimless motion that touches the block a lot and covers the whole table."""

import math
from collections.abc import Generator, Iterator

import numpy as np

from worldmodel.envs.pusht.env import PushT
from worldmodel.envs.pusht.pushing import (
    TABLE,
    Point,
    Table,
    before_contact,
    clearance,
    contact,
    drive,
    in_block_frame,
    towards,
    turned,
    way_round,
)
from worldmodel.envs.pusht.scene import AGENT_RADIUS, WORLD_SIZE, placed

MIDDLE = np.array([WORLD_SIZE / 2, WORLD_SIZE / 2])
NUM_CONTACTS = 8
FAR_DISTANCE = 150.0
SLOW_DISTANCE = 150.0  # a block this far out along x or y is pushed on with SLOW_LEAD
WALL_DISTANCE = 206.0  # and one this far not at all; flat on a wall it is 204 out
SLOW_LEAD = 60.0
MOTIONS = ("push", "cross", "roam", "pause")
SHARES = (0.74, 0.08, 0.14, 0.04)


def play(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Endless targets: pushes from all sides, dashes across the block, free motion, pauses."""
    motions = {"push": push, "cross": cross, "roam": roam, "pause": pause}
    while True:
        yield from motions[str(rng.choice(MOTIONS, p=SHARES))](env, rng)


def random_lead(rng: np.random.Generator) -> float:
    """How far ahead of the agent the targets lie, from a crawl to a dash (log-uniform)."""
    return math.exp(rng.uniform(math.log(25.0), math.log(300.0)))


def random_contact(env: PushT, rng: np.random.Generator) -> tuple[Point, Point]:
    """Where to stand before a push and the point to push at, on a random side of the block.

    Near places are more likely than far ones; the nearer the block is to a wall, the more likely are
    pushes towards the middle.
    """
    pose, agent = env.block_pose, env.agent_position
    offset = (MIDDLE - env.block_centre) / FAR_DISTANCE
    pushes = []
    for _ in range(NUM_CONTACTS):
        point, inwards = contact(rng.uniform())
        start, aim = placed(before_contact(point, inwards), pose), placed(point, pose)
        centring = float(turned(inwards, pose[2]) @ offset) * float(np.linalg.norm(offset)) ** 2
        way = float(np.linalg.norm(start - agent)) / FAR_DISTANCE
        outside = 100.0 * float((start != start.clip(*TABLE)).any())
        pushes.append((centring - way - outside + rng.gumbel(0, 0.5), start, aim))
    _, start, aim = max(pushes, key=lambda push: push[0])
    return start, aim


def push(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Go round to a random place on the outline and push, with a few turns on the way."""
    start, aim = random_contact(env, rng)
    path = way_round(env.agent_position, start, env.block_pose)
    yield from drive_inside(env, path, rng.uniform(120, 450), limit=14)
    for _ in range(int(rng.integers(3, 10))):
        onwards = turned(aim - env.agent_position, rng.uniform(-0.3, 0.3))
        length = max(float(np.linalg.norm(onwards)), 1.0)
        end = env.agent_position + onwards * (1 + rng.uniform(30, 200) / length)
        leg = drive_inside(env, [end.clip(*TABLE)], random_lead(rng), limit=14)
        if (yield from leg):
            return
        aim = env.block_centre + rng.normal(0, 25, 2)


def drive_inside(env: PushT, path: list[Point], lead: float, limit: int) -> Generator[Point, None, bool]:
    """`drive`, but a block near a wall is pushed outwards slowly, and then no further.

    A block that is pushed further would pass through the wall. Returns whether it ended for that reason.
    """
    for target in drive(env, path, lead, limit=limit):
        offset = env.block_centre - MIDDLE
        outwards = (target - env.agent_position) * np.sign(offset) > 0
        distance = np.where(outwards, np.abs(offset), 0.0).max()
        if distance > SLOW_DISTANCE and touches(env, target):
            if distance > WALL_DISTANCE:
                return True
            target = towards(env.agent_position, target, SLOW_LEAD)
        yield target
    return False


def touches(env: PushT, target: Point) -> bool:
    """Whether the agent would reach the block on its way to `target`."""
    way = np.linspace(env.agent_position, target, 9)
    return bool(clearance(in_block_frame(way, env.block_pose)).min() < AGENT_RADIUS + 2)


def cross(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Move straight across the block to a point behind it."""
    offset = env.block_centre + rng.normal(0, 25, 2) - env.agent_position
    distance = max(float(np.linalg.norm(offset)), 1.0)
    end = env.agent_position + offset * (1 + rng.uniform(10, 140) / distance)
    end = end.clip(40, WORLD_SIZE - 40)
    yield from drive_inside(env, [end], random_lead(rng), limit=16)


def roam(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Move to a random place on the table, round the block."""
    goal = rng.uniform(*TABLE, 2)
    path = way_round(env.agent_position, goal, env.block_pose)
    yield from drive(env, path, rng.uniform(90, 500), limit=16)


def pause(env: Table, rng: np.random.Generator) -> Iterator[Point]:
    """Hold still for a moment."""
    target = env.agent_position
    for _ in range(int(rng.integers(3, 10))):
        yield target
