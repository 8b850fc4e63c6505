"""The simulator in the place of the world model: what imagination could do in a perfect dream.

A diagnosis, not a method: it takes real steps. Where imagination fails in the world model and
succeeds here, the world model is to blame, and not the way of learning.
"""

from collections.abc import Callable, Sequence

import gymnasium
import numpy as np
from jaxtyping import Float
from torch import Tensor

from worldmodel.data import Clip, EpisodeSource
from worldmodel.dreams.verdict import observed
from worldmodel.streaming.state import Observation


class SimulatorWorld:
    """A `worldmodel.dreams.world.World` that recognises recorded frames and acts on from there.

    The simulator is reset with the seed of the frame's episode and carries out the recorded actions
    up to the frame.

    Args:
        make: Makes one simulator.
        source: Where the frames are from; every one of them is remembered by its bytes.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], source: EpisodeSource):
        self.make, self.source, self.views = make, source, tuple(source.views)
        self.envs: list[gymnasium.Env] = []
        self.places: dict[bytes, tuple[int, int]] = {}
        for episode in range(len(source)):
            clip = source.read(episode, 0, source.lengths[episode])
            for frame, picture in enumerate(clip.frames):
                self.places[picture.numpy().tobytes()] = (episode, frame)

    def start(self, context: Clip, *, seed: int | Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Begin where the last frames of the clips were seen; there is no noise to seed."""
        while len(self.envs) < len(context.frames):
            self.envs.append(self.make())
        return [
            self._replay(env, *self.places[frames[-1].numpy().tobytes()])
            for env, frames in zip(self.envs, context.frames, strict=False)
        ]

    def step(
        self, state: list, actions: Float[Tensor, "b a"], *, num_steps: int
    ) -> tuple[Observation, list[dict[str, np.ndarray]]]:
        """Act for real; a solved simulator goes on."""
        state = [env.step(action)[0] for env, action in zip(self.envs, actions.numpy(), strict=False)]
        stacked = {name: np.stack([each[name] for each in state]) for name in state[0]}
        return observed(stacked, self.views), state

    def _replay(self, env: gymnasium.Env, episode: int, frame: int) -> dict[str, np.ndarray]:
        observation, _ = env.reset(seed=self.source.reset_seed(episode))
        if frame:
            for action in self.source.read(episode, 0, frame + 1).actions:
                observation, *_ = env.step(action.numpy())
        return observation
