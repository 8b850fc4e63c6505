"""Scripted experts for both PushT tasks, and the behaviours that PushT is recorded with."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pymunk
from gym_pusht.envs.pusht import PushTEnv
from jaxtyping import Float

from worldmodel.envs.behaviour import Behaviour
from worldmodel.envs.pusht.env import PushT
from worldmodel.envs.pusht.play import play
from worldmodel.envs.pusht.pushing import (
    CONTACT_GAP,
    OUTLINE,
    TABLE,
    Point,
    before_contact,
    clearance,
    contact,
    drive,
    in_block_frame,
    nearest_on_block,
    towards,
    turned,
    way_round,
)
from worldmodel.envs.pusht.scene import AGENT_RADIUS, WALL, placed
from worldmodel.envs.pusht.shift import faster
from worldmodel.envs.shift import NOISE

NOISE_RANGE = (8.0, 60.0)  # world units
LEAD = 80.0
TRAVEL_LEAD = 160.0
NUM_FROM_HERE = 30
NUM_CANDIDATES = 120
MAX_PUSH = 150.0  # world units
NUM_LOOKS = 12
SUBSTEPS_PER_LOOK = 3
SUBSTEP = 0.01
WAY_COST = 0.02  # world units of error that cost as much as one unit of detour
HOLD_STEPS = 5
REPLAN_STEPS = 4
POSITION_LEAD = 60.0
ORBIT_RADIUS = 100.0
ORBIT_STEP = 0.6  # radians
TIE_ANGLE = 2.6
PUSH_WIDTH = 30.0


def behave(behaviour: Behaviour, env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Endless targets; a pure function of the environment's states and the generator."""
    if behaviour == "play":
        targets = play(env, rng)
    elif env.name == "pusht-position":
        targets = push_to_position(env)
    else:
        targets = push_to_pose(env, rng)
    if env.shift == "agent-speed":
        targets = faster(env, targets)
    if env.shift == "action-noise":
        return with_noise(targets, rng, scale=NOISE)
    return with_noise(targets, rng) if behaviour == "noisy" else targets


def with_noise(targets: Iterator[Point], rng: np.random.Generator, *, scale: float = 1.0) -> Iterator[Point]:
    """Add Gaussian noise to every target, its sigma drawn once, log-uniform in 8..60 units.

    `scale` multiplies sigma.
    """
    sigma = scale * np.exp(rng.uniform(*np.log(NOISE_RANGE)))
    for target in targets:
        yield target + rng.normal(0, sigma, 2)


class PushModel:
    """A second physics space in which straight pushes are tried out."""

    def __init__(self):
        self.space = pymunk.Space()
        self.space.damping = 0.0
        self.agent = PushTEnv.add_circle(self.space, (0, 0), 15)
        self.block, _ = PushTEnv.add_tee(self.space, (256, 256), 0)
        for start, end in zip(WALL, (*WALL[1:], WALL[0]), strict=True):
            self.space.add(PushTEnv.add_segment(self.space, start, end, 2))

    def poses(
        self, start: Point, direction: Point, pose: Float[np.ndarray, "3"], spacing: float
    ) -> Float[np.ndarray, "looks 3"]:
        """The block's poses along a straight push of the agent.

        Args:
            start: Where the agent begins, world units.
            direction: Unit vector of the push.
            pose: The block's pose (x, y, angle) before it.
            spacing: World units of the agent's way between two poses.
        """
        block, agent, step = self.block, self.agent, self.space.step
        block.angle = float(pose[2])
        block.position = float(pose[0]), float(pose[1])
        block.velocity, block.angular_velocity = (0, 0), 0
        agent.position = float(start[0]), float(start[1])
        speed = spacing / (SUBSTEP * SUBSTEPS_PER_LOOK)
        agent.velocity = float(direction[0] * speed), float(direction[1] * speed)
        poses = []
        for _ in range(NUM_LOOKS):
            for _ in range(SUBSTEPS_PER_LOOK):
                step(SUBSTEP)
            poses.append((*block.position, block.angle))
        return np.array(poses)


@dataclass(frozen=True)
class Push:
    """A straight push of the agent's centre, world units.

    Attributes:
        start: Where it begins.
        end: Where it stops.
        score: Error that remains after it, plus the cost of the way.
    """

    start: Point
    end: Point
    score: float


