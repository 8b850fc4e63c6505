"""A world in which nothing ever happens: the control that every world model has to beat."""

from dataclasses import replace

import torch
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.streaming.advance import Seeds, begin
from worldmodel.streaming.state import StreamState
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel


class CopyLastStream(Stream):
    """Shows the last frame and state again, whatever is done."""

    def _advance(self, actions: Tensor | None, num_steps: int, temperature: float) -> StreamState:
        return replace(self._state, frame=self._state.frame + 1)


class CopyLastWorld(WorldModel):
    """A world model whose streams stand still; loads the folder of a world model."""

    @torch.no_grad()
    def stream(self, context: Clip, *, seeds: Seeds = 0) -> CopyLastStream:
        """As of any world model."""
        return CopyLastStream(self, begin(self, context, seeds))
