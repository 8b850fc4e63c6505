"""Controlled shifts of PushT, one change each, to measure world models out of distribution."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from worldmodel.envs.pusht.scene import WORLD_SIZE, placed

SHIFTS = ("start-region", "agent-speed", "action-noise", "turned-actions")
USUAL_START = (100.0, 400.0)  # the block's place along x and y in gym-pusht
OUTER_START = (40.0, 472.0)
CLEAR_OF_WALLS = (12.0, WORLD_SIZE - 12.0)
SPEED = 2.0
TURN = np.pi / 3

Point = Float[np.ndarray, "2"]


def outer_start(corners: Float[np.ndarray, "n 2"], centre: Point, rng: np.random.Generator) -> Float[np.ndarray, "5"]:
    """A start of the shift `start-region`: the block lies where it does not usually start, clear of the walls.

    Its place lies outside the square 100..400 that gym-pusht draws from, in x or in y; the agent
    is drawn as in gym-pusht. As in gym-pusht, the block is put in its place first and then turned
    about its centre of gravity.

    Args:
        corners: The block's corners in its own frame, world units.
        centre: Its centre of gravity there.
        rng: The environment's generator.

    Returns:
        Agent x and y, block x and y in world units, the block's angle in radians.
    """
    agent = rng.integers(50, 450, size=2)
    while True:
        place = rng.uniform(*OUTER_START, size=2)
        angle = rng.uniform(-np.pi, np.pi)
        outside = (place < USUAL_START[0]).any() or (place > USUAL_START[1]).any()
        world = placed(corners - centre, np.array([*(place + centre), angle]))
        if outside and (world == world.clip(*CLEAR_OF_WALLS)).all():
            return np.array([*agent, *place, angle])


def faster(env, targets: Iterator[Point]) -> Iterator[Point]:
    """The targets of the shift `agent-speed`: twice as far from the agent, so that it moves twice as fast.

    gym-pusht's control is a spring and a damper: the speed is proportional to the distance of the
    target. Physics stay as they are; targets beyond the table end at its edge.
    """
    for target in targets:
        yield env.agent_position + SPEED * (target - env.agent_position)


def turned_action(agent: Point, target: Point) -> Point:
    """The target that the agent follows under the shift `turned-actions`.

    The way from the agent to the target is turned by 60 degrees, counterclockwise in a frame whose y points up, which
    is clockwise in the pictures; so acts a robot whose base has been turned, or whose camera was calibrated wrong.
    """
    cos, sin = np.cos(TURN), np.sin(TURN)
    return agent + np.array([[cos, -sin], [sin, cos]]) @ (target - agent)
