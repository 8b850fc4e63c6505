"""Demonstrations of many goals in PushT: the block is brought to one random place after another.

worldmodel record pusht-position --behaviour many_goals:ManyGoals --episodes 300 --out data/many-goals
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.envs.policy import Observations
from worldmodel.envs.pusht.env import POSITION_RADIUS, PushT
from worldmodel.envs.pusht.expert import towards_place
from worldmodel.envs.pusht.pushing import Point

PLACES = (120.0, 392.0)
"""Where the block is brought, along x and y, in world units."""
NOISE = 10.0
"""Standard deviation of the noise of the targets, so that the demonstrations leave the best way a little."""


class ManyGoals:
    """A scripted behaviour, see `Policy` for its methods."""

    def watch(self, env: PushT) -> None:
        """Get the simulator."""
        self.env = env

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin an episode, which depends on the seed alone."""
        self.targets = self._targets(np.random.default_rng([*seeds, 2]))

    def act(self, observation: Observations) -> Float[Tensor, "1 2"]:
        """The next target."""
        return torch.from_numpy(next(self.targets))[None].float()

    def _targets(self, rng: np.random.Generator) -> Iterator[Point]:
        while True:
            place = rng.uniform(*PLACES, 2)
            while np.linalg.norm(place - self.env.block_centre) > POSITION_RADIUS / 2:
                yield towards_place(self.env, place) + rng.normal(0, NOISE, 2)
