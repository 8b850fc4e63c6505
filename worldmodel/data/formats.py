"""Open episodes in any supported format."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NoReturn

from worldmodel.data.clip import EpisodeSource
from worldmodel.data.hdf5.read import hdf5_files, open_hdf5
from worldmodel.data.joined import JoinedSource
from worldmodel.data.lerobot.read import open_lerobot
from worldmodel.data.options import DataOptions, Request
from worldmodel.data.plain.layout import contents, holds_episodes
from worldmodel.data.plain.read import open_folder
from worldmodel.data.remote.tree import stand_in, told, too_large
from worldmodel.data.remote.url import is_url, whole_url
from worldmodel.data.source import TableSource
from worldmodel.data.video.letterbox import FrameBudget
from worldmodel.files import shipped

SHOWN = 3  # notes in one warning


class DataWarning(UserWarning):
    """An oddity of a data set that does not change what is read, or a part of it that is left out."""


def is_lerobot(folder: Path) -> bool:
    """Whether a folder looks like a LeRobot data set."""
    return (folder / "meta").exists()


FORMATS: list[tuple[Callable[[Path], object], Callable[[Path, Request], TableSource]]] = [
    (is_lerobot, open_lerobot),
    (hdf5_files, open_hdf5),
    (holds_episodes, open_folder),
]
"""One line for each format: a function that recognises a path, and one that opens it; the first match is used."""


def open_episodes(
    data: str | Path | Sequence[str | Path],
    size: tuple[int, int] | FrameBudget | None = None,
    views: Sequence[str] | None = None,
    options: DataOptions | None = None,
) -> EpisodeSource:
    """Open one or several data sets and check everything that needs no decoding.

    Args:
        data: A LeRobot folder (v2.0, v2.1, v3.0), a folder of videos or pictures such as
            `episode_*/<camera>.mp4`, an HDF5 file (or a folder of such) in the layout of robomimic, LIBERO, Isaac
            Lab or ALOHA, `hf://USER/SET@REV`, or episodes that ship (`checkpoints/starts/pusht`, found from any
            folder); or several with the same cameras, frame rate, actions and states.
        size: `(H, W)` of the frames to read; by default the cameras' own size where they agree,
            else the largest height and the largest width. The aspect ratio is kept, the rest is padding.
            A `FrameBudget` makes large pictures smaller.
        views: Names of the cameras to read, in this order; by default all.
        options: Which episodes and columns to read; all by default. `episodes` counts in each data set.

    Raises:
        ValueError: If the data is malformed in any way, or lacks a camera; the message names file,
            episode, field and both values.

    Warns:
        DataWarning: Something about the data is odd; `worldmodel info` lists all of it.
    """
    chosen = asdict(options or DataOptions())
    request = Request(**chosen, size=size, views=None if views is None else tuple(views))
    paths = [data] if isinstance(data, str | Path) else list(data)
    if not paths:
        raise ValueError("no data set is given")
    sources = [open_set(path, request) for path in paths]
    for source in sources:
        _warn(source)
    return sources[0] if len(sources) == 1 else JoinedSource(sources)


def open_set(path: str | Path, request: Request) -> TableSource:
    """Open one data set; `path` is as in `open_episodes`."""
    if request.cache_gb is not None and not 0 <= request.cache_gb < math.inf:
        raise ValueError(f"--cache-gb {request.cache_gb}: expected a number from 0")
    if is_url(path):
        return _open_url(path, request)
    return _open_path(shipped(path), str(path), request)


def _open_url(url: str | Path, request: Request) -> TableSource:
    """Open a data set behind a URL; messages and notes name the URL."""
    path = stand_in(url, request.cache_gb)
    try:
        source = _open_path(path, whole_url(url), request)
    except ValueError as error:
        raise ValueError(told(str(error))) from error
    return replace(source, notes=tuple(told(note) for note in (*source.notes, *too_large(path))))


def _open_path(path: Path, name: str, request: Request) -> TableSource:
    opener = next((opener for fits, opener in FORMATS if fits(path)), refuse_unknown)
    source = replace(opener(path, request), name=name)
    selected = request.views is None or request.views == source.views
    return source if selected else source.select(request.views, request.size)


def refuse_unknown(path: Path, request: Request) -> NoReturn:
    """Raise a `ValueError` that says what the path holds, because no format recognises it."""
    if not path.exists():
        raise ValueError(f"{path}: the data set is missing, expected a folder or a file")
    raise ValueError(
        f"{path}: {contents(path)}, expected meta/info.json (LeRobot), episode_*/<camera>.mp4 or another layout of "
        f"docs/formats.md, or HDF5 files"
    )


def _warn(source: TableSource) -> None:
    if not source.notes:
        return
    more = len(source.notes) - SHOWN
    rest = f"; and {more} more, worldmodel info {source.name} lists them" if more > 0 else ""
    warnings.warn(f"{source.name}: {'; '.join(source.notes[:SHOWN])}{rest}", DataWarning, stacklevel=3)
