"""Outcomes of real trials that were made before: a table that anybody can write, or stored scores."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pyarrow import ArrowException

from policy_eval.scores import Scores
from worldmodel.files import read_object

ENDINGS = (".json", ".csv", ".parquet")
COLUMNS = ("policy", "start", "success")
TRUTHS = {"true": 1.0, "yes": 1.0, "success": 1.0, "false": 0.0, "no": 0.0, "failure": 0.0}


def read_outcomes(file: Path, names: Iterable[str]) -> dict[str, Scores]:
    """Real trials of the named policies.

    Args:
        file: A `.csv` or `.parquet` table with one row per trial: `policy`; `start`, the reset seed of the start, or
            the number of the episode where the data has no reset seeds; `success`, true or false, 1 or 0, or a grade
            in between. Other columns are not read. Or `.json`: for each policy what `Scores.to_json` returns.
        names: The policies; the file may hold others.

    Raises:
        ValueError: A policy has no trial, a start occurs twice for a policy, or a value is missing or malformed.
    """
    wanted = list(names)
    try:
        found = _stored(file, wanted) if file.suffix == ".json" else _tabled(file, wanted)
    except (KeyError, TypeError, ValueError, ArrowException, csv.Error, UnicodeDecodeError) as error:
        said = str(error)
        raise ValueError(said if said.startswith(f"{file}: ") else f"{file}: {said}") from error
    return found


def _stored(file: Path, names: list[str]) -> dict[str, Scores]:
    stored = read_object(file)
    _check_named(stored, names)
    return {name: Scores.from_json(stored[name]) for name in names}


def _tabled(file: Path, names: list[str]) -> dict[str, Scores]:
    trials: dict[str, dict[int, float]] = {}
    for where, row in _rows(file):
        policy = str(row["policy"]).strip()
        start, success = _start(row["start"], where), _success(row["success"], where)
        if start in trials.setdefault(policy, {}):
            raise ValueError(f"{where}: a second trial of the policy {policy!r} from the start {start}")
        trials[policy][start] = success
    _check_named(trials, names)
    return {name: _scores(name, trials[name]) for name in names}


def _scores(name: str, trials: Mapping[int, float]) -> Scores:
    outcomes = np.array(list(trials.values()), float)
    return Scores(name, np.array(list(trials), np.int64), outcomes, outcomes, np.ones(len(trials), np.int64))


def _rows(file: Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every row, and where it is."""
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        _check_columns(table.column_names)
        for number, row in enumerate(table.select(COLUMNS).to_pylist()):
            yield f"row {number}", row
        return
    with file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text, skipinitialspace=True)
        _check_columns(reader.fieldnames or [])
        for row in reader:
            yield f"line {reader.line_num}", row


def _check_columns(names: Iterable[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise ValueError(f"has the columns {', '.join(names) or 'none'}, but no {', '.join(missing)}")


def _check_named(found: Mapping[str, object], names: list[str]) -> None:
    missing = sorted(set(names) - set(found))
    if missing:
        there = ", ".join(sorted(found)) or "none"
        raise ValueError(f"no real trials of {', '.join(missing)}; there are trials of {there}")


def _start(value: object, where: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise ValueError(f"{where}: start is {value!r}, expected a whole number")
    return int(number) if isinstance(value, float) else int(str(value).strip().partition(".")[0])


def _success(value: object, where: str) -> float:
    text = str(value).strip().lower()
    try:
        number = TRUTHS[text] if text in TRUTHS else float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise ValueError(f"{where}: success is {value!r}, expected true or false, or a number from 0 to 1")
    return number
