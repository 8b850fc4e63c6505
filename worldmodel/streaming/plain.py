"""The streaming step that runs the backbone's own modules: the reference, for every architecture."""

import torch
from jaxtyping import Float
from torch import Tensor

from conditioning.conditioner import Conditioning
from worldmodel.model.backbone import Backbone, EncodedFrames
from worldmodel.model.layers import TimeStep
from worldmodel.model.precision import autocast
from worldmodel.streaming.state import StreamState


class PlainEngine:
    """An engine that runs the modules as they are, so it never has to be rebuilt.

    Args:
        backbone: Any backbone.
        smallest_step: Step size with which finished frames are read, see `Backbone.rewrites`.
    """

    replays = False

    def __init__(self, backbone: Backbone, smallest_step: float):
        self.backbone, self.smallest_step = backbone, smallest_step

    def encode(self, state: StreamState, conditioning: Conditioning) -> EncodedFrames:
        """Read the current frame of every stream with its conditioning."""
        slot = state.cache.reserve(state.frame)
        with autocast(self.backbone.device):
            return self.backbone.encode(
                state.latent[:, None],
                conditioning,
                view_mask=state.view_mask,
                reference=state.reference,
                step=TimeStep(state.cache, state.frame, slot),
            )

    def decode(
        self, encoded: EncodedFrames, noisy: tuple[Float[Tensor, "b ..."], ...], tau: float, step_size: float
    ) -> tuple[Float[Tensor, "b ..."], ...]:
        """The clean latent, and the displacement of the state where there is one."""
        parts = [part[:, None] for part in noisy]
        shape = parts[0].shape[:2]
        levels = [torch.full(shape, value, device=parts[0].device) for value in (tau, step_size)]
        with autocast(self.backbone.device):
            latent, moved = self.backbone.decode(encoded, parts[0], parts[1] if len(parts) > 1 else None, *levels)
        return tuple(part[:, 0].float() for part in (latent, moved) if part is not None)

    def remember(self, encoded: EncodedFrames, clean: tuple[Float[Tensor, "b ..."], ...]) -> None:
        """Write a finished frame to the cache, for backbones whose `decode` does this; see `Backbone.rewrites`."""
        if self.backbone.rewrites:
            self.decode(encoded, clean, 1.0, self.smallest_step)
