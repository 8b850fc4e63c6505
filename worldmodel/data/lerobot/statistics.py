"""The per-feature statistics that LeRobot stores in `meta/`: for all episodes, and for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import reduce
from jaxtyping import Float64, Int64, Shaped, UInt8

from worldmodel.data.lerobot.episodes import whole
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.rows import EpisodeTable
from worldmodel.data.lerobot.tables import python_rows, read_json_lines, read_table, visible_files

FACTS = ("min", "max", "mean")
SLACK = 0.1  # how far a statistic may lie from that of the table, in ranges of the column
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def column_statistics(values: Shaped[np.ndarray, "rows dim"]) -> dict[str, list]:
    """Statistics of a table column over its rows, one number per dim.

    Args:
        values: Numbers or booleans.

    Returns:
        min, max, mean, std, count and quantiles, each a list; min and max keep the column's type.
    """
    numbers = values.astype(np.float64)
    statistics = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([len(values)]),
    }
    quantiles = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    statistics |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in statistics.items()}


def colour_histogram(frames: UInt8[np.ndarray, "t H W 3"]) -> Int64[np.ndarray, "3 256"]:
    """How often each value 0..255 occurs per colour channel."""
    channels = np.moveaxis(frames, -1, 0)
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in channels])


def image_statistics(histogram: Int64[np.ndarray, "3 256"], num_frames: int) -> dict[str, list]:
    """Statistics of pictures per colour channel, scaled to 0..1, in LeRobot's shape `3 1 1`.

    Args:
        histogram: Sum of `colour_histogram` over the pictures.
        num_frames: Number of pictures, stored as `count`.
    """
    values = np.arange(256) / 255
    total = reduce(histogram, "c value -> c", "sum")
    mean = histogram @ values / total
    variance = histogram @ values**2 / total - mean**2
    statistics = {
        "min": values[(histogram > 0).argmax(axis=1)],
        "max": values[255 - (histogram[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance.clip(min=0)),
    }
    cumulative = histogram.cumsum(axis=1) / total[:, None]
    for name, quantile in QUANTILES.items():
        statistics[name] = values[(cumulative >= quantile).argmax(axis=1)]
    nested = {name: value[:, None, None].tolist() for name, value in statistics.items()}
    return nested | {"count": [num_frames]}


def check_statistics(info: Info, tables: Mapping[int, EpisodeTable], keys: Sequence[str], findings: Findings) -> None:
    """Mark episodes as broken whose tables clearly contradict their statistics in `meta/`.

    Two columns that have each other's statistics are exchanged. If most episodes contradict their statistics in
    another way, the statistics are out of date, which is a note.
    """
    recorded = _recorded(info, keys, findings)
    known, differing = 0, {}
    for number in recorded.keys() & tables.keys():
        told = recorded[number]
        found = {key: _facts_of(tables[number].numbers(key)) for key in told}
        known += 1
        wrong = [key for key in told if not _agree(found[key], told[key])]
        for key in wrong:
            other = next((o for o in wrong if o != key and _swapped(found, told, key, o)), None)
            if other:
                findings.blame(number, f"{tables[number].file}: {key} has the {_source(info)} of {other}: exchanged?")
        if wrong:
            reason = _difference(wrong[0], found[wrong[0]], told[wrong[0]])
            differing[number] = f"{tables[number].file}: {reason} by {_source(info)}"
    for number, reason in differing.items():
        if 2 * len(differing) <= known:
            findings.blame(number, reason)
        elif number not in findings.broken:
            findings.note(f"{_source(info)} are out of date: actions or states have other ranges", number)


def _source(info: Info) -> str:
    return "statistics in meta/episodes_stats.jsonl" if info.per_episode else "statistics in meta/episodes"


def _recorded(
    info: Info, keys: Sequence[str], findings: Findings
) -> dict[int, dict[str, Float64[np.ndarray, "3 width"]]]:
    """`FACTS` of columns by episode, as far as `meta/` has them."""
    try:
        rows = _statistics_lines(info, findings) if info.per_episode else _statistics_rows(info, keys)
    except ValueError as error:
        findings.note(f"{_source(info)} cannot be read: {error}")
        return {}
    recorded: dict[int, dict[str, np.ndarray]] = {}
    for index, columns in rows:
        number = whole(index)
        if number is not None and isinstance(columns, dict):
            facts = {key: _facts(columns.get(key)) for key in keys}
            recorded[number] = {key: values for key, values in facts.items() if values is not None}
    return {number: facts for number, facts in recorded.items() if facts}


def _statistics_lines(info: Info, findings: Findings) -> list[tuple[Any, Any]]:
    file = info.file.parent / "episodes_stats.jsonl"
    rows = read_json_lines(file, findings) if file.is_file() else []
    return [(row.get("episode_index"), row.get("stats")) for row in rows]


def _statistics_rows(info: Info, keys: Sequence[str]) -> list[tuple[Any, Any]]:
    names = {key: {fact: f"stats/{key}/{fact}" for fact in FACTS} for key in keys}
    columns = ["episode_index", *(name for facts in names.values() for name in facts.values())]
    found = []
    for path in map(Path, sorted(visible_files(info.file.parent / "episodes"))):
        for row in python_rows(path, read_table(path, columns)) if path.suffix == ".parquet" else ():
            facts = {key: {fact: row.get(name) for fact, name in each.items()} for key, each in names.items()}
            found.append((row.get("episode_index"), facts))
    return found


def _facts(raw: Any) -> Float64[np.ndarray, "3 width"] | None:
    """Recorded statistics as numbers; `None` where they are not numbers."""
    try:
        facts = np.stack([np.asarray(raw[name], np.float64).reshape(-1) for name in FACTS])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return facts if np.isfinite(facts).all() else None


def _facts_of(values: Shaped[np.ndarray, "rows width"]) -> Float64[np.ndarray, "3 width"]:
    numbers = values.astype(np.float64)
    return np.stack([numbers.min(axis=0), numbers.max(axis=0), numbers.mean(axis=0)])


def _agree(found: Float64[np.ndarray, "3 _"], told: Float64[np.ndarray, "3 _"]) -> bool:
    """Whether statistics are about equal; statistics that cannot be compared count as equal."""
    return found.shape != told.shape or not np.isfinite(found).all() or not _apart(found, told).any()


def _apart(found: Float64[np.ndarray, "3 width"], told: Float64[np.ndarray, "3 width"]) -> Shaped[np.ndarray, " width"]:
    scale = np.abs([*found, *told]).max(axis=0)
    ranges = np.maximum(found[1] - found[0], told[1] - told[0])
    return (np.abs(found - told) > SLACK * ranges + 1e-3 * scale).any(axis=0)


def _swapped(found: Mapping[str, np.ndarray], told: Mapping[str, np.ndarray], key: str, other: str) -> bool:
    same = found[key].shape == told[other].shape and found[other].shape == told[key].shape
    return same and _agree(found[key], told[other]) and _agree(found[other], told[key])


def _difference(key: str, found: Float64[np.ndarray, "3 width"], told: Float64[np.ndarray, "3 width"]) -> str:
    dim = int(_apart(found, told).argmax())
    has, expected = (f"{x[0, dim]:.4g} to {x[1, dim]:.4g}, {x[2, dim]:.4g} on average" for x in (found, told))
    return f"dim {dim} of {key} is {has}, expected {expected},"
