"""Which cameras are read, where their pictures are, and of which size."""

from collections import Counter
from collections.abc import Mapping, Sequence

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.episodes import Episode
from worldmodel.data.lerobot.files import Files
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import PREFIX, Info
from worldmodel.data.lerobot.keys import Keys


def choose_cameras(
    info: Info,
    files: Files,
    keys: Keys,
    episodes: Mapping[int, Episode],
    asked: Sequence[str] | None,
    findings: Findings,
) -> dict[str, tuple[str, str]]:
    """Key of each camera by its view, and whether its pictures are in a `video` or in a `table`.

    Raises:
        ValueError: There is none, one that is asked for does not exist, or the names of the declared
            cameras are not those of the files.
    """
    places = {key: _stored(info, files, keys, episodes, key) for key in info.cameras}
    undeclared = sorted(({*files.videos, *keys.pictures} & _camera_folders(info, files, keys)) - set(info.cameras))
    lacking = [key for key, stored in places.items() if not stored]
    names = view_names(info.cameras)
    views: dict[str, tuple[str, str]] = {}
    for view in names if asked is None else asked:
        key = names.get(view, "")
        if key not in places or view in views:
            found = [name for name, other in names.items() if places[other] and not info.features[other].depth]
            raise ValueError(
                f"{info.folder}: cameras {list(asked or ())} were asked for, each once, but the data has {found}"
            )
        reason = info.features[key].depth or ("" if places[key] else "it has no files")
        if reason and asked is not None:
            raise ValueError(f"{info.folder}: camera {view} cannot be read: {reason}")
        if reason:
            findings.note(f"camera {key} is left out: {reason}")
        else:
            if (info.features[key].dtype == "video") != (places[key] == "video"):
                findings.note(
                    f"{info.file}: dtype of {key} is {info.features[key].dtype}, its pictures are in {places[key]}s"
                )
            views[view] = key, places[key]
    if asked is None and undeclared and lacking:
        fail(info.file, "cameras", f"{lacking}, without files", f"{undeclared}, whose files are there")
    if asked is None:
        for key in undeclared:
            declared = info.features[key].dtype if key in info.features else None
            if declared is not None:
                fail(info.file, f"dtype of {key}", repr(declared), "video or image: its pictures are there")
            findings.note(f"pictures of {key} are there, but {info.file} does not declare it; left out")
    if not views:
        fail(info.file, "number of cameras", 0, "at least one camera with pictures")
    return views


def _camera_folders(info: Info, files: Files, keys: Keys) -> set[str]:
    """Names under which pictures are stored, as far as they can be keys of cameras."""
    chunks = {part for part in files.videos if part.startswith("chunk")}
    return ({*files.videos} - chunks) | set(keys.pictures)


def _stored(info: Info, files: Files, keys: Keys, episodes: Mapping[int, Episode], key: str) -> str:
    """Where the pictures of a camera are; empty if there are none."""
    if key in files.videos:
        return "video"
    if key in keys.pictures:
        return "table"
    for episode in episodes.values() if info.features[key].dtype == "video" else ():
        try:
            files.video(episode, key)
        except ValueError:
            continue
        return "video"
    return ""


def view_names(keys: Sequence[str]) -> dict[str, str]:
    """The camera key by the name of its view, which is the key without `observation.images.`."""
    short = [key.removeprefix(PREFIX) for key in keys]
    return {name if short.count(name) == 1 else key: key for key, name in zip(keys, short, strict=True)}


def common_size(
    info: Info, key: str, sizes: Mapping[int, tuple[int, int]], wanted: Sequence[int], findings: Findings
) -> tuple[int, int]:
    """Picture size of most episodes; others are blamed."""
    counts = Counter(sizes[number] for number in wanted if number in sizes)
    declared = info.features[key].size
    if not counts:
        return declared or (1, 1)
    common = max(counts, key=lambda size: (counts[size], size == declared))
    for number, size in sizes.items():
        if size != common:
            findings.blame(number, f"size of {key} is {size}, expected {common} as in other episodes")
    return common


def check_sizes(info: Info, sizes: Mapping[str, tuple[int, int]], findings: Findings) -> None:
    """Note pictures of another size than declared.

    Raises:
        ValueError: Two cameras have each other's size: their files may be exchanged.
    """
    declared = {key: info.features[key].size for key in sizes}
    other = {key: size for key, size in sizes.items() if size != declared[key]}
    for key, size in other.items():
        for second in other:
            if second != key and size == declared[second] and sizes[second] == declared[key]:
                fail(info.file, f"shape of {key}", declared[key], f"{size}; {key} and {second} may be exchanged")
        findings.note(f"{info.file}: shape of {key} is {declared[key] or 'none'}, the pictures are {size}")
