"""PushT-Sand: a heap of discs."""

import numpy as np
import pymunk
from jaxtyping import Float

from worldmodel.envs.materials.env import FRICTION, PIECE_MASS, MaterialTable
from worldmodel.envs.pusht.scene import WORLD_SIZE

DISCS, MORE_DISCS = 80, 120
RADIUS = 7.0  # world units
SPACING = 2 * RADIUS + 1.0
LONGEST = 1.8  # the longer axis of a heap, where 1 is a circle's
PLACES = (140.0, WORLD_SIZE - 140.0)  # of the middle of a heap
SAND_COLOUR, SAND_EDGE_COLOUR = (214, 172, 98), (172, 132, 66)


class PushTSand(MaterialTable):
    """A heap of 80 discs; see `MaterialTable` for observations, actions and reward.

    Success is half of the discs in the green disc: a single finger scatters the rest. The shift `more-discs` has 120
    discs of the same size.
    """

    name = "pusht-sand"
    task = "Push half of the sand into the green disc."
    shifts = ("more-discs",)
    success_share = 0.5

    def lay(self) -> list[pymunk.Body]:
        """Lay a heap of random outline."""
        count = MORE_DISCS if self.shift == "more-discs" else DISCS
        return [self._disc(place) for place in heap(count, self.np_random)]

    def draw(self) -> None:
        """Draw the discs."""
        self.scene.discs(self.pieces, RADIUS, SAND_COLOUR, SAND_EDGE_COLOUR)

    def _disc(self, place: Float[np.ndarray, "2"]) -> pymunk.Body:
        body = pymunk.Body(PIECE_MASS, pymunk.moment_for_circle(PIECE_MASS, 0, RADIUS))
        body.position = tuple(place.tolist())
        shape = pymunk.Circle(body, RADIUS)
        shape.friction = FRICTION
        self.space.add(body, shape)
        return body


def heap(count: int, rng: np.random.Generator) -> Float[np.ndarray, "n 2"]:
    """Places of discs that touch nobody: those of a turned hexagonal grid that lie nearest to the middle of an ellipse.

    Args:
        count: Number of discs.
        rng: The environment's generator.

    Returns:
        Their centres in world units, within the table.
    """
    rows, columns = np.meshgrid(np.arange(-15, 16), np.arange(-15, 16), indexing="ij")
    grid = np.stack([(columns + 0.5 * (rows % 2)).ravel(), (rows * np.sqrt(0.75)).ravel()], axis=1) * SPACING
    stretch = np.sqrt(rng.uniform(1, LONGEST))
    axis, turn = rng.uniform(-np.pi, np.pi, 2)
    away = np.hypot(*(turned(grid, axis) / np.array([stretch, 1 / stretch])).T)
    nearest = grid[np.argsort(away, kind="stable")[:count]]
    return turned(nearest, turn) + rng.uniform(*PLACES, 2)


def turned(points: Float[np.ndarray, "n 2"], angle: float) -> Float[np.ndarray, "n 2"]:
    """Points turned about the origin by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])
