"""Which files of a plain folder belong to which episode."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from worldmodel.data.plain.names import ROLES, role_of

VIDEOS = {".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm"}
PICTURES = {".png", ".jpg", ".jpeg"}
TABLES = {".npy", ".npz", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".parquet"}
ARRAYS = {".npy", ".csv", ".tsv"}  # that hold the actions if they are named like the video and nothing else
LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
WRAPPERS = {"videos", "video", "images", "image", "imgs", "frames", "cameras", "rgb"}
EPISODE = re.compile(r"(episode|ep|demo|traj|trajectory|run|seq|sequence|rollout)[-_ ]?\d+")
SERIAL = 8  # digits of a camera's serial number
ONE_CAMERA = "camera"  # its name where the files do not name it


@dataclass
class EpisodeFiles:
    """The files of one episode.

    Attributes:
        name: Of its folder or file, for messages.
        cameras: Videos, and folders of pictures, by the camera's name.
        tables: All tables, by name of their role or else of the file.
        unread: Other files.
        fault: Why it cannot be opened; empty if it can.
    """

    name: str
    cameras: dict[str, Path] = field(default_factory=dict)
    tables: dict[str, Path] = field(default_factory=dict)
    unread: list[Path] = field(default_factory=list)
    fault: str = ""

    def add(self, kind: str, name: str, file: Path) -> None:
        """Add a camera or a table; two files for one are a fault."""
        known = self.cameras if kind == "camera" else self.tables
        if name in known:
            self.fault = f"files of {kind} {name} are {known[name].name}, {file.name}, expected one"
        known[name] = file


@dataclass
class Layout:
    """The episodes of a folder, in the order of the numbers in their names, and the other entries of the folder."""

    episodes: list[EpisodeFiles]
    unread: list[Path] = field(default_factory=list)


def natural(path: Path) -> list[tuple[int, str]]:
    """A sorting key that compares the numbers inside names as numbers."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part) if part.isdecimal() else -1, part) for part in parts]


def visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden ones and what operating systems leave behind."""
    found = (path for path in folder.iterdir() if not path.name.startswith((".", "~$")))
    return sorted((path for path in found if path.name.lower() not in LITTER), key=natural)


def holds_episodes(path: Path) -> bool:
    """Whether it is a video, or a folder that holds videos or pictures, directly or up to three folders down."""
    if path.is_file():
        return path.suffix.lower() in VIDEOS
    return path.is_dir() and bool(
        files_of(path, VIDEOS | PICTURES)
        or any(_has_pictures(child) or any(map(_has_pictures, _folders(child))) for child in _folders(path))
    )


def files_of(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files with one of the suffixes, whatever their case."""
    return [path for path in visible(folder) if path.suffix.lower() in suffixes and path.is_file()]


def find_layout(root: Path) -> Layout:
    """Sort the files of a folder into episodes; a video is an episode itself.

    Raises:
        ValueError: There are no episodes, or the layout can be understood in two ways.
    """
    if root.is_file():
        flat = _flat(root.parent, [root])
        return Layout(flat.episodes, [path for path in flat.unread if path.is_file() and role_of(path.stem)])
    folders, videos = _folders(root), files_of(root, VIDEOS)
    has_tables = bool(role_tables(root))
    nested = [folder for folder in folders if _holds_cameras(folder)]
    wrapped = bool(nested) and all(folder.name.lower() in WRAPPERS for folder in nested)
    if nested and not (has_tables and (videos or wrapped)):
        return _episode_folders(root, folders, nested)
    sequences = [folder for folder in folders if files_of(folder, PICTURES)]
    if has_tables and (videos or wrapped or sequences or files_of(root, PICTURES)):
        _refuse_two_layouts(root, videos)
        return Layout([_episode(root, root.name)])
    if sequences and not videos:
        return _picture_folders(root, folders, sequences)
    if videos:
        return _flat(root, videos)
    if files_of(root, PICTURES):
        return Layout([_episode(root, root.name)])
    raise ValueError(
        f"{root}: holds {_tree(root)}, expected episode_*/<camera>.mp4 or another layout of docs/formats.md"
    )


def _folders(path: Path) -> list[Path]:
    return [child for child in visible(path) if child.is_dir()] if path.is_dir() else []


def _has_pictures(folder: Path) -> bool:
    return bool(files_of(folder, VIDEOS | PICTURES))


