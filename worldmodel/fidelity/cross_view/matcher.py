"""A network that knows which pictures of two cameras were taken at the same moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from worldmodel.data.clip import EpisodeSource
from worldmodel.fidelity.metrics import valid_region
from worldmodel.model.codec import to_signed
from worldmodel.model.folder import load_model, save_model
from worldmodel.model.keypoints import expected_places

DESCRIPTION = "matcher.json"
SIDE = 64
"""The longer side of a picture is made about this long before it is looked at; px."""
KEYPOINTS = 32
"""Keypoints per camera."""
POOLED = 4
"""Side of the grid on which the features of a picture are averaged."""
PIECE = 256
"""Frames whose codes are computed together."""
FIRST_SCALE = 10.0
"""Factor of the similarities before training."""

Region = tuple[int, int, int, int]
"""First row, end of the rows, first column, end of the columns."""


@dataclass(frozen=True)
class MatcherConfig:
    """All that is needed to build a matcher; saved beside its weights."""

    views: tuple[str, ...]
    """Cameras, in order."""
    size: tuple[int, int]
    """Height and width of a frame."""
    regions: tuple[Region, ...]
    """The part of each camera's frame that is not letterbox padding: rows from, to, columns from, to."""
    code: int = 32
    """Numbers that describe a picture."""

    @classmethod
    def of(cls, source: EpisodeSource) -> "MatcherConfig":
        """The settings for the cameras of `source`."""
        regions = [valid_region(mask) for mask in source.pixel_mask]
        ends = tuple((rows.start, rows.stop, columns.start, columns.stop) for rows, columns in regions)
        return cls(tuple(source.views), tuple(source.size), ends)


@dataclass(frozen=True)
class MatcherDescription:
    """The content of `matcher.json`."""

    config: MatcherConfig
    train_data: list[dict]
    """See `CrossViewMatcher.train_data`."""


class ViewEncoder(nn.Module):
    """A picture of one camera as a vector of length 1.

    Convolutions see the place of each pixel in two more channels. Keypoints (a spatial softmax, Levine et al. 2016)
    say where things are, and averages over a 4 x 4 grid say what is where.

    Args:
        code: Width of the vector.
    """

    def __init__(self, code: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(5, 24, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.GroupNorm(4, 48),
            nn.SiLU(),
            nn.Conv2d(48, 64, 3, stride=2, padding=1),
            nn.GroupNorm(4, 64),
            nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.SiLU(),
        )
        self.points = nn.Conv2d(64, KEYPOINTS, 1)
        self.head = nn.Sequential(nn.Linear(2 * KEYPOINTS + 64 * POOLED**2, 128), nn.SiLU(), nn.Linear(128, code))

    def forward(self, pictures: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c"]:
        """The vectors of pictures in [-1, 1]."""
        features = self.convolutions(with_places(shrunk(pictures)))
        maps = self.points(features)
        weights = maps.flatten(2).softmax(-1).view(maps.shape)
        pooled = F.adaptive_avg_pool2d(features, (POOLED, POOLED)).flatten(1)
        return F.normalize(self.head(torch.cat([*expected_places(weights), pooled], dim=1)), dim=-1)


def shrunk(pictures: Float[Tensor, "n c H W"]) -> Float[Tensor, "n c h w"]:
    """Pictures averaged over squares of pixels, so that the longer side has about 64."""
    factor = max(round(max(pictures.shape[-2:]) / SIDE), 1)
    return F.avg_pool2d(pictures, factor, ceil_mode=True)


def with_places(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
    """Two more channels: the row and the column of each pixel, from -1 to 1."""
    axes = [torch.linspace(-1, 1, side, device=pictures.device) for side in pictures.shape[-2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.cat([pictures, places.expand(len(pictures), -1, -1, -1)], dim=1)


class CrossViewMatcher(nn.Module):
    """Describes the pictures of every camera so that those of the same moment get similar vectors.

    ```python
    matcher = CrossViewMatcher.load("runs/cross-view")
    codes = matcher.codes(clip.frames, clip.view_mask)          # b t v c, of length 1
    ```

    Args:
        config: Cameras and sizes.

    Attributes:
        train_data: The recordings that it was trained on, as in `WorldModel.train_data`.
    """

    def __init__(self, config: MatcherConfig):
        super().__init__()
        self.config = config
        self.train_data: list[dict] = []
        self.encoders = nn.ModuleList([ViewEncoder(config.code) for _ in config.views])
        self.log_scale = nn.Parameter(torch.tensor(FIRST_SCALE).log())

    def forward(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n v c"]:
        """The vectors of the pictures of `n` moments."""
        pictures = to_signed(frames)
        seen = []
        for view, (encode, (top, bottom, left, right)) in enumerate(
            zip(self.encoders, self.config.regions, strict=True)
        ):
            seen.append(encode(pictures[:, view, :, top:bottom, left:right]))
        return torch.stack(seen, dim=1)

    @torch.no_grad()
    def codes(
        self, frames: UInt8[Tensor, "b t v H W 3"], view_mask: Bool[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b t v c"]:
        """The vectors of a batch of clips, on the CPU; NaN where a camera is missing."""
        flat = rearrange(frames, "b t v h w c -> (b t) v h w c")
        device = self.log_scale.device
        found = torch.cat([self(piece.to(device)).float().cpu() for piece in flat.split(PIECE)])
        found = rearrange(found, "(b t) v c -> b t v c", b=len(frames))
        return found if view_mask is None else found.masked_fill(~view_mask.cpu()[:, None, :, None], torch.nan)

    def check(self, source: EpisodeSource) -> None:
        """Raise a `ValueError` where the matcher was made for other cameras, sizes or padding than `source` has."""
        other = MatcherConfig.of(source)
        for name in ("views", "size", "regions"):
            data, mine = getattr(other, name), getattr(self.config, name)
            if data != mine:
                raise ValueError(f"{source.name}: {name} is {data}, the cross-view matcher has {mine}")

    def save(self, folder: str | Path) -> None:
        """Write `matcher.json` and `weights.safetensors`."""
        save_model(folder, DESCRIPTION, MatcherDescription(self.config, self.train_data), self.state_dict())

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "CrossViewMatcher":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is no valid matcher; the message says what is wrong, see `load_model`.
        """
        said, matcher = load_model(folder, DESCRIPTION, MatcherDescription, lambda said, _: cls(said.config))
        matcher.train_data = said.train_data
        return matcher.to(device).eval()


def check_cameras(name: str, views: Sequence[str]) -> None:
    """Raise a `ValueError` where there is only one camera."""
    if len(views) < 2:
        raise ValueError(f"{name}: cameras {tuple(views)}; --cross-view compares cameras and needs at least 2")
