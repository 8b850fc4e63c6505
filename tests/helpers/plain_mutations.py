"""Random changes of plain folders: each opens right or is refused in one line; none may shift or lose actions."""

import csv
import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from plain_folders import CAMERAS, LENGTHS, actions, assert_true, csv_text, states, video, write_plain

from worldmodel.data.formats import open_set
from worldmodel.data.options import Request
from worldmodel.data.source import TableSource

CSV = "actions.csv"
FORMS = {
    "pandas": True,
    "index": True,
    "numbers": True,
    "time": True,
    "bare": True,
    "short": True,
    "%g": True,
    "one column": True,
    "blank line": False,
    "timestep": True,
    "id": True,
}
"""Ways to write the CSV, and whether a folder of it opens."""
Rows = list[list[str]]


def write_form(folder: Path, form: str) -> Path:
    """A whole folder whose CSV is written in one of `FORMS`."""

    def write(part: Path, episode: int, length: int) -> None:
        values = actions(episode, length)
        rows = [[repr(value) for value in row] for row in values.tolist()]
        header = ["x", "y", "z", "g"]
        if form == "index":
            header, rows = ["", *header], [[str(index), *row] for index, row in enumerate(rows)]
        elif form == "time":
            header, rows = ["t", *header], [[f"{index / 10:.3f}", *row] for index, row in enumerate(rows)]
        elif form == "numbers":
            header = ["0", "1", "2", "3"]
        elif form in ("timestep", "id"):
            header, rows = [form, *header], [[str(index), *row] for index, row in enumerate(rows)]
        elif form == "short":
            rows = rows[:-1]
        elif form == "%g":
            rows = [[f"{value:g}" for value in row] for row in values.tolist()]
        elif form == "one column":
            header, rows = header[:1], [row[:1] for row in rows]
        elif form == "blank line":
            rows[length // 2] = [""]
        _save(part / CSV, rows if form in ("bare", "%g") else [header, *rows])
        np.save(part / "states.npy", states(episode, length))

    return write_plain(folder, write=write)


def width_of(form: str) -> int:
    """How many of the actions a form has."""
    return 1 if form == "one column" else 4


def _is_bare(rows: Rows) -> bool:
    """Whether the first row holds numbers of the first frame; those of a header are whole, and others are not."""
    numbers = all(cell.replace(".", "").isdecimal() for cell in rows[0])
    return numbers and ("." in rows[0][-1] or "." not in rows[1][-1])


def _load(file: Path) -> Rows:
    return list(csv.reader(io.StringIO(file.read_text())))


def _save(file: Path, rows: Rows) -> None:
    file.write_text("".join(",".join(row) + "\n" for row in rows))


def _edit(change: Callable[[np.random.Generator, Rows], Rows]) -> Callable[[np.random.Generator, Path], None]:
    """A mutation of the CSV of one episode, or the same of every episode."""

    def edit(rng: np.random.Generator, folder: Path) -> None:
        parts = sorted(folder.glob("episode_*"))
        state = rng.bit_generator.state
        for part in parts if rng.random() < 0.3 else [parts[rng.integers(len(parts))]]:
            same = np.random.default_rng()
            same.bit_generator.state = state
            if (part / CSV).exists():
                _save(part / CSV, change(same, _load(part / CSV)))

    return edit


def _cut_rows(rng: np.random.Generator, rows: Rows) -> Rows:
    """One to three rows, but not the first of the whole set: nothing tells the rest from a set that lacks the last."""
    first, count = int(rng.integers(2, len(rows) - 3)), int(rng.integers(1, 4))
    return rows[:first] + rows[first + count + 1 :]


def _swap_columns(rng: np.random.Generator, rows: Rows) -> Rows:
    """Two columns with their names; without names, nothing tells columns apart."""
    if len(rows[0]) < 2 or all(cell.replace(".", "").isdecimal() for cell in rows[0]):
        return rows
    first, second = rng.choice(len(rows[0]), 2, replace=False)
    for row in [row for row in rows if any(row)]:
        row[first], row[second] = row[second], row[first]
    return rows


def _spoil_cell(rng: np.random.Generator, rows: Rows) -> Rows:
    row = rows[int(rng.integers(1, len(rows) - 2))] or [""]
    row[int(rng.integers(len(row)))] = str(rng.choice(["", "nan", "oops", "1,5", "inf", "-"]))
    return rows


def _add_index(rng: np.random.Generator, rows: Rows) -> Rows:
    start = int(rng.integers(2))
    bare = _is_bare(rows)
    first = [str(start)] if bare else [str(rng.choice(["", "index", "frame", "Unnamed: 0"]))]
    rest = [[str(start + index + bare)] for index in range(len(rows) - 1)]
    return [new + row for new, row in zip([first, *rest], rows, strict=True)]


def _add_time(rng: np.random.Generator, rows: Rows) -> Rows:
    unit, name = rng.choice([1, 1000]), str(rng.choice(["t", "time", "timestamp", "4"]))
    bare = _is_bare(rows)
    times = [repr(float(unit * index / 10)) for index in range(len(rows))]
    first = times[:1] if bare else [name]
    return [
        new + row for new, row in zip([first, *([time] for time in (times[1:] if bare else times))], rows, strict=False)
    ]


EDITS: dict[str, Callable[[np.random.Generator, Rows], Rows]] = {
    "rows cut": _cut_rows,
    "first row cut in one episode": lambda rng, rows: rows[:1] + rows[2:],
    "row doubled": lambda rng, rows: rows[:5] + rows[4:],
    "last row cut": lambda rng, rows: rows[:-1],
    "header removed": lambda rng, rows: rows if _is_bare(rows) else rows[1:],
    "header doubled": lambda rng, rows: rows[:1] + rows,
    "header of numbers added": lambda rng, rows: [[str(place) for place in range(len(rows[0]))], *rows],
    "index column added": _add_index,
    "time column added": _add_time,
    "columns swapped": _swap_columns,
    "column removed": lambda rng, rows: [row[:-1] for row in rows],
    "cell spoilt": _spoil_cell,
    "last row not finite": lambda rng, rows: [*rows[:-1], ["nan"] * len(rows[0])],
    "commas at the ends": lambda rng, rows: [[*row, ""] for row in rows],
    "empty rows": lambda rng, rows: [*rows, [""] * len(rows[0]), [""]],
    "quotes": lambda rng, rows: [[f'"{cell}"' for cell in row] for row in rows],
    "whole numbers": lambda rng, rows: [[cell.removesuffix(".0") for cell in row] for row in rows],
}
ALONE = {"row doubled", "first row cut in one episode", "last row cut", "columns swapped", "column removed"}
"""Made in one episode: in all at once, nothing tells these from a set that was recorded so."""


def _text(change: Callable[[str], str]) -> Callable[[np.random.Generator, Path], None]:
    def edit(rng: np.random.Generator, folder: Path) -> None:
        for file in folder.rglob(CSV):
            file.write_bytes(change(file.read_text()).encode())

    return edit


def _rename(rng: np.random.Generator, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = files[rng.integers(len(files))]
    names = ["front", "action", "states", "actions", "robot_log", "0000", "top"]
    suffixes = [file.suffix, file.suffix.upper(), ".csv", ".npy", ".mkv", ".json", ".bak"]
    target = file.with_name(str(rng.choice(names)) + str(rng.choice(suffixes)))
    if not target.exists():
        file.rename(target)


def _rename_folder(rng: np.random.Generator, folder: Path) -> None:
    parts = sorted(folder.glob("episode_*"))
    part = parts[rng.integers(len(parts))]
    part.rename(folder / str(rng.choice(["episode_09", "7", "episode_x", "Episode_3", "retry", ".episode_0"])))


def _number_folders(rng: np.random.Generator, folder: Path) -> None:
    for part in sorted(folder.glob("episode_*")):
        part.rename(folder / part.name.removeprefix("episode_").zfill(4))


def _swap_files(rng: np.random.Generator, folder: Path) -> None:
    """Exchange two files of the folder, with or without the same name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    first, second = (files[place] for place in rng.choice(len(files), 2, replace=False))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _delete(rng: np.random.Generator, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files[rng.integers(len(files))].unlink()


def _cut_file(rng: np.random.Generator, folder: Path) -> None:
    """Cut a video or an array at a random byte, or empty it; a text that is cut is a text."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".mp4", ".npy"))
    file = files[rng.integers(len(files))]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * rng.choice([0, rng.random()]))])


