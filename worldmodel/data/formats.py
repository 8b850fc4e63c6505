"""Open episodes in any supported format."""

from collections.abc import Callable, Sequence
from pathlib import Path

from worldmodel.data.folder import episode_folders, open_folder
from worldmodel.data.hdf5 import hdf5_files, open_hdf5
from worldmodel.data.lerobot.read import open_lerobot
from worldmodel.data.source import TableSource


def is_lerobot(folder: Path) -> bool:
    """Whether a folder looks like a LeRobot data set."""
    return (folder / "meta").exists()


FORMATS: list[tuple[Callable[[Path], object], Callable[[Path | str, tuple[int, int] | None], TableSource]]] = [
    (is_lerobot, open_lerobot),
    (episode_folders, open_folder),
    (hdf5_files, open_hdf5),
]
"""One line for each format: a function that recognises a path, and one that opens it; the first match is used."""


def open_episodes(
    path: Path | str, size: tuple[int, int] | None = None, views: Sequence[str] | None = None
) -> TableSource:
    """Open a data set and check everything that needs no decoding.

    Args:
        path: A LeRobot folder (v2.0, v2.1, v3.0), a folder of `episode_*/<camera>.mp4`, or an HDF5
            file (or a folder of such) in the layout of robomimic and LIBERO.
        size: `(H, W)` of the frames to read; by default the cameras' own size where they agree,
            else the largest height and the largest width. The aspect ratio is kept, the rest is padding.
        views: Names of the cameras to read, in this order; by default all.

    Raises:
        ValueError: If the data is malformed in any way, or lacks a camera; the message names file,
            episode, field and both values.
    """
    fitting = [opener for fits, opener in FORMATS if fits(Path(path))]
    source = (fitting or [open_lerobot])[0](path, size)
    return source if views is None else source.select(views, size)
