"""Where the objects of a frame are, found by colour in the top camera's picture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

SCALE = 64  # positions and areas are given as if the picture were this wide


@dataclass(frozen=True)
class ObjectTrack:
    """One object in a batch of frames.

    Attributes:
        position: Centroid (x, y) of its mask in pixels of a 64-pixel frame; pixel i covers
            i..i + 1, so a position times 8 is in PushT's world units. NaN where the mask is empty.
        area: Number of pixels of its mask, on the same scale.
    """

    position: Float[np.ndarray, "*b 2"]
    area: Float[np.ndarray, "*b"]


def agent_mask(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """The agent is RoyalBlue: far more blue than red (by 175; half of that on its rim)."""
    return blue - red > 80


def block_mask(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """The block is LightSlateGray: darker in green than the goal and darker in blue than the agent.

    It has a little more blue than red, unlike the walls; a pixel with much more blue belongs to the agent's rim.
    """
    bluer = blue - red
    return (green < 205) & (blue < 218) & (bluer > 8) & (bluer < 60)


def sand_mask(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """Sand is yellow-brown: more red than blue, with green between them."""
    return (red - blue > 50) & (green - blue > 20)


def first_end_mask(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """The rope's first end is red."""
    return (red - green > 65) & (red - blue > 40)


def second_end_mask(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """The rope's second end is magenta: little green. Where the agent's rim covers the first end, both are weaker."""
    return (red - green > 56) & (blue - green > 55)


Finder = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
PUSHT: dict[str, Finder] = {"agent": agent_mask, "block": block_mask}
ROPE: dict[str, Finder] = {
    "agent": agent_mask,
    "rope": block_mask,
    "first end": first_end_mask,
    "second end": second_end_mask,
}
SAND: dict[str, Finder] = {"agent": agent_mask, "sand": sand_mask}
FINDERS: dict[str, dict[str, Finder]] = {
    "pusht": PUSHT,
    "pusht-position": PUSHT,
    "pusht-rope": ROPE,
    "pusht-sand": SAND,
}


def object_names(env_name: str) -> tuple[str, ...]:
    """Objects that can be found in frames of the environment; empty for an unknown one."""
    return tuple(FINDERS.get(env_name, ()))


def object_view(env_name: str) -> str:
    """The camera in whose frames the objects are found."""
    if env_name not in FINDERS:
        raise ValueError(f"objects are known in {', '.join(FINDERS)}, not in {env_name!r}")
    return "top"


def find_objects(env_name: str, frames: UInt8[Any, "*b H W 3"]) -> dict[str, ObjectTrack]:
    """Find every object of an environment in frames of its top camera.

    Args:
        env_name: The environment; one without findable objects gives an empty dictionary.
        frames: Square RGB pictures, 0..255, as an array or a tensor on the CPU.
    """
    return {name: track(mask) for name, mask in object_masks(env_name, frames).items()}


def object_masks(env_name: str, frames: UInt8[Any, "*b H W 3"]) -> dict[str, Bool[np.ndarray, "*b H W"]]:
    """The pixels of every object of an environment in frames of its top camera; as `find_objects`."""
    channels = np.moveaxis(np.asarray(frames), -1, 0).astype(np.int16)
    return {name: finder(*channels) for name, finder in FINDERS.get(env_name, {}).items()}


def track(mask: Bool[np.ndarray, "*b H W"]) -> ObjectTrack:
    """Centroid and area of every mask."""
    height, width = mask.shape[-2:]
    columns, rows = mask.sum(-2, dtype=np.float64), mask.sum(-1, dtype=np.float64)
    area = rows.sum(-1)
    with np.errstate(invalid="ignore"):
        x = columns @ (np.arange(width) + 0.5) / area * (SCALE / width)
        y = rows @ (np.arange(height) + 0.5) / area * (SCALE / height)
    return ObjectTrack(np.stack([x, y], -1), np.asarray(area * (SCALE / height) * (SCALE / width)))
