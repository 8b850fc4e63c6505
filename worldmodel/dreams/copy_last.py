"""A world model that copies the last frame: the baseline that every world model has to beat."""

from dataclasses import replace

import torch
from torch import Tensor

from worldmodel.data.clip import Clip
from worldmodel.streaming.advance import Seeds, begin
from worldmodel.streaming.state import StreamState
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel


class CopyLastStream(Stream):
    """A stream that repeats its last frame and state under every action."""

    def _advance(
        self, state: StreamState, actions: Tensor | None, num_steps: int, temperature: float, *, shown: bool = True
    ) -> StreamState:
        return replace(state, frame=state.frame + 1)


class CopyLastWorld(WorldModel):
    """A world model whose streams never change; it loads the folder of any world model."""

    @torch.no_grad()
    def stream(self, context: Clip, *, seeds: Seeds = 0) -> CopyLastStream:
        """Begin streams, as `WorldModel.stream` does."""
        state = begin(self, context, seeds)
        last = torch.full_like(state.frame, context.frames.shape[1] - 1)
        return CopyLastStream(self, replace(state, frame=last, chunk=None))