def _holds_cameras(folder: Path) -> bool:
    """Whether it is an episode: it holds videos, or folders of pictures."""
    inside = _folders(folder)
    deeper = [child for wrapper in inside if wrapper.name.lower() in WRAPPERS for child in _folders(wrapper)]
    return bool(files_of(folder, VIDEOS)) or any(map(_has_pictures, [*inside, *deeper]))


def skeleton(name: str) -> str:
    """A name without its numbers."""
    return re.sub(r"\d+", "#", name.lower())


def _episode_folders(root: Path, folders: list[Path], nested: list[Path]) -> Layout:
    named = [folder for folder in folders if folder.name.lower().startswith("episode")]
    if named:
        chosen = named
    else:
        shapes = Counter(skeleton(folder.name) for folder in nested)
        common, count = shapes.most_common(1)[0]
        odd = [folder.name for folder in nested if skeleton(folder.name) != common]
        if "#" in common and count > 1 and odd:
            example = next(folder.name for folder in nested if skeleton(folder.name) == common)
            raise ValueError(
                f"{root}: folders {_listed(odd)} hold videos but are named unlike {example}, "
                f"expected episodes that are named alike"
            )
        alike = set(nested) | {folder for folder in folders if "#" in common and skeleton(folder.name) == common}
        chosen = [folder for folder in folders if folder in alike]
    episodes, taken = [_episode(folder, folder.name) for folder in chosen], set(chosen)
    if not named:
        _refuse_cameras_named_like_episodes(episodes, chosen)
    return Layout(episodes, [path for path in visible(root) if path not in taken])


def _picture_folders(root: Path, folders: list[Path], sequences: list[Path]) -> Layout:
    """Folders of pictures are episodes of one camera, or cameras of one episode."""
    names = [folder.name.lower() for folder in sequences]
    like_cameras = all(name.startswith(("cam", "view")) or not re.search(r"\d", name) for name in names)
    like_episodes = all(name.isdecimal() or EPISODE.fullmatch(name) for name in names)
    if like_episodes:
        episodes, taken = [_episode(folder, folder.name) for folder in sequences], set(sequences)
        return Layout(episodes, [path for path in visible(root) if path not in taken])
    if like_cameras:
        return Layout([_episode(root, root.name)])
    raise ValueError(
        f"{root}: folders of pictures {_listed(names)} may be episodes or cameras of one episode, "
        "expected episode_*/<camera>/ or the tables of one episode beside them"
    )


def _flat(root: Path, videos: list[Path]) -> Layout:
    """One episode a video, its tables beside it under the same name."""
    stems = [video.stem for video in videos]
    if len(stems) > 1 and not _numbered(stems):
        raise ValueError(
            f"{root}: videos {_listed(video.name for video in videos)} may be episodes or cameras of one episode, "
            "expected numbered names such as 0000.mp4, or episode_0/<camera>.mp4"
        )
    episodes = {stem: EpisodeFiles(stem) for stem in stems}
    for video in videos:
        episodes[video.stem].add("camera", ONE_CAMERA, video)
    unread: list[Path] = []
    for path in visible(root):
        if path in videos:
            continue
        owner, name = _owner(path, stems)
        if path.is_file() and path.suffix.lower() in TABLES and owner and (path.suffix != ".txt" or name in ROLES):
            episodes[owner].add("table", name, path)
        else:
            unread.append(path)
    return Layout(list(episodes.values()), unread)


def _owner(path: Path, stems: list[str]) -> tuple[str, str]:
    """The video that a table lies beside, and what the table is called: `0000.npy`, `0000_states.npy`."""
    if path.stem in stems:
        return path.stem, "actions" if path.suffix.lower() in ARRAYS else path.name
    for role in ROLES:
        for spelling in ROLES[role]:
            for stem in stems:
                if path.stem.lower() in {form.lower() for form in _beside(stem, spelling)}:
                    return stem, role
    return "", ""


def _beside(stem: str, spelling: str) -> list[str]:
    return [f"{stem}{mark}{spelling}" for mark in "_.-"] + [f"{spelling}{mark}{stem}" for mark in "_.-"]


def _episode(folder: Path, name: str) -> EpisodeFiles:
    files = EpisodeFiles(name)
    for path in visible(folder):
        _sort_in(files, path)
    if files_of(folder, PICTURES):
        if files.cameras:
            files.unread += files_of(folder, PICTURES)
        else:
            files.add("camera", ONE_CAMERA, folder)
    if not files.cameras:
        files.fault = f"{name}: number of mp4 files or other videos is 0, expected at least 1"
    return files