def _recode(rng: np.random.Generator, folder: Path) -> None:
    """A video without its first or its last frame, in one camera or in all."""
    episode = int(rng.integers(len(LENGTHS)))
    first = int(rng.integers(2))
    length = LENGTHS[episode] - (1 - first)
    for camera in CAMERAS[: int(rng.integers(1, 3))]:
        (folder / f"episode_{episode}/{camera}.mp4").write_bytes(video(episode, length, first=first))


def _another_table(rng: np.random.Generator, folder: Path) -> None:
    """The same actions in another kind of file, instead of or beside the CSV."""
    for episode, length in enumerate(LENGTHS):
        part = folder / f"episode_{episode}"
        values = actions(episode, length)[:, : 1 if len(_load(part / CSV)[0]) == 1 else 4]
        kind = rng.choice(["npz", "npy", "log"])
        if kind == "npz":
            np.savez(part / "actions.npz", action=values)
        elif kind == "npy":
            np.save(part / "action.npy", values)
        else:
            (part / "log.csv").write_text(csv_text(values, [f"action_{place}" for place in range(values.shape[1])]))
        if rng.random() < 0.9:
            (part / CSV).unlink(missing_ok=True)


MUTATIONS: dict[str, Callable[[np.random.Generator, Path], None]] = {
    **{name: _edit(change) for name, change in EDITS.items() if name not in ALONE},
    **{
        name: (
            lambda rng, folder, change=EDITS[name]: _save(
                folder / "episode_1" / CSV, change(rng, _load(folder / "episode_1" / CSV))
            )
        )
        for name in ALONE
    },
    "byte-order mark": _text(lambda text: "\ufeff" + text),
    "line ends of Windows": _text(lambda text: text.replace("\n", "\r\n")),
    "semicolons": _text(lambda text: text.replace(",", ";")),
    "decimal commas": _text(lambda text: text.replace(",", ";").replace(".", ",")),
    "tabs": _text(lambda text: text.replace(",", "\t")),
    "empty lines": _text(lambda text: text.replace("\n", "\n\n")),
    "file renamed": _rename,
    "folder renamed": _rename_folder,
    "folders numbered": _number_folders,
    "files swapped": _swap_files,
    "file deleted": _delete,
    "file cut": _cut_file,
    "video recoded": _recode,
    "another table": _another_table,
}


