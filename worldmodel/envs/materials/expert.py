"""Scripts for loose material: gather it in the goal, and play with it."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from worldmodel.envs.behaviour import Behaviour
from worldmodel.envs.materials.env import GOAL, GOAL_RADIUS, MaterialTable
from worldmodel.envs.pusht.expert import HOLD_STEPS, with_noise
from worldmodel.envs.pusht.play import MIDDLE, pause, random_lead
from worldmodel.envs.pusht.pushing import TABLE, Point, drive, turned
from worldmodel.envs.pusht.scene import AGENT_RADIUS, WORLD_SIZE

EDGE = 32.0  # strokes end this far from the table's side, so that little is squeezed against a wall
MOTIONS, SHARES = ("stroke", "roam", "pause"), (0.84, 0.12, 0.04)
RUN_UP = (AGENT_RADIUS + 10.0, 90.0)  # world units before the piece where a stroke begins
FOLLOW_THROUGH = (20.0, 180.0)  # and after it, where the stroke ends
CENTRING = 1.2  # how much a stroke at the table's edge is turned to the middle
TRAVEL_LEAD, PUSH_LEAD = 200.0, 70.0
RING_GAP, RING_STEP = 40.0, 0.6  # world units between the ring on which the agent goes round and the material; radians
FAR_FIRST = 30.0  # world units; the smaller, the more surely the farthest piece is pushed first
INNER = 0.4  # a push ends at this share of the goal's radius from its centre


def behave(behaviour: Behaviour, env: MaterialTable, rng: np.random.Generator) -> Iterator[Point]:
    """Endless targets; a pure function of the environment's states and the generator."""
    targets = play(env, rng) if behaviour == "play" else gather(env, rng)
    return with_noise(targets, rng) if behaviour == "noisy" else targets


def play(env: MaterialTable, rng: np.random.Generator) -> Iterator[Point]:
    """Endless targets: random strokes through the material, free motion, pauses."""
    motions = {"stroke": stroke, "roam": roam, "pause": pause}
    while True:
        yield from motions[str(rng.choice(MOTIONS, p=SHARES))](env, rng)


def stroke(env: MaterialTable, rng: np.random.Generator) -> Iterator[Point]:
    """Go to one side of a random piece and on through it, with a bend on the way."""
    piece = env.pieces[rng.integers(len(env.bodies))]
    inwards = (MIDDLE - piece) / (WORLD_SIZE / 2)
    angle = rng.uniform(-np.pi, np.pi)
    way = np.array([math.cos(angle), math.sin(angle)]) + CENTRING * inwards * np.linalg.norm(inwards)
    way = way / max(float(np.linalg.norm(way)), 1e-6)
    start = on_table(piece - rng.uniform(*RUN_UP) * way)
    yield from drive(env, [start], rng.uniform(120, 450), limit=10)
    for _ in range(int(rng.integers(1, 4))):
        end = env.agent_position + way * (rng.uniform(*FOLLOW_THROUGH) + AGENT_RADIUS)
        yield from drive(env, [on_table(end)], random_lead(rng), limit=12)
        way = turned(way, rng.uniform(-0.8, 0.8))


def roam(env: MaterialTable, rng: np.random.Generator) -> Iterator[Point]:
    """Move to a random place on the table, through whatever lies there."""
    yield from drive(env, [on_table(rng.uniform(*TABLE, 2))], rng.uniform(90, 500), limit=16)


def gather(env: MaterialTable, rng: np.random.Generator) -> Iterator[Point]:
    """Bring the material into the goal: go round, push a piece from far out to the middle, look again.

    After a success it holds still for a moment and then goes on with play, so that the agent is never idle.
    """
    while not env.solved:
        start = behind_a_piece(env, rng)
        if start is None:
            yield from stroke(env, rng)
            continue
        yield from drive(env, way_round(env.agent_position, start), TRAVEL_LEAD, limit=16)
        outwards = (start - GOAL) / np.linalg.norm(start - GOAL)
        end = GOAL + INNER * GOAL_RADIUS * turned(outwards, rng.uniform(-0.5, 0.5))
        yield from drive(env, [end], PUSH_LEAD, limit=16)
    yield from itertools.repeat(env.agent_position, HOLD_STEPS)
    yield from play(env, rng)


def behind_a_piece(env: MaterialTable, rng: np.random.Generator) -> Point | None:
    """Where a push begins: beyond a piece that lies outside the goal, rather a far one.

    `None` where all such places lie in the walls: what lies on a wall cannot be pushed off it.
    """
    away = env.pieces - GOAL
    distance = np.linalg.norm(away, axis=1)
    starts = GOAL + away * ((distance + RING_GAP) / np.maximum(distance, 1))[:, None]
    good = (distance > GOAL_RADIUS) & (starts == starts.clip(*TABLE)).all(1)
    if not good.any():
        return None
    return starts[np.where(good, distance + FAR_FIRST * rng.gumbel(size=len(distance)), -np.inf).argmax()]


def way_round(start: Point, goal: Point) -> list[Point]:
    """Waypoints from `start` to `goal` on a ring around the green disc, the shorter way.

    The ring is as far out as `goal`; the agent first moves straight out to it.
    """
    first, last = start - GOAL, goal - GOAL
    radius = max(float(np.linalg.norm(last)), GOAL_RADIUS + RING_GAP)
    angle = math.atan2(first[1], first[0])
    turn = (math.atan2(last[1], last[0]) - angle + np.pi) % (2 * np.pi) - np.pi
    steps = np.linspace(0, 1, max(2, math.ceil(abs(turn) / RING_STEP) + 1))
    ring = [GOAL + radius * np.array([math.cos(angle + s * turn), math.sin(angle + s * turn)]) for s in steps]
    return [on_table(point) for point in ring] + [goal]


def on_table(points: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
    """The nearest points that keep clear of the walls."""
    return points.clip(EDGE, WORLD_SIZE - EDGE)
