"""Which columns hold the action, the state and the pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.tables import (
    is_list,
    is_numeric,
    is_picture,
    number_kind,
    numbers,
    read_schema,
    read_table,
)
from worldmodel.data.options import DataOptions

ACTIONS = ("action", "actions")
STATES = ("observation.state", "observation.states", "state", "states")
COUNTERS = ("frame_index", "timestamp", "index", "episode_index", "task_index")
TEXTS = ("task", "language_instruction")
OUTCOMES = ("next.reward", "next.success")
ASIDE = {*COUNTERS, *TEXTS, *OUTCOMES, "next.done", "done"}
PANDAS_INDEX = "__index_level_0__"


@dataclass(frozen=True)
class Keys:
    """Columns of the tables.

    Attributes:
        columns: All that are read: of numbers, counters and texts.
        pictures: Those that hold pictures.
        widths: How many numbers a row of a column holds, where declared.
    """

    actions: tuple[str, ...]
    states: tuple[str, ...]
    columns: tuple[str, ...]
    pictures: tuple[str, ...]
    widths: dict[str, int]


def choose_keys(info: Info, files: Sequence[Path], options: DataOptions, findings: Findings) -> Keys:
    """Choose the columns by their names, or as `options` says, from those that the tables have.

    Args:
        info: What is declared.
        files: The tables.
        options: Keys of actions and states, where the user names them.
        findings: Takes notes about what is declared and what is there.

    Raises:
        ValueError: It is not clear which columns are meant, or those that are asked for do not exist.
    """
    types = _column_types(info, files, findings)
    pictures = tuple(name for name, kind in types.items() if is_picture(kind) or name in info.cameras)
    vectors = [name for name in types if name not in (*ASIDE, *pictures) and _has_numbers(info, name, types[name])]
    order = [*(key for key in info.features if key in vectors), *(key for key in vectors if key not in info.features)]
    named = {"action": (ACTIONS, options.action_keys), "state": (STATES, options.state_keys)}
    chosen, beside = {}, []
    for what, (names, asked) in named.items():
        if asked:
            chosen[what] = _asked(info, what, order, asked, list(types))
        else:
            chosen[what], unused = _choose(info, what, names, order, files, findings)
            beside += unused
    actions, states = chosen["action"], chosen["state"]
    if not actions:
        _check_unlabelled(info, order, types)
        unused = [key for key in order if key not in (*states, *beside) and key != PANDAS_INDEX]
        findings.note(f"no column is called action; read as video without actions; not used are {unused}")
    _note_unused([key for key in order if key not in beside], actions, states, types, findings)
    for key in (*actions, *states):
        declared = info.features[key].dtype if key in info.features else ""
        kind = number_kind(types[key])
        if declared.rstrip("0123456789") not in ("", kind):
            findings.note(f"{info.file}: dtype of {key} is {declared}, the tables hold {kind}")
    others = [name for name in (*COUNTERS, *TEXTS, *OUTCOMES) if name in types]
    widths = {name: prod(feature.shape) for name, feature in info.features.items() if feature.shape is not None}
    return Keys(actions, states, tuple(dict.fromkeys([*actions, *states, *others])), pictures, widths)


def _note_unused(
    columns: Sequence[str],
    actions: Sequence[str],
    states: Sequence[str],
    types: Mapping[str, pa.DataType],
    findings: Findings,
) -> None:
    """Note the columns that sound like an action or a state but are not used as one."""
    left = [key for key in columns if key not in (*actions, *states) and (is_list(types[key]) or types[key] in FLOATS)]
    sounding = [key for key in left if ("action" in key.lower() and actions) or ("state" in key.lower() and not states)]
    if sounding:
        findings.note(f"columns that are not used, though they may be actions or states: {', '.join(sounding)}")


def _has_numbers(info: Info, name: str, kind: pa.DataType) -> bool:
    """Whether a column has numbers, or is declared to have them, so that a table without is at fault."""
    declared = info.features[name].dtype.rstrip("0123456789") if name in info.features else ""
    return is_numeric(kind) or declared in ("float", "int", "uint", "bool")


def _column_types(info: Info, files: Sequence[Path], findings: Findings) -> dict[str, pa.DataType]:
    """Types of the columns by name; files that cannot be read are skipped here and reported later."""
    types: dict[str, pa.DataType] = {}
    declared = [key for key, feature in info.features.items() if feature.dtype != "video"]
    for file in files:
        try:
            found = read_schema(file)
        except ValueError:
            continue
        if not types:
            for name in sorted(set(found) - set(info.features)):
                findings.note(f"column {name} of the tables is not declared in {info.file}")
        types = found | types
        if set(declared) <= set(types):
            break
    for name in declared:
        if name not in types and types and not (info.features[name].is_picture):
            findings.note(f"{name} is declared in {info.file} but no table has it")
    for name in ("frame_index", "timestamp", "episode_index", "task_index"):
        if name not in types and types and name not in info.features:
            findings.note(f"no table has a column {name}")
    return types


def _asked(
    info: Info, what: str, columns: Sequence[str], asked: Sequence[str], existing: Iterable[str]
) -> tuple[str, ...]:
    lacking = [key for key in asked if key not in columns]
    if lacking or len(set(asked)) < len(asked):
        found = f"{', '.join(lacking)}, no column of numbers" if lacking else f"{', '.join(asked)}, one twice"
        fail(info.file, f"--{what}-keys", found, f"among {sorted(existing)}")
    return tuple(asked)


def _choose(
    info: Info, what: str, names: Sequence[str], columns: Sequence[str], files: Sequence[Path], findings: Findings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns to read, and the similar ones that a note names as not used."""
    parts = {name: tuple(key for key in columns if key.startswith(f"{name}.")) for name in names}
    whole = [name for name in names if name in columns]
    groups = [(name,) for name in whole] + [found for name, found in parts.items() if found and name not in whole]
    if not groups:
        return (), ()
    equal = len(groups) == len(whole) > 1 and _are_equal(files, whole)
    if len(groups) > 1 and not equal:
        found = " or ".join(" + ".join(group) for group in groups)
        fail(info.file, f"the {what}", f"ambiguous, {found}", f"a choice by --{what}-keys")
    read, beside = groups[0], (*whole[1:], *(key for name in whole for key in parts[name]))
    if equal:
        findings.note(f"{', '.join(whole[1:])} holds the same numbers as {whole[0]}")
    if beside:
        findings.note(f"the {what} is read from {read[0]}; not used are {', '.join(beside)}")
    elif read != (names[0],):
        findings.note(f"the {what} is read from {', '.join(read)}")
    return read, beside


def _are_equal(files: Sequence[Path], names: Sequence[str]) -> bool:
    """Whether columns hold the same numbers in all tables."""
    for file in files:
        try:
            table = read_table(file, names)
            first, *others = (numbers(file, table, name) for name in names)
        except ValueError:
            return False
        for other in others:
            if first.shape != other.shape or not np.array_equal(first.astype(float), other.astype(float), True):
                return False
    return True


def _check_unlabelled(info: Info, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> None:
    """Raise a `ValueError` if a data set seems to have actions that are not found."""
    alike = [key for key in columns if "action" in key.lower() and (is_list(types[key]) or types[key] in FLOATS)]
    lost = [key for key in {**info.features, **types} if key.split(".")[0] in ACTIONS and key not in columns]
    if alike or lost:
        found = f"none; {', '.join(alike)} may be it" if alike else f"{', '.join(lost)}, without numbers in the tables"
        fail(info.file, "column of the action", found, f"--action-keys with columns among {sorted(types)}")


FLOATS = (pa.float16(), pa.float32(), pa.float64())
