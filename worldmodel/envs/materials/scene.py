"""Drawing the table with loose material: the canvas and the cameras of PushT, with a round goal."""

import cv2
import numpy as np
from jaxtyping import Float

from worldmodel.envs.pusht.scene import (
    AGENT_COLOUR,
    AGENT_EDGE_COLOUR,
    AGENT_RADIUS,
    CANVAS_SIZE,
    EDGE_WIDTH,
    GOAL_COLOUR,
    SPREAD,
    SUBPIXEL_BITS,
    WORLD_SIZE,
    Scene,
    canvas_points,
)

Colour = tuple[int, int, int]
Points = Float[np.ndarray, "n 2"]


def disc(picture: np.ndarray, centre: Float[np.ndarray, "2"], radius: float, colour: Colour) -> None:
    """Fill a disc; centre and radius in world units."""
    fixed = round((radius - SPREAD) * CANVAS_SIZE / WORLD_SIZE * (1 << SUBPIXEL_BITS))
    cv2.circle(picture, canvas_points(centre[None])[0].tolist(), fixed, colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


class MaterialScene(Scene):
    """The picture of one state of the table, from above; the goal is a green disc.

    Args:
        goal: Centre (x, y) of the goal in world units.
        radius: Its radius in world units.
        size: Side of the square camera pictures in pixels, 16..256.
    """

    def __init__(self, goal: Float[np.ndarray, "2"], radius: float, *, size: int = 64):
        super().__init__([], np.zeros(3), size=size)
        disc(self.background, goal, radius, GOAL_COLOUR)

    def clear(self, agent: Float[np.ndarray, "2"]) -> None:
        """Begin a picture with the empty table; `agent` is where the wrist camera will look."""
        np.copyto(self.picture, self.background)
        self.agent = np.asarray(agent, np.float64)

    def discs(self, centres: Points, radius: float, colour: Colour, edge: Colour) -> None:
        """Draw discs with an edge; lengths in world units."""
        for centre in centres:
            disc(self.picture, centre, radius + EDGE_WIDTH, edge)
            disc(self.picture, centre, radius, colour)

    def cord(self, points: Points, radius: float, colour: Colour, edge: Colour) -> None:
        """Draw a line through points, with an edge; `radius` is half its width, in world units."""
        path = canvas_points(points)[None]
        for half, filling in ((radius + EDGE_WIDTH, edge), (radius, colour)):
            width = max(1, round(2 * half * CANVAS_SIZE / WORLD_SIZE) - 1)  # anti-aliasing adds half a pixel each side
            cv2.polylines(self.picture, path, False, filling, width, cv2.LINE_AA, SUBPIXEL_BITS)

    def finger(self) -> None:
        """Draw the agent on top."""
        disc(self.picture, self.agent, AGENT_RADIUS, AGENT_EDGE_COLOUR)
        disc(self.picture, self.agent, AGENT_RADIUS - 4, AGENT_COLOUR)