def mutate_plain_folder(rng: np.random.Generator, folder: Path) -> str:
    """Change a folder of `write_form` in place, and say how.

    Args:
        rng: Chooses the change.
        folder: A copy that nothing else needs.
    """
    name = sorted(MUTATIONS)[rng.integers(len(MUTATIONS))]
    MUTATIONS[name](rng, folder)
    return name


def try_mutated_folder(rng: np.random.Generator, root: Path) -> tuple[str, str]:
    """Write, mutate and open one folder, and compare what is read with the fields in its pictures.

    Args:
        rng: Chooses everything.
        root: An empty folder to write to, which is removed.

    Returns:
        What was changed, and `right`, `unlabelled` or the line in which it was refused.

    Raises:
        AssertionError: Actions are shifted, missing or another column's, or the refusal does not name the folder in one
            line.
    """
    form = str(rng.choice(list(FORMS)))
    folder = write_form(root / "set", form)
    change = f"{form}: {mutate_plain_folder(rng, folder)}"
    try:
        source = open_set(folder, Request())
        found = plain_faults(source, form)
        assert not found, f"{change}: {found}"
        result = "right" if source.action_dim else "unlabelled"
    except ValueError as error:
        result = str(error)
        assert str(folder) in result and "\n" not in result, f"{change}: {result}"
    shutil.rmtree(root)
    return change, result


def plain_faults(source: TableSource, form: str) -> list[str]:
    """What an opened folder returns that was not written in this form; without actions, a note must say so."""
    try:
        assert_true(source, labelled=source.action_dim > 0, width=width_of(form))
    except AssertionError as error:
        return [str(error)]
    return [] if source.action_dim or source.notes else ["opens without actions and without a word"]


def damage_plain_folder(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Write a folder anew in one of `FORMS` and change it; the form, and how."""
    form = rng.choice(list(FORMS))
    shutil.rmtree(folder)
    write_form(folder, form)
    return form, f"{form}: {mutate_plain_folder(np.random.default_rng(rng.getrandbits(32)), folder)}"
