"""PushT-Rope: a chain of jointed segments."""

from itertools import pairwise

import numpy as np
import pymunk
from jaxtyping import Float

from worldmodel.envs.materials.env import FRICTION, PIECE_MASS, MaterialTable
from worldmodel.envs.pusht.scene import BLOCK_COLOUR, BLOCK_EDGE_COLOUR, WORLD_SIZE

SEGMENTS, LONG_SEGMENTS = 24, 36
LENGTH, RADIUS = 12.0, 6.0  # of a segment, world units
LARGEST_BEND = 0.9  # radians between neighbours
CURVATURE = 0.12  # radians; standard deviation of the bends of a start
PERSISTENCE = 0.9
MARGIN = 60.0  # world units between a start and the table's side
CLEARANCE = 2 * RADIUS + 6.0
FIRST_END, SECOND_END = (205, 62, 62), (190, 50, 170)
END_RADIUS = 9.0

Path = Float[np.ndarray, "n 2"]


class PushTRope(MaterialTable):
    """A rope of 24 jointed segments; see `MaterialTable` for observations, actions and reward.

    The rope is limp: a segment turns freely against its neighbours, up to 0.9 rad, and does not pass through others.
    One end is marked red and the other one magenta. Success is nine tenths of the segments in the green disc. The shift
    `longer-rope` has 36 segments of the same length.
    """

    name = "pusht-rope"
    task = "Push the rope into the green disc."
    shifts = ("longer-rope",)
    success_share = 0.9

    def lay(self) -> list[pymunk.Body]:
        """Lay a smooth random curve that does not cross itself."""
        count = LONG_SEGMENTS if self.shift == "longer-rope" else SEGMENTS
        path = curve(count, self.np_random)
        while not lies_free(path):
            path = curve(count, self.np_random)
        bodies = [self._segment(start, end) for start, end in pairwise(path)]
        for first, second in pairwise(bodies):
            joint = pymunk.PivotJoint(first, second, (LENGTH / 2, 0), (-LENGTH / 2, 0))
            limit = pymunk.RotaryLimitJoint(first, second, -LARGEST_BEND, LARGEST_BEND)
            joint.collide_bodies = limit.collide_bodies = False
            self.space.add(joint, limit)
        return bodies

    def draw(self) -> None:
        """Draw the rope and its ends."""
        path = self.path
        self.scene.cord(path, RADIUS, BLOCK_COLOUR, BLOCK_EDGE_COLOUR)
        for end, colour in ((path[:1], FIRST_END), (path[-1:], SECOND_END)):
            self.scene.discs(end, END_RADIUS, colour, colour)

    @property
    def path(self) -> Path:
        """The ends and the joints in order, world units."""
        ends = [body.local_to_world((-LENGTH / 2, 0)) for body in self.bodies]
        return np.array([*ends, self.bodies[-1].local_to_world((LENGTH / 2, 0))])

    def _segment(self, start: Float[np.ndarray, "2"], end: Float[np.ndarray, "2"]) -> pymunk.Body:
        half = (-LENGTH / 2, 0), (LENGTH / 2, 0)
        body = pymunk.Body(PIECE_MASS, pymunk.moment_for_segment(PIECE_MASS, *half, RADIUS))
        body.position = tuple(((start + end) / 2).tolist())
        body.angle = float(np.arctan2(*(end - start)[::-1]))
        shape = pymunk.Segment(body, *half, RADIUS)
        shape.friction = FRICTION
        self.space.add(body, shape)
        return body


def curve(segments: int, rng: np.random.Generator) -> Path:
    """A random curve of segments of equal length, moved to a random place on the table.

    The bends between neighbours are an autoregressive process, so that the curve winds smoothly.
    """
    bends = np.zeros(segments)
    for index in range(1, segments):
        fresh = CURVATURE * np.sqrt(1 - PERSISTENCE**2) * rng.standard_normal()
        bends[index] = PERSISTENCE * bends[index - 1] + fresh
    headings = rng.uniform(-np.pi, np.pi) + np.cumsum(bends)
    steps = LENGTH * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
    middle = (path.min(0) + path.max(0)) / 2
    return path - middle + rng.uniform(MARGIN, WORLD_SIZE - MARGIN, 2)


def lies_free(path: Path) -> bool:
    """Whether a curve keeps away from the walls and from itself."""
    if not (path == path.clip(MARGIN / 2, WORLD_SIZE - MARGIN / 2)).all():
        return False
    distance = np.linalg.norm(path[:, None] - path[None], axis=-1)
    apart = np.abs(np.arange(len(path))[:, None] - np.arange(len(path))[None]) > 3
    return bool(distance[apart].min() > CLEARANCE)
