"""The interface between a world model and its network, so that another network can replace `VideoDiT`."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from conditioning.conditioner import Conditioning
from worldmodel.model.layers import TimeCache, TimeStep, Visibility


@runtime_checkable
class EncodedFrames(Protocol):
    """The result of `Backbone.encode` for `b` clips of `t` frames, which `decode` needs.

    Attributes:
        conditioning: The conditioning of the frames.
    """

    conditioning: Conditioning

    def rows(self, rows: Bool[Tensor, "b"]) -> "EncodedFrames":
        """The part for the selected clips of the batch."""
        ...

    def frames(self, chosen: Bool[Tensor, "b t"]) -> "EncodedFrames":
        """The part for the chosen frames, as clips of one frame each; only for a `separable` backbone."""
        ...

    def tail(self, start: int) -> "EncodedFrames":
        """The part for predictions from frame `start` on; these still see the frames before it."""
        ...


@runtime_checkable
class Backbone(Protocol):
    """A network that reads each frame once and denoises the frame after it in any number of steps.

    It is also a `torch.nn.Module`. `decode` at index `i` predicts the frame after frame `i` from those of the frames
    up to frame `i` that are visible to it. A frame at noise level tau is `tau * x + (1 - tau) * noise`.

    Attributes:
        device: Where its weights are.
        window: Frames of history that it sees, besides the first frame of a stream.
        separable: Whether `decode` uses nothing but the encoding of the one frame before.
        rewrites: Whether `decode`, called at noise level 1, writes a frame to the cache instead of `encode`.
        reads_noise: Whether a prediction at noise level 0 depends on the noise.
        borrowed: Names of weights that a world model's folder does not hold, because they are read from elsewhere.
    """

    device: torch.device
    window: int
    separable: bool
    rewrites: bool
    reads_noise: bool
    borrowed: frozenset[str]

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
        """Read clean frames and their conditioning; see `VideoDiT.encode` for the arguments."""
        ...

    def decode(
        self,
        encoded: EncodedFrames,
        noisy: Float[Tensor, "b t v c h w"],
        noisy_state: Float[Tensor, "b t s"] | None,
        tau: Float[Tensor, "b t"],
        step_size: Float[Tensor, "b t"],
    ) -> tuple[Float[Tensor, "b t v c h w"], Float[Tensor, "b t s"] | None]:
        """Predict the clean next latents and state displacements from noisy ones.

        `tau` is the noise level of the noisy ones, `step_size` the size of the denoising step that follows.
        """
        ...
