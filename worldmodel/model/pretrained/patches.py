"""Square patches of latents, which are the tokens of all families."""

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from worldmodel.model.pretrained.family import Grid


def side_of(values: Mapping[str, Any]) -> int:
    """Latent pixels along one side of a token, of a transformer with this `config.json`."""
    return values.get("patch_size", (1, 2, 2))[1]


def check_square(values: Mapping[str, Any], where: str) -> None:
    """Raise a `ValueError` where a token is more than one frame, or not square."""
    patch = tuple(values.get("patch_size", (1, 2, 2)))
    if patch[0] != 1 or patch[1] != patch[2]:
        raise ValueError(f"{where}: patch_size is {list(patch)}, expected [1, p, p]")


def pictures(patches: Float[Tensor, "b t n k"], grid: Grid, side: int) -> Float[Tensor, "b t v c h w"]:
    """Patches to latents; within a patch the channel comes last."""
    views, rows, columns = grid
    pattern = "b t (v h w) (p q c) -> b t v c (h p) (w q)"
    return rearrange(patches, pattern, v=views, h=rows, w=columns, p=side, q=side)
