"""HDF5 files: demonstrations of robomimic, LIBERO and Isaac Lab, episodes of ALOHA."""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path

import h5py
import numpy as np

from worldmodel.data.checks import disagreements, fail, shortened, the_same
from worldmodel.data.hdf5.aloha import FPS, is_aloha, read_aloha
from worldmodel.data.hdf5.demos import About, demo_names, read_about, read_demo
from worldmodel.data.hdf5.files import member, opened, tree
from worldmodel.data.hdf5.pictures import Demo, HDF5Pictures
from worldmodel.data.options import Request, chosen_episodes, intact_episodes
from worldmodel.data.source import TableSource, fingerprint, letterboxes

SUFFIXES = (".hdf5", ".h5", ".hdf")
KNOWN = "data/demo_*/obs/<camera> (robomimic, LIBERO, Isaac Lab) or observations/images/<camera> (ALOHA, ACT)"


def hdf5_files(path: Path) -> list[Path]:
    """`path` itself, or the HDF5 files inside, in the order of the numbers in their names."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    found = (file for file in path.glob("[!.]*") if file.suffix.lower() in SUFFIXES and file.is_file())

    def order(file: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(int(part) if part.isdecimal() else -1, part) for part in parts]

    return sorted(found, key=order)


def open_hdf5(path: Path, request: Request) -> TableSource:
    """Open demonstrations of robomimic (2108.03298), LIBERO (2306.03310), Isaac Lab and ALOHA (2304.13705).

    Cameras are `obs/<camera>` (without `_image` or `_rgb`) or `observations/images/<camera>`, shown as they
    are stored: LIBERO stores them upside down. The state concatenates those keys of `PROPRIOCEPTION` that
    exist, or is `qpos`. `actions` and `rewards` are optional. Frames per second are `control_freq` of
    `env_args`, or 20; ALOHA has 50.

    Args:
        path: An HDF5 file, or a folder of such files with the same robot.
        request: What to read of it.

    Raises:
        ValueError: The layout is not known, or episodes are broken; the message names all of them.
    """
    root = Path(path)
    files = hdf5_files(root)
    if not files:
        fail(root, "number of HDF5 files", 0, "at least 1")
    places, about = _places(files)
    chosen = chosen_episodes(str(path), len(places), request.episodes)
    demos, broken = _read(places, about, chosen, request)
    _compare(demos, broken)
    prefix = f"{root}/" if root.is_dir() else f"{root}: "
    short = {number: shortened(reason, prefix) for number, reason in broken.items()}
    kept, notes = intact_episodes(str(path), chosen, short, request)
    rows = [demos[number] for number in kept]
    notes += dict.fromkeys(note for demo in rows for note in demo.notes)
    if root.is_dir():
        beside = [file.name for file in sorted(root.glob("[!.]*")) if file not in files]
        notes += [f"not read: {', '.join(beside[:6])}{' ...' * (len(beside) > 6)}"] * bool(beside)
    views = request.views or tuple(rows[0].cameras)
    size, boxes = letterboxes((rows[0].cameras[view].size for view in views), request.size)
    rates = {file: facts.fps if facts else FPS for file, facts in about.items()}
    robots = dict.fromkeys(facts.robot for facts in about.values() if facts)
    return TableSource(
        name=str(path),
        views=tuple(views),
        fps=the_same("control_freq", rates),
        size=size,
        robot_type=" / ".join(robots),
        fingerprint=fingerprint(files[0].parent, files),
        lengths=tuple(demo.length for demo in rows),
        boxes=boxes,
        cameras=tuple(views),
        pictures=HDF5Pictures(tuple(rows), tuple(views)),
        rows=tuple(demo.rows for demo in rows),
        seeds=(None,) * len(rows),
        numbers=tuple(kept) if kept != list(range(len(places))) else (),
        notes=tuple(notes),
    )


def _places(files: list[Path]) -> tuple[list[tuple[Path, str]], dict[Path, About | None]]:
    """File and group of every episode; a file of ALOHA is one episode, in the group `/`.

    A file that is not readable among those of ALOHA is one broken episode. Of other layouts, it is not known how many
    episodes it should hold.

    Raises:
        ValueError: Files are not readable, or of no known layout.
    """
    found: dict[Path, tuple[About | None, list[str]]] = {}
    faults: dict[Path, str] = {}
    for file in files:
        try:
            with opened(file) as content:
                found[file] = (None, ["/"]) if is_aloha(content) else _demonstrations(file, content)
        except ValueError as error:
            faults[file] = " ".join(str(error).split())
    if faults and (not found or any(about for about, _ in found.values())):
        raise ValueError("; ".join(faults.values()))
    found |= {file: (None, ["/"]) for file in faults}
    places = [(file, name) for file in files for name in found[file][1]]
    return places, {file: found[file][0] for file in files}


def _demonstrations(file: Path, content: h5py.File) -> tuple[About, list[str]]:
    if not isinstance(content.get("data"), h5py.Group):
        raise ValueError(f"{file}: /data is missing; it holds {tree(content)}; expected {KNOWN}")
    data = member(file, content, "data", h5py.Group)
    names = demo_names(data)
    if not names:
        raise ValueError(f"{file}: number of data/demo_* is 0 of {tree(content)}; expected at least 1, or {KNOWN}")
    return read_about(file, data), [f"data/{name}" for name in names]


def _read(
    places: list[tuple[Path, str]], about: Mapping[Path, About | None], chosen: list[int], request: Request
) -> tuple[dict[int, Demo], dict[int, str]]:
    demos: dict[int, Demo] = {}
    broken: dict[int, str] = {}
    for number in chosen:
        file, name = places[number]
        facts = about[file]
        try:
            with opened(file) as content:
                if facts is None:
                    demos[number] = read_aloha(file, content, number, request)
                else:
                    group = member(file, content, name, h5py.Group, number)
                    demos[number] = read_demo(file, group, number, facts, request)
        except ValueError as error:
            broken[number] = " ".join(str(error).split())
    return demos, broken


def _compare(demos: Mapping[int, Demo], broken: dict[int, str]) -> None:
    """Mark episodes with other cameras, picture sizes, tables or widths as broken."""
    labels = {number: f"{demo.file}: {_group(demo)}" for number, demo in demos.items()}

    def compare(name: str, values: dict[int, Hashable]) -> None:
        for number, reason in disagreements(name, values, labels).items():
            broken.setdefault(number, reason)

    for number, demo in demos.items():
        for view, kind in demo.left_out.items():
            read = sum(view in other.cameras for other in demos.values())
            if view not in demo.cameras and 2 * read >= len(demos):
                broken[number] = f"{labels[number]}: {view} is {kind}, expected uint8 (frames, height, width, 3)"
    compare("pictures", {n: tuple((v, s.size) for v, s in demo.cameras.items()) for n, demo in demos.items()})
    for table in ("actions", "states", "rewards", "successes"):
        values = {number: getattr(demo.rows, table) for number, demo in demos.items()}
        compare(f"presence of {table}", {number: value is not None for number, value in values.items()})
        compare(f"width of {table}", {number: np.shape(value)[1:] for number, value in values.items()})
    compare("rows of actions without that of the last frame", {n: demo.ends_early for n, demo in demos.items()})


def _group(demo: Demo) -> str:
    name = next(iter(demo.cameras.values())).name
    return name.partition("/obs")[0]
