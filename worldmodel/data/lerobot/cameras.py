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
    names = view_names(info.cameras)
    if asked is None:
        _check_undeclared(info, files, keys, [key for key, stored in places.items() if not stored], findings)
    elif not asked or len(set(asked)) < len(asked) or not set(asked) <= set(names):
        found = [name for name, key in names.items() if places[key] and not info.features[key].depth]
        raise ValueError(f"{info.folder}: cameras {list(asked)} were asked for, each once, but the data has {found}")
    views: dict[str, tuple[str, str]] = {}
    for view in names if asked is None else asked:
        key = names[view]
        feature, stored = info.features[key], places[key]
        reason = feature.depth or ("" if stored else "it has no files")
        if reason and asked is not None:
            raise ValueError(f"{info.folder}: camera {view} cannot be read: {reason}")
        if reason:
            findings.note(f"camera {key} is left out: {reason}")
            continue
        if (feature.dtype == "video") != (stored == "video"):
            findings.note(f"{info.file}: dtype of {key} is {feature.dtype}, its pictures are in {stored}s")
        views[view] = key, stored
    if not views:
        fail(info.file, "number of cameras", 0, "at least one camera with pictures")
    return views


def _check_undeclared(info: Info, files: Files, keys: Keys, lacking: Sequence[str], findings: Findings) -> None:
    """Note the pictures that exist but are not declared.

    Raises:
        ValueError: They may belong to a declared camera that has no pictures.
    """
    undeclared = sorted({*files.cameras, *keys.pictures} - set(info.cameras))
    unknown = [key for key in undeclared if key not in info.features]
    if unknown and lacking:
        fail(info.file, "cameras", f"{list(lacking)}, without files", f"{unknown}, whose files are there")
    for key in undeclared:
        dtype = info.features[key].dtype if key in info.features else None
        if dtype == "":
            fail(info.file, f"dtype of {key}", "missing", "video or image: its pictures are there")
        how = "not at all" if dtype is None else f"as {dtype}"
        findings.note(f"pictures of {key} are there, but {info.file} declares it {how}; left out")


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
    """The picture size of most episodes; episodes with another size are marked as broken."""
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
