"""What a world model asks of its network, so that another one can take the place of `VideoDiT`."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from conditioning.conditioner import Conditioning
from worldmodel.model.layers import TimeCache, TimeStep, Visibility


@runtime_checkable
class EncodedFrames(Protocol):
    """What a backbone has read of `b` stretches of `t` frames, for `decode`.

    Attributes:
        conditioning: What happens at the frames.
    """

    conditioning: Conditioning

    def rows(self, rows: Bool[Tensor, "b"]) -> "EncodedFrames":
        """The same of some clips of the batch."""
        ...

    def frames(self, chosen: Bool[Tensor, "b t"]) -> "EncodedFrames":
        """The chosen frames as clips of one frame each; only of a `separable` backbone."""
        ...

    def tail(self, start: int) -> "EncodedFrames":
        """The same for predictions from frame `start` on; they still see the frames before."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A network that reads frames once each and denoises the frame after each, in any number of steps.

    It is a `torch.nn.Module`, too. `decode` at index `i` predicts the frame after frame `i` from the frames up to
    frame `i` that it may see. A frame at noise level tau is `tau * x + (1 - tau) * noise`.

    Attributes:
        device: Where its weights are.
        window: Frames of history that it sees, besides the first frame of a stream.
        separable: Whether `decode` looks at nothing but what `encode` made of the one frame before.
        rewrites: Whether a frame is read for the cache by `decode`, at noise level 1, instead of by `encode`.
        reads_noise: Whether a prediction at noise level 0 depends on the noise.
    """

    device: torch.device
    window: int
    separable: bool
    rewrites: bool
    reads_noise: bool

    def new_cache(self, num_streams: int, dtype: torch.dtype) -> TimeCache:
        """An empty cache of `num_streams` streams, on the backbone's device."""
        ...

    def encode(
        self,
        latents: Float[Tensor, "b t v c h w"],
        conditioning: Conditioning,
        *,
        view_mask: Bool[Tensor, "b v"] | None = None,
        history: int | None = None,
        gap: int = 1,
        reference: Float[Tensor, "b v c h w"] | None = None,
        visibility: Visibility | None = None,
        step: TimeStep | None = None,
    ) -> EncodedFrames:
        """Read clean frames and what happens at them; see `VideoDiT.encode` for the arguments."""
        ...

    def decode(
        self,
        encoded: EncodedFrames,
        noisy: Float[Tensor, "b t v c h w"],
        noisy_state: Float[Tensor, "b t s"] | None,
        tau: Float[Tensor, "b t"],
        step_size: Float[Tensor, "b t"],
    ) -> tuple[Float[Tensor, "b t v c h w"], Float[Tensor, "b t s"] | None]:
        """The clean next latents and state displacements; `tau` and `step_size` say how noisy the guess is."""
        ...
