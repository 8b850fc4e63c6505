"""Plain folders of videos, `episode_*/<camera>.mp4`, with tables beside them if there are any."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from worldmodel.data.checks import fail, matrix, the_same
from worldmodel.data.options import Request
from worldmodel.data.source import Rows, TableSource, VideoPictures, fingerprint, letterboxes
from worldmodel.data.video.decoders import VideoInfo, video_info

TABLES = ("actions", "states", "rewards", "successes")
SUFFIXES = (".npy", ".csv")
BROKEN_TABLE = (OSError, ValueError, EOFError, MemoryError, OverflowError)


def episode_folders(folder: Path) -> list[Path]:
    """The folders `episode_*`, ordered by the numbers in their names."""
    found = [path for path in folder.glob("episode_*") if path.is_dir()]

    def order(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(part) if part.isdigit() else -1, part) for part in parts]

    return sorted(found, key=order)


def open_folder(path: Path, request: Request) -> TableSource:
    """Open `episode_*/<camera>.mp4` with `actions`, `states`, `rewards`, `successes` beside them.

    Each table is optional, `.npy` or `.csv` (comma-separated, with or without a line of names), one
    row per frame; actions, rewards and successes may lack the row of the last frame. All episodes
    have the same cameras, picture sizes, frame rate and tables. Hidden files are ignored.

    Args:
        path: The folder that holds the `episode_*` folders.
        request: What to read of it.

    Raises:
        ValueError: If an episode differs from the others, or a file is malformed; the message names
            file, episode, field and both values.
    """
    root = Path(path)
    folders = episode_folders(root)
    if not folders:
        fail(root, "number of folders episode_*", 0, "at least 1")
    views = the_same("cameras", {folder: _cameras(folder) for folder in folders})
    videos = [[folder / f"{view}.mp4" for view in views] for folder in folders]
    infos = {video: video_info(video) for row in videos for video in row}
    the_same("frames per second", {video: round(info.fps, 2) for video, info in infos.items()})
    lengths = [_length(index, row, infos) for index, row in enumerate(videos)]
    tables = the_same("tables", {folder: tuple(_tables(folder)) for folder in folders})
    rows = [_rows(index, folder, length) for index, (folder, length) in enumerate(zip(folders, lengths, strict=True))]
    for name in tables:
        widths = [np.shape(getattr(row, name))[1:] for row in rows]
        the_same(f"width of {name}", dict(zip(folders, widths, strict=True)))
    sizes = [
        the_same(f"size of {view}", {row[camera]: infos[row[camera]].size for row in videos})
        for camera, view in enumerate(views)
    ]
    size, boxes = letterboxes(sizes, request.size)
    return TableSource(
        name=str(path),
        views=views,
        fps=infos[videos[0][0]].fps,
        size=size,
        robot_type="",
        fingerprint=fingerprint(root, (file for folder in folders for file in folder.iterdir())),
        lengths=tuple(lengths),
        boxes=boxes,
        cameras=views,
        pictures=VideoPictures(tuple(tuple((video, 0) for video in row) for row in videos)),
        rows=tuple(rows),
        seeds=(None,) * len(rows),
    )


def _cameras(folder: Path) -> tuple[str, ...]:
    cameras = tuple(sorted(file.stem for file in folder.glob("[!.]*.mp4")))
    if not cameras:
        fail(folder, "number of mp4 files", 0, "at least 1")
    return cameras


def _length(episode: int, videos: list[Path], infos: dict[Path, VideoInfo]) -> int:
    """The number of frames, which all cameras of an episode share."""
    length = infos[videos[0]].num_frames
    for video in videos:
        if infos[video].num_frames != length:
            expected = f"{length} as in {videos[0].name}"
            fail(video, "number of frames", infos[video].num_frames, expected, episode)
    return length


def _tables(folder: Path) -> dict[str, Path]:
    """The table files by name, in the order of `TABLES`."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix not in SUFFIXES or file.name.startswith("."):
            continue
        if file.stem not in TABLES:
            fail(file, "name of a table", repr(file.stem), f"one of {', '.join(TABLES)}")
        if file.stem in found:
            fail(folder, f"files of {file.stem}", f"{found[file.stem].name}, {file.name}", "one")
        found[file.stem] = file
    return {name: found[name] for name in TABLES if name in found}


def _rows(episode: int, folder: Path, length: int) -> Rows:
    columns: dict[str, np.ndarray | None] = dict.fromkeys(TABLES)
    for name, file in _tables(folder).items():
        values = _read_csv(file) if file.suffix == ".csv" else _read_npy(file)
        rows = (length,) if name == "states" else (length, max(length - 1, 1))
        columns[name] = matrix(file, name, values, rows, episode)
    for name in ("rewards", "successes"):
        columns[name] = _one_column(folder, name, columns[name], episode)
    successes = columns.pop("successes")
    return Rows(task="", **columns, successes=None if successes is None else successes > 0)


def _one_column(
    folder: Path, name: str, values: Float32[np.ndarray, "rows width"] | None, episode: int
) -> Float32[np.ndarray, " rows"] | None:
    if values is None:
        return None
    if values.shape[1] != 1:
        fail(folder, f"width of {name}", values.shape[1], 1, episode)
    return values[:, 0]


def _read_npy(file: Path) -> Shaped[np.ndarray, "..."]:
    try:
        with file.open("rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except BROKEN_TABLE as error:
        raise ValueError(f"{file}: content is not a readable array: {error}") from error


def _read_csv(file: Path) -> Shaped[np.ndarray, "rows width"]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if lines and not _is_number(lines[0].split(",")[0]):
            lines = lines[1:]
        cells = [line.split(",") for line in lines]
        for number, row in enumerate(cells):
            if len(row) != len(cells[0]):
                fail(file, f"width of row {number}", len(row), len(cells[0]))
        return np.array(cells, np.float64).reshape(len(cells), -1)
    except BROKEN_TABLE as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file}: content is not a readable table: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
