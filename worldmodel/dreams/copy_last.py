"""A world in which nothing ever happens: the control that every world model has to beat."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.streaming.state import Observation, RolloutState
from worldmodel.world_model import WorldModel


class CopyLastWorld(WorldModel):
    """Shows the last frame and state again, whatever is done; loads the folder of a world model."""

    @torch.no_grad()
    def step(
        self,
        state: RolloutState,
        actions: Float[Tensor, "b a"] | None,
        *,
        num_steps: int = 2,
        temperature: float | None = None,
    ) -> tuple[Observation, RolloutState]:
        """The same observation once more, whatever the settings."""
        following = replace(state, frame=state.frame + 1)
        return Observation(self.codec.decode(state.latent), state.states), following