def pose_error(poses: Float[np.ndarray, "n 3"], goal: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n"]:
    """Root mean square distance in world units of the outline's corners to the goal's."""
    cos, sin = np.cos(poses[:, 2, None]), np.sin(poses[:, 2, None])
    x = poses[:, 0, None] + cos * OUTLINE[:, 0] - sin * OUTLINE[:, 1]
    y = poses[:, 1, None] + sin * OUTLINE[:, 0] + cos * OUTLINE[:, 1]
    target = placed(OUTLINE, goal)
    return np.sqrt(((x - target[:, 0]) ** 2 + (y - target[:, 1]) ** 2).mean(-1))


def candidates(env: PushT, rng: np.random.Generator) -> Iterator[tuple[Point, Point, float]]:
    """Start, direction and way to the start of random pushes; the first ones start from here."""
    agent, pose = env.agent_position, env.block_pose
    here = in_block_frame(agent[None], pose)
    if clearance(here)[0] < 2 * AGENT_RADIUS:
        inwards = nearest_on_block(here)[0] - here[0]
        inwards = turned(inwards / max(float(np.linalg.norm(inwards)), 1e-6), pose[2])
        for _ in range(NUM_FROM_HERE):
            yield agent, turned(inwards, rng.uniform(-1.1, 1.1)), 0.0
    for _ in range(NUM_CANDIDATES):
        point, inwards = contact(rng.uniform())
        start = before_contact(point, inwards)
        direction = turned(inwards, pose[2] + rng.uniform(-0.8, 0.8))
        world = placed(start, pose)
        if clearance(start[None])[0] > AGENT_RADIUS and (world == world.clip(*TABLE)).all():
            yield world, direction, float(np.linalg.norm(world - agent))


def best_push(model: PushModel, env: PushT, rng: np.random.Generator) -> Push:
    """Random shooting: the push, and where to stop it, that leaves the smallest error."""
    pose, goal = env.block_pose, env.goal_pose
    length = min(1.5 * float(pose_error(pose[None], goal)[0]) + AGENT_RADIUS + CONTACT_GAP, MAX_PUSH)
    along = np.linspace(0, length, NUM_LOOKS + 1)[1:]
    best = Push(env.agent_position, env.agent_position, np.inf)
    for start, direction, way in candidates(env, rng):
        errors = pose_error(model.poses(start, direction, pose, length / NUM_LOOKS), goal)
        scores = errors + WAY_COST * (way + along)
        look = int(scores.argmin())
        if scores[look] < best.score:
            best = Push(start, start + direction * along[look], float(scores[look]))
    return best


def push_to_pose(env: PushT, rng: np.random.Generator) -> Iterator[Point]:
    """Bring the block into the goal's pose: go round, push straight, look again.

    After a success it holds still for a moment and then goes on with play, so that the agent is never idle.
    """
    model = PushModel()
    while not env.solved:
        push = best_push(model, env, rng)
        way = way_round(env.agent_position, push.start, env.block_pose)
        yield from drive(env, way, TRAVEL_LEAD, limit=12, reach=6.0)
        yield towards(env.agent_position, push.end, LEAD)
        yield from drive(env, [push.end], LEAD, limit=REPLAN_STEPS - 1, reach=2.0)
    yield from itertools.repeat(env.agent_position, HOLD_STEPS)
    yield from play(env, rng)


def push_to_position(env: PushT) -> Iterator[Point]:
    """Bring the block's centre of gravity to the goal's, see `towards_place`; hold still when that is done."""
    while True:
        yield env.agent_position if env.solved else towards_place(env, env.goal_centre)


def towards_place(env: PushT, place: Point) -> Point:
    """The next target on the way to bring the block's centre of gravity to a place: go round, then push straight.

    It depends on the current state alone, so that a policy can copy it. Behind the block, as seen
    from the place, the agent pushes. Anywhere else it moves on a circle around the block, the shorter
    way; when it is about opposite, both ways are about as long, and it always takes the same one.
    """
    offset = place - env.block_centre
    forwards = offset / np.linalg.norm(offset)
    seen = env.agent_position - env.block_centre
    behind = -float(seen @ forwards)
    beside = float(seen[1] * forwards[0] - seen[0] * forwards[1])
    if behind > 0 and abs(beside) < PUSH_WIDTH:
        sideways = np.array([-forwards[1], forwards[0]])
        aim = env.agent_position + POSITION_LEAD * forwards - 1.5 * beside * sideways
    else:
        angle = np.arctan2(-beside, behind)  # 0 behind the block
        if angle < -TIE_ANGLE:
            angle += 2 * np.pi
        step = np.clip(angle, -ORBIT_STEP, ORBIT_STEP)
        aim = env.block_centre - ORBIT_RADIUS * turned(forwards, angle - step)
    return towards(env.agent_position, aim.clip(*TABLE), POSITION_LEAD)
