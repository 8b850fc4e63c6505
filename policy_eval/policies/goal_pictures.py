"""Pictures of the goal: files in folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg")


def goal_files(folder: Path) -> list[Path]:
    """The pictures in a folder and in its folders, in order."""
    files = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(file for file in files if file.suffix.lower() in ENDINGS)


def read_goals(folder: Path, views: Sequence[str], size: tuple[int, int]) -> UInt8[Tensor, "g v H W 3"]:
    """Pictures of the goal, for a judge or a policy.

    Args:
        folder: Has a folder for each camera, with as many pictures in each; those of one moment have the same
            name. With one camera the pictures may lie in `folder` itself.
        views: The cameras that are looked at.
        size: Height and width to which the pictures are resized; they have its proportions.

    Raises:
        ValueError: A camera has no pictures, or others than the first one; or a picture has other proportions.
    """
    columns, names = [], []
    for view in views:
        inside = folder / view if len(views) > 1 or (folder / view).is_dir() else folder
        files = [file for file in goal_files(inside) if file.parent == inside]
        if not files:
            raise ValueError(f"{folder}: no goal pictures of the camera {view}, expected them in {inside}")
        names.append([file.stem for file in files])
        if names[-1] != names[0]:
            raise ValueError(f"{folder}: pictures {names[0]} of {views[0]}, but {names[-1]} of {view}")
        columns.append(torch.stack([_read_picture(file, size) for file in files]))
    return torch.stack(columns, dim=1)


def write_goals(folder: Path, views: Sequence[str], goals: UInt8[Tensor, "g v H W 3"]) -> None:
    """Write pictures as `read_goals` reads them: `folder/CAMERA/00.png`, `01.png`, ..."""
    for number, goal in enumerate(goals):
        for view, picture in zip(views, goal, strict=True):
            file = folder / view / f"{number:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.numpy()).save(file)


def _read_picture(file: Path, size: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read as a picture") from error
    height, width = size
    if abs(picture.width * height - picture.height * width) > max(picture.width, picture.height):
        raise ValueError(
            f"{file}: height and width {picture.height} x {picture.width}, the frames have {height} x {width}"
        )
    return torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling.BOX)))
