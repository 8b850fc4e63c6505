"""Where to push the T-shaped block, how to get there, and how to drive along a path.

Motions are generators of targets: they read the environment before every step and end when done.
All lengths are world units; points of the block's own frame have its origin at the middle of the
bar's outer side.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from worldmodel.envs.pusht.scene import AGENT_RADIUS, WORLD_SIZE, placed

Point = Float[np.ndarray, "2"]
RECTANGLES = np.array([[[-60.0, 0.0], [60.0, 30.0]], [[-15.0, 30.0], [15.0, 120.0]]])
OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], float)
HULL_POINTS = np.array([[-86, -26], [86, -26], [86, 56], [41, 146], [-41, 146], [-86, 56]], float)
SAFE_CLEARANCE = AGENT_RADIUS + 5.0
CONTACT_GAP = 4.0
TABLE = (14.0, WORLD_SIZE - 14.0)  # where the agent's centre stays inside the walls
PATH_SAMPLES = np.linspace(0, 1, 17)[:, None]


@runtime_checkable
class Table(Protocol):
    """An environment whose agent is a disc on a table."""

    @property
    def agent_position(self) -> Point:
        """Centre of the agent's disc in world units."""
        ...


def turned(points: Float[np.ndarray, "*n 2"], angle: float) -> np.ndarray:
    """Vectors turned by `angle` radians."""
    return placed(points, np.array([0.0, 0.0, angle]))


def in_block_frame(points: Float[np.ndarray, "*n 2"], pose: Float[np.ndarray, "3"]) -> np.ndarray:
    """Points of the world seen from the block; the inverse of `placed`."""
    return turned(points - pose[:2], -pose[2])


def nearest_on_block(points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """The nearest point of the block to every point, all in the block's frame."""
    nearest = np.clip(points[:, None], RECTANGLES[:, 0], RECTANGLES[:, 1])
    squared = ((points[:, None] - nearest) ** 2).sum(-1)
    return nearest[np.arange(len(points)), squared.argmin(1)]


def clearance(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """Distance of points to the block, in the block's frame; 0 inside."""
    return np.linalg.norm(points - nearest_on_block(points), axis=-1)


def contact(place: float) -> tuple[Point, Point]:
    """Point and inward direction on the block's outline.

    Args:
        place: Where along the outline, 0..1, in the block's frame.
    """
    sides = np.roll(OUTLINE, -1, axis=0) - OUTLINE
    lengths = np.linalg.norm(sides, axis=1)
    ends = np.cumsum(lengths)
    along = place * ends[-1]
    index = min(int(np.searchsorted(ends, along, side="right")), len(ends) - 1)
    direction = sides[index] / lengths[index]
    point = OUTLINE[index] + direction * (along - ends[index] + lengths[index])
    return point, np.array([-direction[1], direction[0]])


def before_contact(point: Point, inwards: Point) -> Point:
    """Where the agent's centre stands just before it touches the block at `point`."""
    return point - inwards * (AGENT_RADIUS + CONTACT_GAP)


def way_round(start: Point, goal: Point, pose: Float[np.ndarray, "3"]) -> list[Point]:
    """Waypoints from `start` to `goal` that keep clear of a block in `pose`.

    The shortest way over the corners of a hull around the block (Dijkstra); straight where nothing
    is in between. An agent that touches the block steps back from it first.
    """
    first, last = in_block_frame(np.stack([start, goal]), pose)
    nearest = nearest_on_block(first[None])[0]
    gap = float(np.linalg.norm(first - nearest))
    path = []
    if 0 < gap < SAFE_CLEARANCE and np.linalg.norm(last - first) > 2 * AGENT_RADIUS:
        first = nearest + (first - nearest) * (SAFE_CLEARANCE + 6) / gap
        path.append(first)
    path += [*shortest_path(np.concatenate([[first], HULL_POINTS, [last]]), pose), last]
    return [placed(point, pose).clip(*TABLE) for point in path]


def shortest_path(nodes: Float[np.ndarray, "n 2"], pose: Float[np.ndarray, "3"]) -> list[Point]:
    """Inner nodes of the shortest clear way from the first node to the last."""
    segments = nodes[:, None, None] * (1 - PATH_SAMPLES) + nodes[None, :, None] * PATH_SAMPLES
    gaps = clearance(segments.reshape(-1, 2)).reshape(segments.shape[:3]).min(-1)
    ends = clearance(nodes)
    clear = gaps >= np.minimum(SAFE_CLEARANCE, np.minimum(ends[:, None], ends[None])) - 1
    world = placed(nodes, pose)
    outside = (world < TABLE[0]).any(-1) | (world > TABLE[1]).any(-1)
    outside[[0, -1]] = False
    clear[outside], clear[:, outside] = False, False
    lengths = np.where(clear, np.linalg.norm(nodes[:, None] - nodes[None], axis=-1), np.inf)
    distance, previous = lengths[0].copy(), np.zeros(len(nodes), int)
    open_nodes = np.ones(len(nodes), bool)
    open_nodes[0] = False
    while open_nodes[-1]:
        reachable = np.where(open_nodes, distance, np.inf)
        near = int(reachable.argmin())
        if not np.isfinite(reachable[near]):
            return []  # no clear way: go straight
        open_nodes[near] = False
        better = open_nodes & (distance[near] + lengths[near] < distance)
        distance[better] = distance[near] + lengths[near][better]
        previous[better] = near
    path, node = [], int(previous[-1])
    while node:
        path.insert(0, nodes[node])
        node = int(previous[node])
    return path


def towards(start: Point, goal: Point, lead: float) -> Point:
    """The goal, or the point `lead` units ahead on the way to it when that is nearer."""
    offset = goal - start
    distance = float(np.linalg.norm(offset))
    return goal if distance <= lead else start + offset * (lead / distance)


def drive(
    env: Table, path: Sequence[Point], lead: float, *, limit: int = 40, reach: float | None = None
) -> Iterator[Point]:
    """Targets along a path, at most `lead` units ahead of the agent, which sets its speed.

    Ends when the agent is within `reach` of the last waypoint (by default, a faster agent has a
    larger reach), or after `limit` steps.
    """
    waypoints = list(path)
    near = max(8.0, 0.15 * min(lead, 150.0)) if reach is None else reach
    for _ in range(limit):
        while waypoints and np.linalg.norm(waypoints[0] - env.agent_position) < near:
            waypoints.pop(0)
        if not waypoints:
            return
        yield towards(env.agent_position, waypoints[0], lead)
