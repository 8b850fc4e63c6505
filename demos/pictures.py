"""Frames as a browser shows them, and side by side in a video."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange, repeat
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from worldmodel.rollout_video import PICTURE_HEIGHT, label_strip

LARGEST_PNG = 128
"""Sides in pixels up to which a frame is sent without loss."""
JPEG_QUALITY = 88


def picture(frame: UInt8[Tensor, "H W 3"]) -> str:
    """A frame as a data URI: PNG when small, else JPEG."""
    buffer = io.BytesIO()
    image = Image.fromarray(frame.numpy())
    if max(frame.shape[:2]) <= LARGEST_PNG:
        image.save(buffer, format="PNG", compress_level=1)
        kind = "png"
    else:
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
        kind = "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def animation(frames: UInt8[Tensor, "t v H W 3"], fps: float) -> str:
    """All cameras side by side as an endless animated WebP, a data URI; every browser plays it."""
    rows = rearrange(frames, "t v H W c -> t H (v W) c").numpy()
    first, *rest = [Image.fromarray(row) for row in rows]
    buffer = io.BytesIO()
    first.save(
        buffer, format="WEBP", save_all=True, append_images=rest, duration=round(1000 / fps),
        loop=0, lossless=False, quality=90, method=0,
    )  # fmt: skip
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def difference(
    dream: UInt8[Tensor, "*t v H W 3"], truth: UInt8[Tensor, "*t v H W 3"]
) -> UInt8[Tensor, "*t v H W 3"]:
    """Absolute difference per colour channel: black where dream and simulator agree."""
    return (dream.int() - truth.int()).abs().byte()


def side_by_side(
    kinds: Mapping[str, UInt8[Tensor, "t v H W 3"]], views: Sequence[str]
) -> UInt8[np.ndarray, "t height width 3"]:
    """Kinds of frames below each other, cameras side by side with their names, enlarged."""
    rows = []
    for kind, frames in kinds.items():
        scale = max(1, round(PICTURE_HEIGHT / frames.shape[2]))
        large = repeat(frames, "t v H W c -> t (H p) (v W q) c", p=scale, q=scale).numpy()
        label = label_strip([f"{kind} - {view}" for view in views], frames.shape[3] * scale)
        rows += [repeat(label, "h w c -> t h w c", t=len(large)), large]
    return np.concatenate(rows, axis=1)
