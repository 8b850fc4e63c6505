"""A table with loose material that the agent of PushT pushes about: what rope and sand have in common."""

from abc import ABC, abstractmethod
from typing import ClassVar

import gymnasium
import numpy as np
import pymunk
from gymnasium import spaces
from jaxtyping import Float, UInt8

from worldmodel.envs.materials.scene import MaterialScene
from worldmodel.envs.pusht.scene import AGENT_RADIUS, WORLD_SIZE
from worldmodel.envs.shift import check_shift

GOAL = np.array([WORLD_SIZE / 2, WORLD_SIZE / 2])
GOAL_RADIUS = 100.0  # world units
LARGEST_START = 0.3  # share of the material that may lie in the goal at the start
WALLS = (5.0, 506.0)  # where the walls' middle lies, as in gym-pusht
WALL_RADIUS, WALL_DEPTH = 2.0, 200.0  # they go on outwards, so that nothing is pushed through
STIFFNESS, DAMPING = 100.0, 20.0  # the agent's PD control
SUBSTEPS, SUBSTEP = 10, 0.01  # seconds
SOLVER_ITERATIONS = 20
PIECE_MASS, FRICTION = 0.1, 0.5
START_CLEARANCE = AGENT_RADIUS + 25.0
AGENT_START = (50, 450)  # world units, as in gym-pusht
Observation = dict[str, np.ndarray]
Pieces = Float[np.ndarray, "n 2"]


class MaterialTable(gymnasium.Env, ABC):
    """Loose material on PushT's table, with PushT's agent, actions and cameras.

    Observations:
        `observation.images.top`: the whole table, uint8 `size size 3`.
        `observation.images.wrist`: the fifth of the table's side around the agent, likewise.
        `observation.state`: the agent's x and y in world units, 0..512, float32.

    An action is the agent's target (x, y) in world units, 0..512, followed for 0.1 s by
    gym-pusht's PD control; targets outside are clipped. The material rests unless it is pushed. The reward is the
    share of its pieces whose centres lie in the green disc, divided by the class's `success_share`, at most 1; success
    (`info["success"]`) is a reward of 1 and terminates. A start is a pure function of the seed, with a share of at most
    0.3.

    Args:
        size: Side of both pictures in pixels, 16..256.
        time_limit: Steps after which an episode is truncated.
        shift: One controlled change, for tests out of distribution, one of the class's `shifts`; empty for none.

    Raises:
        ValueError: There is no such shift, or a number is out of range.
    """

    metadata: ClassVar[dict] = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_names = ("x", "y")
    state_names = ("x", "y")
    name: str
    task: str
    shifts: tuple[str, ...]
    success_share: float
    stops_on_success = False  # recordings go on to the time limit

    def __init__(self, *, size: int = 64, time_limit: int = 120, shift: str = ""):
        check_shift(self.name, shift, self.shifts)
        if time_limit < 1:
            raise ValueError(f"time_limit is at least 1 step, got {time_limit}")
        self.shift, self.time_limit, self.steps = shift, time_limit, 0
        self.render_mode = "rgb_array"
        self.scene = MaterialScene(GOAL, GOAL_RADIUS, size=size)
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = spaces.Box(0, WORLD_SIZE, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {
                "observation.images.top": image,
                "observation.images.wrist": image,
                "observation.state": spaces.Box(0, WORLD_SIZE, (2,), np.float32),
            }
        )

    @abstractmethod
    def lay(self) -> list[pymunk.Body]:
        """Add the material to `self.space`, in a place drawn from `self.np_random`; returns its pieces."""

    @abstractmethod
    def draw(self) -> None:
        """Draw the material into `self.scene`."""

    @property
    def agent_position(self) -> Float[np.ndarray, "2"]:
        """Centre of the agent's disc in world units."""
        return np.array(self.agent.position)

    @property
    def pieces(self) -> Pieces:
        """Centre of every piece of the material in world units."""
        return np.array([body.position for body in self.bodies])

    @property
    def share(self) -> float:
        """Share of the pieces whose centres lie in the goal."""
        return float((np.linalg.norm(self.pieces - GOAL, axis=1) <= GOAL_RADIUS).mean())

    @property
    def solved(self) -> bool:
        """Whether the current state is a success."""
        return self.share >= self.success_share

    def get_obs(self) -> Observation:
        """Draw the current state and return both pictures and the agent's position."""
        self.scene.clear(self.agent_position)
        self.draw()
        self.scene.finger()
        return {
            "observation.images.top": self.scene.top(),
            "observation.images.wrist": self.scene.wrist(),
            "observation.state": self.agent_position.astype(np.float32).clip(0, WORLD_SIZE),
        }

    def render(self) -> UInt8[np.ndarray, "256 256 3"]:
        """The 256-pixel canvas that both cameras are cut from."""
        return self.scene.canvas.copy()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        """Start an episode; the start is a pure function of `seed`.

        Args:
            seed: Seed of the start; `None` continues the random stream.
            options: Not used.
        """
        super().reset(seed=seed, options=options)
        self.lay_anew()
        while self.share > LARGEST_START:
            self.lay_anew()
        self.agent = self._place_agent()
        self.steps = 0
        return self.get_obs(), self._info()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        """Follow the target `action` for 0.1 s.

        Raises:
            ValueError: The action is not two finite numbers.
        """
        target = np.asarray(action, np.float64)
        if target.shape != (2,) or not np.isfinite(target).all():
            raise ValueError(f"an action of {self.name} is two finite numbers, got {action!r}")
        aim = pymunk.Vec2d(*target.clip(0, WORLD_SIZE).tolist())
        for _ in range(SUBSTEPS):
            pull = STIFFNESS * (aim - self.agent.position) - DAMPING * self.agent.velocity
            self.agent.velocity += pull * SUBSTEP
            self.space.step(SUBSTEP)
        self.steps += 1
        reward, solved = min(self.share / self.success_share, 1.0), self.solved
        return self.get_obs(), reward, solved, self.steps >= self.time_limit, self._info()

    def lay_anew(self) -> None:
        """Clear the table and lay the material."""
        self.space = table()
        self.bodies = self.lay()

    def _info(self) -> dict:
        return {"success": self.solved, "share": self.share}

    def _place_agent(self) -> pymunk.Body:
        pieces = self.pieces
        while True:
            place = self.np_random.integers(*AGENT_START, size=2)
            if np.linalg.norm(pieces - place, axis=1).min() > START_CLEARANCE:
                break
        body = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        body.position = tuple(place.tolist())
        shape = pymunk.Circle(body, AGENT_RADIUS)
        shape.friction = FRICTION
        self.space.add(body, shape)
        return body


def table() -> pymunk.Space:
    """An empty table between walls, on which everything rests unless it is pushed."""
    space = pymunk.Space()
    space.damping, space.iterations = 0.0, SOLVER_ITERATIONS
    low, high = (side + sign * (WALL_DEPTH - WALL_RADIUS) for side, sign in zip(WALLS, (-1, 1), strict=True))
    corners = [(low, low), (high, low), (high, high), (low, high)]
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        space.add(pymunk.Segment(space.static_body, start, end, WALL_DEPTH))
    return space