def _sort_in(files: EpisodeFiles, path: Path) -> None:
    suffix = path.suffix.lower()
    if path.is_dir() and files_of(path, PICTURES):
        files.add("camera", path.name, path)
    elif path.is_dir() and path.name.lower() not in WRAPPERS and len(files_of(path, VIDEOS)) == 1:
        files.add("camera", path.name, files_of(path, VIDEOS)[0])
    elif path.is_dir() and path.name.lower() in WRAPPERS and _holds_cameras(path):
        for inner in visible(path):
            _sort_in(files, inner)
    elif suffix in VIDEOS and path.is_file():
        files.add("camera", path.stem, path)
    elif path.is_file() and (suffix in TABLES - {".txt"} or (suffix in TABLES and role_of(path.stem))):
        files.add("table", role_of(path.stem) or path.name, path)
    elif suffix not in PICTURES:
        files.unread.append(path)


def _numbered(stems: Sequence[str]) -> bool:
    """Whether names differ in a number only, and are not `cam0`, `cam1`."""
    shapes = {skeleton(stem) for stem in stems}
    return len(shapes) == 1 and "#" in next(iter(shapes)) and not next(iter(shapes)).startswith(("cam", "view"))


def _refuse_two_layouts(root: Path, videos: list[Path]) -> None:
    stems = [video.stem for video in videos]
    beside = [file.name for file in files_of(root, TABLES) if file.stem in stems]
    if beside:
        raise ValueError(
            f"{root}: {_listed(beside)} lie beside videos of the same name and {_listed(role_tables(root))} "
            f"belong to no video, "
            "expected one episode or one episode a video"
        )
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    if len(numbers) == len(stems) > 1 and numbers in (list(range(len(stems))), list(range(1, len(stems) + 1))):
        raise ValueError(
            f"{root}: videos {_listed(stems)} beside {_listed(role_tables(root))} may be episodes or cameras "
            "of one episode, expected episode_0/<camera>.mp4"
        )


def role_tables(folder: Path) -> list[str]:
    """Names of the tables that are called like actions, states, rewards or successes."""
    return [file.name for file in files_of(folder, TABLES) if role_of(file.stem)]


def _refuse_cameras_named_like_episodes(episodes: Sequence[EpisodeFiles], folders: Sequence[Path]) -> None:
    """Raise a `ValueError` for `data/episode_0/top.mp4` or `top/0000.mp4`, where apparent cameras may be episodes."""
    for files, folder in zip(episodes, folders, strict=True):
        words = all(EPISODE.fullmatch(name.lower()) for name in files.cameras)
        numbers = all(name.isdecimal() and len(name) < SERIAL for name in files.cameras)
        numbered = len(files.cameras) > 1 and len(episodes) == 1 and _numbered(list(files.cameras))
        unclear = words or (
            (numbers or numbered) and not re.search(r"\d$", folder.name) and "actions" not in files.tables
        )
        if files.cameras and unclear:
            raise ValueError(
                f"{folder}: {_listed(files.cameras)} may be episodes or cameras of one episode; "
                f"open {folder} itself if they are episodes, name it episode_0 if they are cameras"
            )


def _listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _tree(root: Path) -> str:
    return _listed(f"{path.name}/" if path.is_dir() else path.name for path in visible(root)) or "nothing"


def contents(root: Path, most: int = 2000) -> str:
    """A short text about what a path holds: its entries, and the first video or picture further down."""
    if root.is_file():
        return f"is a file {root.suffix or 'without a suffix'}"
    below = islice((Path(folder, name) for folder, _, names in os.walk(root) for name in sorted(names)), most)
    found = next((path for path in below if path.suffix.lower() in VIDEOS | PICTURES), None)
    deeper = f", videos or pictures lie too deep, such as {found.relative_to(root)}" if found else ""
    return f"holds {_tree(root)}{deeper}"


def summary(paths: Iterable[Path], place: Callable[[Path], str]) -> str:
    """A short list of files: each name once, with the number of places where it occurs."""
    counts = Counter(place(path) for path in paths)
    return _listed((name if count == 1 else f"{name} ({count} times)" for name, count in counts.items()), 6)
