"""Frames as a browser shows them."""

import io

from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from worldmodel.display.html import data_uri

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
    return data_uri(f"image/{kind}", buffer.getvalue())


def animation(frames: UInt8[Tensor, "t v H W 3"], fps: float) -> str:
    """All cameras side by side as an endless animated WebP, a data URI; every browser plays it."""
    rows = rearrange(frames, "t v H W c -> t H (v W) c").numpy()
    first, *rest = [Image.fromarray(row) for row in rows]
    buffer = io.BytesIO()
    first.save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=rest,
        duration=round(1000 / fps),
        loop=0,
        lossless=False,
        quality=90,
        method=0,
    )
    return data_uri("image/webp", buffer.getvalue())


def difference(dream: UInt8[Tensor, "*t v H W 3"], truth: UInt8[Tensor, "*t v H W 3"]) -> UInt8[Tensor, "*t v H W 3"]:
    """Absolute difference per colour channel: black where dream and simulator agree."""
    return (dream.int() - truth.int()).abs().byte()
