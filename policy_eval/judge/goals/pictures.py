"""Pictures of the goal: files in folders, and the plain difference in pixels as a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

ENDINGS = (".png", ".jpg", ".jpeg")


def goal_files(folder: Path) -> list[Path]:
    """The pictures in a folder and in its folders, in order."""
    files = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(file for file in files if file.suffix.lower() in ENDINGS)


def read_goals(folder: Path, views: Sequence[str], size: tuple[int, int]) -> UInt8[Tensor, "g v H W 3"]:
    """Pictures of the goal, for `GoalJudge`.

    Args:
        folder: Has a folder for each camera, with as many pictures in each; those of one moment have the same
            name. With one camera the pictures may lie in `folder` itself.
        views: The cameras to judge by.
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


@dataclass
class NearestPicture:
    """How alike a frame and the nearest goal are, pixel by pixel.

    It needs no training. Reports show it as the baseline beside a trained judge; it is no judge for use, since it
    hardly notices a small object.

    Args:
        goals: Pictures of success.
        threshold: Score above which a frame is called a success.
    """

    goals: UInt8[Tensor, "g v H W 3"]
    threshold: float = -0.05

    def score(self, frames: UInt8[Tensor, "n v H W 3"]) -> Float[Tensor, "n"]:
        """Minus the root mean square difference to the nearest goal in grey levels over 255, -1 to 0."""
        pictures, goals = (each.flatten(1).float() / 255 for each in (frames, self.goals))
        return -(torch.cdist(pictures, goals.to(pictures.device)) / pictures.shape[1] ** 0.5).amin(1)


def _read_picture(file: Path, size: tuple[int, int]) -> UInt8[Tensor, "H W 3"]:
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read as a picture") from error
    height, width = size
    if abs(picture.width * height - picture.height * width) > max(picture.width, picture.height):
        raise ValueError(
            f"{file}: height and width {picture.height} x {picture.width}, the frames to judge have {height} x {width}"
        )
    return torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling.BOX)))
