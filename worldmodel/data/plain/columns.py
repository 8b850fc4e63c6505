"""Which columns of an episode's tables are its actions, states, rewards and successes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from worldmodel.data.checks import fail
from worldmodel.data.plain.arrays import Column, Table
from worldmodel.data.plain.clocks import no_value
from worldmodel.data.plain.names import NUMBER, ROLES, expand, role_of


@dataclass
class Columns:
    """What was found in the tables of an episode; `notes` are about what is not read."""

    found: dict[str, Column] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    used: set[Path] = field(default_factory=set)


def find_columns(
    place: Path, tables: Mapping[str, Table], action_keys: Sequence[str], state_keys: Sequence[str]
) -> Columns:
    """Find each role by the keys that the user names, else by the names of files and columns.

    Args:
        place: The episode, for messages.
        tables: By role, or else by the file's name.
        action_keys: Columns that hold the action; empty for automatic.
        state_keys: Columns that hold the state.

    Raises:
        ValueError: A key is not found, or a role is found twice; the message names the files.
    """
    columns = Columns()
    taken: dict[Path, set[str]] = {table.file: set() for table in tables.values()}
    for role in ROLES:
        keys = {"actions": action_keys, "states": state_keys}.get(role, ())
        option = f"--{role[:-1]}-keys"
        parts = [_by_key(place, tables, key, option) for key in keys] if keys else _by_name(tables, role)
        if not keys and len(parts) > 1:
            files = ", ".join(_label(table, names) for table, names in parts)
            fail(place, f"files of {role}", files, f"one, or {option} that names its columns")
        if parts:
            columns.found[role] = _side_by_side(place, parts, named=bool(keys))
        if any(tables.get(role) is table and role[:-1] not in table.file.stem.lower() for table, _ in parts):
            columns.notes.append(f"{parts[0][0].file.suffix} files that are named like their videos are read as {role}")
        for table, names in parts:
            columns.used.add(table.file)
            taken[table.file] |= set(names)
    for key, table in tables.items():
        if table.file not in columns.used and table.columns:
            columns.notes.append(f"{table.file.name} has the columns {_few(table.columns)}, which are not read")
        if table.file in columns.used:
            columns.notes += _leftovers(table, taken[table.file], role_of(key) and not (action_keys or state_keys))
    return columns


def _few(names: Collection[str], most: int = 6) -> str:
    return ", ".join(list(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _by_name(tables: Mapping[str, Table], role: str) -> list[tuple[Table, list[str]]]:
    found = []
    for key, table in tables.items():
        named = [expand(spelling, list(table.columns)) for spelling in ROLES[role]]
        named = [names for names in named if names]
        found += [(table, names) for names in named]
        if not named and key == role:
            found.append((table, _all_columns(table, role)))
    return found


def _all_columns(table: Table, role: str) -> list[str]:
    """The columns of a file that is named like a role, without indices, times and other roles."""
    others = {name for other in ROLES for spelling in ROLES[other] for name in expand(spelling, list(table.columns))}
    names = [name for name in table.columns if name not in others and not no_value(table, name)]
    if table.whole is None and not names:
        fail(table.file, "columns", ", ".join(table.columns), f"at least one of {role}")
    if len(names) > 1 and any(np.ndim(table.columns[name]) > 1 for name in names):
        fail(table.file, "columns", ", ".join(names), f"one named {role}, or --{role[:-1]}-keys that names them")
    return names


def _by_key(place: Path, tables: Mapping[str, Table], key: str, option: str) -> tuple[Table, list[str]]:
    found: list[tuple[Table, list[str]]] = []
    place_name, _, column = key.rpartition("/")
    for table in tables.values():
        own = {table.file.stem.lower(), table.file.name.lower()}
        names = expand(key, list(table.columns))
        if not names and place_name.lower() in own:
            names = expand(column, list(table.columns))
        if names or (table.whole is not None and key.lower() in own):
            found.append((table, names))
    if len(found) == 1:
        return found[0]
    if found:
        fail(place, f"{option} {key}", ", ".join(table.file.name for table, _ in found), "one column, as FILE/COLUMN")
    there = [f"{table.file.name}: {', '.join(table.columns) or 'no names'}" for table in tables.values()]
    fail(place, f"{option} {key}", "missing", f"one of {'; '.join(there) or 'no tables'}")


def _label(table: Table, names: Sequence[str]) -> str:
    return table.file.name + (f" ({names[0]})" if names else "")


def _side_by_side(place: Path, parts: Sequence[tuple[Table, list[str]]], *, named: bool) -> Column:
    arrays, labels = [], []
    for table, names in parts:
        arrays += [_checked(table, name) for name in names] if names else [np.asarray(table.whole)]
        labels += names or [""]
    table, names = parts[0]
    unnamed = table.text and not named and all(name.isdecimal() for name in names)
    if len(arrays) == 1:
        single = tuple(labels) if arrays[0].ndim == 1 else ()
        whole = table.whole_numbers if table.decimals else ()
        return Column(table.file, arrays[0], unnamed, whole, single, chosen=named)
    lengths = [len(array) if array.ndim else 0 for array in arrays]
    if len(set(lengths)) > 1:
        fail(place, "rows of the columns", ", ".join(map(str, lengths)), "the same number in each")
    flat = [array.reshape(len(array), -1) if array.ndim < 3 else array for array in arrays]
    if any(array.ndim != 2 for array in flat):
        fail(table.file, "shape of the columns", [array.shape for array in arrays], "(frames, width)")
    several = tuple(name for name, array in zip(labels, flat, strict=True) for _ in range(array.shape[1]))
    order = {name: place for place, name in enumerate(table.columns)}
    shown = unnamed and table.decimals
    whole = tuple(place for place, name in enumerate(names) if shown and order[name] in table.whole_numbers)
    return Column(table.file, np.concatenate(flat, axis=1), unnamed, whole, several, chosen=named)


def _checked(table: Table, name: str) -> Shaped[np.ndarray, "..."]:
    values = np.asarray(table.columns[name])
    if values.dtype.kind in "US":
        word = next((str(value) for value in values.ravel() if not NUMBER.fullmatch(str(value))), "")
        fail(table.file, f"column {name}", repr(word), "numbers")
    return values


def _leftovers(table: Table, taken: set[str], own: bool | str) -> list[str]:
    """Notes on what is left of a table that was read; ambiguous where a text file is named like a role."""
    left = [name for name in table.columns if name not in taken]
    aside = {name: kind for name in left if (kind := no_value(table, name))}
    rest = [name for name in left if name not in aside]
    if rest and own and table.text:
        fail(
            table.file,
            "columns",
            f"{', '.join(sorted(taken))} beside {', '.join(rest)}",
            "--action-keys or --state-keys that name them",
        )
    notes = list(table.notes)
    for name, kind in aside.items():
        notes.append(f"column {name or 'without a name'} of {table.file.name} is {kind} and is not read")
    return notes + ([f"columns {', '.join(rest)} of {table.file.name} are not read"] if rest else [])
