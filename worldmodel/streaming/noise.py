"""Seeds derived from other seeds, and the noise of streams."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def mix_seed(*parts: int) -> int:
    """A seed in [0, 2^63) derived from several whole numbers of at least 0; if one of them changes, so does the seed.

    NumPy's `SeedSequence` hashes them, so seeds that differ by one are as unrelated as any others.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def stream_noise(seeds: Int[Tensor, "b"], frame: Int[Tensor, "b"], shape: Sequence[int]) -> Float[Tensor, "b ..."]:
    """Standard normal noise of `shape` per stream, a pure function of its seed and frame index."""
    rows = []
    for seed, index in zip(seeds.tolist(), frame.tolist(), strict=True):
        generator = torch.Generator().manual_seed(mix_seed(seed, index))
        rows.append(torch.randn(*shape, generator=generator))
    return torch.stack(rows)
