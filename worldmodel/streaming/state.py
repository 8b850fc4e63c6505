"""State of a streaming rollout: one action in, one frame out, at constant cost per frame."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from worldmodel.model.layers import TimeCache


@dataclass(frozen=True)
class Observation:
    """What one step of the world model shows.

    Attributes:
        frames: RGB pictures of every view, 0..255.
        states: Predicted `observation.state` in raw units; `None` when the data had none.
    """

    frames: UInt8[Tensor, "b v H W 3"]
    states: Float[Tensor, "b s"] | None


@dataclass(frozen=True)
class RolloutState:
    """Where each of `b` independent streams stands.

    `WorldModel.step` writes into `cache` and returns a new state; a state that was stepped from is
    used up. Take a copy first with `select` to branch or to undo.

    Attributes:
        cache: Ring of past keys and values.
        frame: Index of the current frame in its stream.
        latent: The current frame.
        reference: The first frame of the stream.
        states: The current raw proprioceptive state.
        seeds: Noise seed of each stream, on the CPU; noise depends on the seed and the frame index
            only, not on what else is in the batch.
        view_mask: False where a camera is missing.
    """

    cache: TimeCache
    frame: Int[Tensor, "b"]
    latent: Float[Tensor, "b v c h w"]
    reference: Float[Tensor, "b v c h w"]
    states: Float[Tensor, "b s"] | None
    seeds: Int[Tensor, "b"]
    view_mask: Bool[Tensor, "b v"] | None

    def select(self, streams: Int[Tensor, "k"] | Sequence[int]) -> "RolloutState":
        """Copy of the given streams, in order; repeat an index to branch."""
        index = torch.as_tensor(streams, dtype=torch.long, device=self.frame.device)
        return replace(
            self,
            cache=self.cache.select(index),
            frame=self.frame[index],
            latent=self.latent[index],
            reference=self.reference[index],
            states=None if self.states is None else self.states[index],
            seeds=self.seeds[index.cpu()],
            view_mask=None if self.view_mask is None else self.view_mask[index],
        )

    def with_seeds(self, seeds: Sequence[int]) -> "RolloutState":
        """The same streams with other noise seeds."""
        if len(seeds) != len(self.seeds):
            raise ValueError(f"got {len(seeds)} seeds for {len(self.seeds)} streams")
        return replace(self, seeds=torch.as_tensor(seeds, dtype=torch.long))

    def put(self, streams: Int[Tensor, "k"] | Sequence[int], fresh: "RolloutState") -> None:
        """Overwrite the given streams in place with those of `fresh` (per-stream reset).

        Raises:
            ValueError: If the numbers of streams differ.
        """
        index = torch.as_tensor(streams, dtype=torch.long, device=self.frame.device)
        if len(index) != len(fresh.frame):
            raise ValueError(f"got {len(fresh.frame)} fresh streams for {len(index)} places")
        self.cache.put(index, fresh.cache)
        for name in ("frame", "latent", "reference", "states", "seeds", "view_mask"):
            mine = getattr(self, name)
            if mine is not None:
                mine[index.to(mine.device)] = getattr(fresh, name).to(mine.device)


def stream_noise(seeds: Int[Tensor, "b"], frame: Int[Tensor, "b"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Standard normal noise of `shape` per stream, a pure function of its seed and frame index."""
    rows = []
    for seed, index in zip(seeds.tolist(), frame.tolist(), strict=True):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
        rows.append(torch.randn(*shape, generator=generator))
    return torch.stack(rows)
