"""The real simulator beside a dream, on the same actions."""

from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor

from demos.driving.start import Start, camera_frames
from worldmodel.envs import make_simulator
from worldmodel.envs.protocol import begin, describe
from worldmodel.world_model import WorldModel

MAX_REWIND = 600
"""A simulator is not rewound to later frames than this one, because all frames before are repeated."""


class Simulation:
    """An environment that begins where a dream does.

    In general a simulator cannot be copied, but its starts are pure functions of their seed. To go
    back, the simulator is reset and the actions are repeated. If it cannot be stepped after it has
    ended, it stands still.

    Args:
        start: Where the dream begins; has a simulator.
        world: The world model, for its cameras, size and stride.
    """

    def __init__(self, start: Start, world: WorldModel):
        self.start = start
        self.world = world
        self.env = make_simulator(start.environment, size=world.size[0])
        self.goes_on = describe(self.env).stops_on_success is not None
        self.begin()

    def begin(self) -> None:
        """Reset, and repeat the actions of the context."""
        self.actions: list[Float32[Tensor, "a"]] = []
        self._observation, self._ended = begin(self.env, self.start.seed, self.start.environment), False
        for actions in self.start.context.actions[0]:
            self._apply(actions)

    @property
    def frames(self) -> UInt8[Tensor, "v H W 3"]:
        """What the cameras show."""
        return camera_frames(self.start.environment, self._observation, self.world)

    def step(self, actions: Float32[Tensor, "a"]) -> UInt8[Tensor, "v H W 3"]:
        """Apply one raw action, `stride` times as wide as the environment's."""
        self._apply(actions)
        self.actions.append(actions)
        return self.frames

    def rewind(self, num_frames: int) -> None:
        """Go back to `num_frames` after the start.

        Raises:
            ValueError: That is too far from the start to be repeated.
        """
        if num_frames > MAX_REWIND:
            raise ValueError(
                f"the simulator is rewound within {MAX_REWIND} frames of the start, not to "
                f"{num_frames}; go on without it, or reset"
            )
        kept = self.actions[:num_frames]
        self.begin()
        for actions in kept:
            self.step(actions)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _apply(self, actions: Tensor) -> None:
        for action in rearrange(actions, "(k a) -> k a", k=self.world.stride):
            if not self._ended:
                self._observation, _, terminated, truncated, _ = self.env.step(action.numpy())
                self._ended = (terminated or truncated) and not self.goes_on
