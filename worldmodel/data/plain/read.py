"""Plain folders: an episode is a folder of cameras and tables, or a video with tables beside it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from worldmodel.data.checks import disagreements, fail, shortened
from worldmodel.data.options import Request, chosen_episodes, intact_episodes
from worldmodel.data.plain.cameras import Camera, PlainPictures, open_camera
from worldmodel.data.plain.layout import (
    PICTURES,
    TABLES,
    EpisodeFiles,
    Layout,
    files_of,
    find_layout,
    role_tables,
    summary,
)
from worldmodel.data.plain.names import role_of
from worldmodel.data.plain.rows import EpisodeTables, read_rows
from worldmodel.data.source import TableSource, fingerprint, letterboxes

DEFAULT_FPS = 10.0
PICKLES = {".pkl", ".pickle", ".pt", ".pth"}
LIKE_TABLES = (
    (TABLES - {".txt"})
    | PICKLES
    | {".xlsx", ".xls", ".ods", ".mat", ".h5", ".hdf5", ".feather", ".arrow", ".bag", ".db3", ".mcap"}
)
SAME_RATE = 0.02  # relative; the average of a variable frame rate is not the same in every video
TOLERANCE = 2  # frames by which cameras of an episode may differ


def open_folder(path: Path, request: Request) -> TableSource:
    """Open a folder of episodes: videos or numbered pictures, with tables beside them.

    Layouts are `episode_*/<camera>.mp4`, folders of any other names, one video an episode, and one
    folder that is an episode itself. Tables are csv, npy, npz, json, jsonl or parquet; see
    `docs/formats.md` for how columns are found. Hidden files are ignored; others that are not read are named
    in the notes.

    Args:
        path: The folder, or a single video.
        request: What to read of it.

    Raises:
        ValueError: The layout can be understood in two ways, or episodes are broken; the message names all of them.
    """
    layout = find_layout(Path(path))
    root = Path(path) if Path(path).is_dir() else Path(path).parent
    chosen = chosen_episodes(str(path), len(layout.episodes), request.episodes)
    episodes = {number: layout.episodes[number] for number in chosen}
    views = request.views or _views(episodes.values())
    broken = {number: files.fault for number, files in episodes.items() if files.fault and not files.cameras}
    cameras = _open_cameras(root, episodes, views, broken)
    _compare_cameras(root, cameras, views, broken)
    _check_lengths(cameras, broken)
    readable = {number: episodes[number] for number in cameras if number not in broken}
    frames = _frames(cameras)
    tables = read_rows(root, readable, frames, request, broken)
    for number in readable.keys() & broken.keys():
        broken[number] = "; ".join(filter(None, (_uneven(cameras[number]), broken[number])))
    lengths = {number: length for number, (length, _) in frames.items()}
    kept, notes = intact_episodes(str(path), chosen, _short(root, broken), request)
    notes += _notes(
        root, layout, [episodes[n] for n in kept], [cameras[n] for n in kept], [tables[n] for n in kept], views
    )
    notes += _length_notes(kept, cameras, lengths)
    first = [cameras[kept[0]][view] for view in views]
    size, boxes = letterboxes((camera.size for camera in first), request.size)
    opened = [tuple(cameras[number][view] for view in views) for number in kept]
    return TableSource(
        name=str(path),
        views=tuple(views),
        fps=_usual_rate([camera.fps for row in opened for camera in row if camera.fps]) or DEFAULT_FPS,
        size=size,
        robot_type="",
        fingerprint=fingerprint(root, _all_files(layout)),
        lengths=tuple(lengths[number] for number in kept),
        boxes=boxes,
        cameras=tuple(views),
        pictures=PlainPictures(tuple(opened)),
        rows=tuple(tables[number].rows for number in kept),
        seeds=(None,) * len(kept),
        numbers=tuple(kept) if len(kept) < len(layout.episodes) or kept != sorted(kept) else (),
        notes=tuple(notes),
    )


def _all_files(layout: Layout) -> set[Path]:
    """Every file of every episode, so that the fingerprint does not depend on what is read."""
    cameras = [path for files in layout.episodes for path in files.cameras.values()]
    pictures = {picture for path in cameras if path.is_dir() for picture in files_of(path, PICTURES)}
    return {*cameras, *pictures, *(file for files in layout.episodes for file in files.tables.values())}


def _views(episodes: Iterable[EpisodeFiles]) -> tuple[str, ...]:
    """The cameras that at least half of the episodes have, by name; a depth camera is not one of them."""
    episodes = list(episodes)
    counts = Counter(camera for files in episodes for camera in files.cameras)
    common = sorted(camera for camera, count in counts.items() if 2 * count >= len(episodes))
    return tuple(camera for camera in common if "depth" not in camera.lower()) or tuple(common)


def _open_cameras(
    root: Path, episodes: Mapping[int, EpisodeFiles], views: Sequence[str], broken: dict[int, str]
) -> dict[int, dict[str, Camera]]:
    there = {view for files in episodes.values() for view in files.cameras}
    if not set(views) <= there or len(set(views)) < len(views) or not views:
        raise ValueError(
            f"{root}: cameras {list(views)} were asked for, each once, but the data has {sorted(there)}"
            if views
            else f"{root}: cameras are {sorted(there)}, none of them in half of the {len(episodes)} episodes"
        )
    opened: dict[int, dict[str, Camera]] = {}
    for number, files in episodes.items():
        opened[number] = {}
        if number in broken:
            continue
        missing = [view for view in views if view not in files.cameras]
        if missing:
            found = tuple(view for view in files.cameras if view in views)
            broken[number] = f"{files.name}: cameras are {found}, expected {tuple(views)} as in the other episodes"
            continue
        if files.fault:
            broken[number] = f"{files.name}: {files.fault}"
            continue
        try:
            opened[number] = {view: open_camera(files.cameras[view]) for view in views}
        except ValueError as error:
            broken[number] = str(error)
    return opened


def _compare_cameras(
    root: Path, cameras: Mapping[int, Mapping[str, Camera]], views: Sequence[str], broken: dict[int, str]
) -> None:
    """Mark episodes with another picture size or frame rate as broken."""
    for view in views:
        whole = {number: row[view] for number, row in cameras.items() if number not in broken}
        labels = {number: str(camera.path.relative_to(root)) for number, camera in whole.items()}
        sizes = {number: camera.size for number, camera in whole.items()}
        found = disagreements(f"size of {view}", sizes, labels)
        usual = round(_usual_rate([camera.fps for camera in whole.values()]), 2)
        rates = {
            number: usual if _alike(camera.fps, usual) else round(camera.fps, 2) for number, camera in whole.items()
        }
        found |= disagreements("frames per second", rates, labels)
        for number, reason in found.items():
            broken.setdefault(number, reason)
    for number, row in cameras.items():
        rates = [row[view].fps for view in views if number not in broken and row[view].fps]
        if rates and not _alike(min(rates), max(rates)):
            broken[number] = f"frames per second of the cameras are {min(rates):.4g} and {max(rates):.4g}, expected one"


def _usual_rate(rates: Sequence[float]) -> float:
    """The most common frame rate; if all differ, as with variable rates, the median."""
    common, count = Counter(round(rate, 2) for rate in rates).most_common(1)[0] if rates else (0.0, 0)
    return common if count > 1 or not rates else sorted(rates)[len(rates) // 2]


def _alike(rate: float, other: float) -> bool:
    return abs(rate - other) <= SAME_RATE * other


def _frames(cameras: Mapping[int, Mapping[str, Camera]]) -> dict[int, tuple[int, float]]:
    """Number of frames that all cameras of an episode have, and their rate."""
    return {
        number: (
            min(camera.num_frames for camera in row.values()),
            next((camera.fps for camera in row.values() if camera.fps), DEFAULT_FPS),
        )
        for number, row in cameras.items()
        if row
    }


def _uneven(cameras: Mapping[str, Camera]) -> str:
    """A message if the cameras of an episode differ in length; else an empty string."""
    shortest, longest = (pick(cameras.values(), key=lambda camera: camera.num_frames) for pick in (min, max))
    if shortest.num_frames == longest.num_frames:
        return ""
    return (
        f"{shortest.path}: number of frames is {shortest.num_frames}, "
        f"expected {longest.num_frames} as in {longest.path.name}"
    )


def _check_lengths(cameras: Mapping[int, Mapping[str, Camera]], broken: dict[int, str]) -> None:
    """Allow a camera to be longer by a frame or two, if the tables agree with the shortest camera."""
    for number, row in cameras.items():
        lengths = [camera.num_frames for camera in row.values()]
        if number not in broken and max(lengths) - min(lengths) > TOLERANCE:
            broken[number] = _uneven(row)


def _short(root: Path, broken: Mapping[int, str]) -> dict[int, str]:
    """The reasons in one line, with paths relative to the folder."""
    return {number: " ".join(shortened(reason, f"{root}/").split()) for number, reason in broken.items()}


def _length_notes(
    kept: Sequence[int], cameras: Mapping[int, Mapping[str, Camera]], lengths: Mapping[int, int]
) -> list[str]:
    longer = [
        f"{camera.path.parent.name}/{camera.path.name} by {camera.num_frames - lengths[number]}"
        for number in kept
        for camera in cameras[number].values()
        if camera.num_frames > lengths[number]
    ]
    shown = ", ".join(longer[:3]) + (f" and {len(longer) - 3} more" if len(longer) > 3 else "")
    return [f"videos are longer than the shortest camera and are cut: {shown} frames"] if longer else []


def _refuse_tables_beside(root: Path, layout: Layout) -> None:
    """Refuse actions or states beside the episodes, in a file or a folder, if none were found in the episodes."""
    files, folders = role_tables(root), [path.name for path in layout.unread if path.is_dir() and role_of(path.name)]
    for name in [*(path.name for path in layout.unread if path.name in files), *folders]:
        there = layout.episodes[0].name
        fail(root / name, "place", f"beside the episodes, such as {there}", "a table of actions in each of them")


def _notes(
    root: Path,
    layout: Layout,
    episodes: Sequence[EpisodeFiles],
    cameras: Sequence[Mapping[str, Camera]],
    tables: Sequence[EpisodeTables],
    views: Sequence[str],
) -> list[str]:
    notes = [note for table in tables for note in table.notes]
    unread = [*layout.unread, *(path for files in episodes for path in files.unread)]
    unread += [file for table in tables for file in table.unread]
    unlabelled = tables[0].rows.actions is None
    if unlabelled:
        _refuse_tables_beside(root, layout)
    if unlabelled and any(path.suffix.lower() in LIKE_TABLES and path.is_file() for path in unread):
        notes.insert(0, "no actions are read, the video is unlabelled; --action-keys can name columns that hold them")
    notes += [camera.note for row in cameras for camera in row.values() if camera.note]
    rates = [camera.fps for row in cameras for camera in row.values() if camera.fps]
    if rates and round(min(rates), 2) < round(max(rates), 2):
        notes.append(f"frames per second are {min(rates):.4g} to {max(rates):.4g}, {_usual_rate(rates):.4g} are used")
    if not any(camera.fps for camera in cameras[0].values()):
        notes.append(f"pictures do not tell frames per second, {DEFAULT_FPS:g} are assumed")
    common = set(_views(layout.episodes)) | set(views)
    extra = [Path(view) for files in episodes for view in files.cameras if view not in common]
    if extra:
        notes.append(f"cameras left out: {summary(extra, str)}; --views can name them")
    pickles = [path for path in unread if path.suffix.lower() in PICKLES]
    others = [path for path in unread if path not in pickles]
    if pickles:
        notes.append(f"not read, because opening them can run programs: {summary(pickles, lambda path: path.name)}")
    if others:
        notes.append(f"not read: {summary(others, lambda path: path.name + '/' * path.is_dir())}")
    return list(dict.fromkeys(notes))
