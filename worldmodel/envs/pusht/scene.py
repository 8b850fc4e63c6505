"""Drawing PushT: one anti-aliased canvas per step, two cameras cut out of it."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

WORLD_SIZE = 512  # world units along a side; the reference draws one pixel per unit
CANVAS_SIZE = 256
WRIST_SIZE = 96
MARGIN = WRIST_SIZE // 2 + 2  # background around the canvas, so that the wrist crop never ends
AGENT_RADIUS = 15.0
BLOCK_COLOUR = (143, 163, 184)
BLOCK_EDGE_COLOUR = (119, 136, 153)  # LightSlateGray; the reference fills with 1.2 times that
AGENT_COLOUR = (78, 126, 255)
AGENT_EDGE_COLOUR = (65, 105, 225)  # RoyalBlue
GOAL_COLOUR = (144, 238, 144)  # LightGreen
WALL_COLOUR = (211, 211, 211)  # LightGray
BACKGROUND_COLOUR = (255, 255, 255)
WALL = ((5.0, 5.0), (506.0, 5.0), (506.0, 506.0), (5.0, 506.0))
EDGE_WIDTH = 2.0  # world units drawn on either side of a line, as in the reference
SPREAD = 1.2  # world units by which OpenCV's anti-aliasing widens what it fills
SUBPIXEL_BITS = 6

Polygon = Float[np.ndarray, "corners 2"]


def canvas_points(world: Float[np.ndarray, "n 2"]) -> np.ndarray:
    """Fixed-point canvas coordinates of world positions; pixel i is centred on i + 0.5."""
    pixels = world * (CANVAS_SIZE / WORLD_SIZE) - 0.5 + MARGIN
    return np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def grown(rectangle: Polygon, margin: float) -> np.ndarray:
    """Move the sides of a rectangle outwards by `margin` world units once it is filled."""
    side = rectangle - np.roll(rectangle, 1, axis=0)
    outwards = side / np.linalg.norm(side, axis=1, keepdims=True)
    return rectangle + (margin - SPREAD) * (outwards - np.roll(outwards, -1, axis=0))


def placed(points: Float[np.ndarray, "*n 2"], pose: Float[np.ndarray, "3"]) -> np.ndarray:
    """Turn points of a body's own frame by its angle and move them to its (x, y)."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    return points @ np.array([[cos, sin], [-sin, cos]]) + pose[:2]


class Scene:
    """The picture of one state of the world, from above.

    Args:
        block: The rectangles that make up the block, in its own frame, world units.
        goal: Pose (x, y, angle) in which the block lies on the goal.
        size: Side of the square camera pictures in pixels, 16..256.
    """

    def __init__(self, block: Sequence[Polygon], goal: Float[np.ndarray, "3"], *, size: int = 64):
        if not 16 <= size <= CANVAS_SIZE:
            raise ValueError(f"the cameras are 16 to {CANVAS_SIZE} pixels a side, got {size}")
        self.size = size
        side = CANVAS_SIZE + 2 * MARGIN
        self.background = np.full((side, side, 3), BACKGROUND_COLOUR, np.uint8)
        wall = np.array(WALL)
        self._fill(self.background, grown(wall, EDGE_WIDTH), WALL_COLOUR)
        self._fill(self.background, grown(wall, -EDGE_WIDTH), BACKGROUND_COLOUR)
        for rectangle in block:
            self._fill(self.background, placed(grown(rectangle, SPREAD), goal), GOAL_COLOUR)
        self.layers = [(grown(part, EDGE_WIDTH), BLOCK_EDGE_COLOUR) for part in block]
        self.layers += [(grown(part, -EDGE_WIDTH), BLOCK_COLOUR) for part in block]
        self.picture = self.background.copy()
        self.agent = np.zeros(2)

    @staticmethod
    def _fill(picture: np.ndarray, rectangle: np.ndarray, colour: tuple[int, int, int]) -> None:
        corners = canvas_points(rectangle)
        cv2.fillConvexPoly(picture, corners, colour, cv2.LINE_AA, SUBPIXEL_BITS)

    def _disc(self, radius: float, colour: tuple[int, int, int]) -> None:
        centre = canvas_points(self.agent[None])[0].tolist()
        pixels = (radius - SPREAD) * CANVAS_SIZE / WORLD_SIZE
        fixed = round(pixels * (1 << SUBPIXEL_BITS))
        cv2.circle(self.picture, centre, fixed, colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)

    def draw(self, agent: Float[np.ndarray, "2"], pose: Float[np.ndarray, "3"]) -> None:
        """Draw the agent's disc at (x, y) and the block in its pose (x, y, angle)."""
        np.copyto(self.picture, self.background)
        self.agent = np.asarray(agent, np.float64)
        for rectangle, colour in self.layers:
            self._fill(self.picture, placed(rectangle, pose), colour)
        self._disc(AGENT_RADIUS, AGENT_EDGE_COLOUR)
        self._disc(AGENT_RADIUS - 4, AGENT_COLOUR)

    @property
    def canvas(self) -> UInt8[np.ndarray, "256 256 3"]:
        """The whole canvas; a view that the next `draw` overwrites."""
        inside = slice(MARGIN, MARGIN + CANVAS_SIZE)
        return self.picture[inside, inside]

    def top(self) -> UInt8[np.ndarray, "size size 3"]:
        """The whole canvas, averaged down."""
        return cv2.resize(self.canvas, (self.size, self.size), interpolation=cv2.INTER_AREA)

    def wrist(self) -> UInt8[np.ndarray, "size size 3"]:
        """The 96 canvas pixels around the agent; the crop moves by fractions of a pixel."""
        centre = self.agent * (CANVAS_SIZE / WORLD_SIZE) - 0.5 + MARGIN
        crop = cv2.getRectSubPix(self.picture, (WRIST_SIZE, WRIST_SIZE), centre.tolist())
        return cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)
