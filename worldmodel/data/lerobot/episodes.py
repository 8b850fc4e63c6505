"""Which episodes `meta/` lists, and what it says about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldmodel.data.checks import fail
from worldmodel.data.lerobot.findings import Findings
from worldmodel.data.lerobot.info import Info
from worldmodel.data.lerobot.tables import python_rows, read_json_lines, read_table, visible_files

MOST_EPISODES = 10**6  # above, an episode_index is taken for an error
TASK_COLUMNS = ("task", "__index_level_0__", "tasks")


@dataclass(frozen=True)
class Episode:
    """The row of `meta/` about one episode.

    Attributes:
        length: Its number of frames; `None` where it is not listed.
        file: The table or JSON-lines file that lists the episode.
        row: The whole row, for columns such as `reset_seed`.
    """

    index: int
    length: int | None
    file: Path
    row: dict[str, Any]


def read_episodes(info: Info, findings: Findings) -> dict[int, Episode]:
    """The listed episodes by number, in ascending order; those that are listed wrongly are marked as broken.

    Raises:
        ValueError: Nothing is listed, a list is not readable, or a row has no number.
    """
    episodes: dict[int, Episode] = {}
    unnumbered = []
    for file, rows in _listed(info, findings):
        for place, row in enumerate(rows):
            index = whole(row.get("episode_index"))
            if index is None or index >= MOST_EPISODES:
                unnumbered.append(f"{row.get('episode_index')!r:.30} in row {place} of {file}")
                continue
            if index in episodes and episodes[index].row != row:
                findings.blame(index, f"{file}: episode_index {index} is listed twice, with different facts")
            elif index in episodes:
                findings.note(f"{file}: listed twice", index)
            episodes[index] = Episode(index, _length(file, index, row, findings), file, row)
    if unnumbered:
        fail(info.file.parent, "episode_index", "; ".join(unnumbered), "whole numbers from 0")
    if not episodes:
        fail(info.file.parent, "number of listed episodes", 0, "at least 1")
    return dict(sorted(episodes.items()))


def _listed(info: Info, findings: Findings) -> list[tuple[Path, list[dict[str, Any]]]]:
    meta = info.file.parent
    if info.per_episode:
        file = meta / "episodes.jsonl"
        return [(file, read_json_lines(file, findings))]
    files = sorted(Path(path) for path in visible_files(meta / "episodes") if path.endswith(".parquet"))
    if not files:
        fail(meta / "episodes", "number of chunk-*/file-*.parquet", 0, "at least 1")
    return [(file, python_rows(file, read_table(file))) for file in files]


def _length(file: Path, index: int, row: Mapping[str, Any], findings: Findings) -> int | None:
    length = whole(row.get("length"))
    if "length" not in row:
        findings.note(f"{file} has no length; the rows of the tables are counted", index)
    elif not length:
        findings.blame(index, f"{file}: length is {row['length']!r:.30}, expected a whole number from 1")
    elif not isinstance(row["length"], int):
        findings.note(f"{file}: length is not an integer", index)
    return length


def whole(value: object) -> int | None:
    """`value` as a whole number of at least 0, converted from a float or a string if necessary; else `None`."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        return None
    return value


def read_tasks(info: Info, findings: Findings) -> dict[int, str]:
    """Task texts by `task_index`; empty where the data set has none.

    Raises:
        ValueError: A number has two texts, or the list is not readable.
    """
    jsonl, parquet = (info.file.parent / f"tasks.{suffix}" for suffix in ("jsonl", "parquet"))
    file = jsonl if info.per_episode else parquet
    if not file.is_file():
        findings.note(f"{file} is missing; tasks are named as {info.file.parent.name}/episodes names them")
        return {}
    rows = read_json_lines(file, findings) if info.per_episode else python_rows(file, read_table(file))
    tasks: dict[int, str] = {}
    if not rows:
        findings.note(f"{file} lists no task")
    for place, row in enumerate(rows):
        index = whole(row.get("task_index"))
        text = next((row[name] for name in TASK_COLUMNS if isinstance(row.get(name), str)), None)
        if index is None or text is None:
            findings.note(f"{file}: row {place} is not a task_index with a task: {row!s:.80}")
        elif tasks.setdefault(index, text) != text:
            fail(file, "task_index", f"{index} twice", "distinct numbers")
    return tasks


def listed_tasks(episode: Episode) -> list[str]:
    """The tasks that `meta/` names for an episode."""
    listed = episode.row.get("tasks", episode.row.get("task"))
    listed = [listed] if isinstance(listed, str) else listed
    return [task for task in listed if isinstance(task, str)] if isinstance(listed, list) else []


def reset_seed(episode: Episode) -> int | None:
    """The `reset_seed` of the episode's row in `meta/`, where there is one.

    Raises:
        ValueError: It is not a whole number.
    """
    seed = episode.row.get("reset_seed")
    if seed is None:
        return None
    if whole(seed) is None:
        fail(episode.file, "reset_seed", repr(seed), "a whole number from 0", episode.index)
    return whole(seed)


def recorded_shift(episodes: Sequence[Episode]) -> str:
    """The controlled shift with which `meta/` says that all episodes were recorded; empty for none.

    Raises:
        ValueError: If episodes were recorded with different shifts.
    """
    shift = episodes[0].row.get("shift") or ""
    for episode in episodes:
        found = episode.row.get("shift") or ""
        if found != shift or not isinstance(found, str):
            fail(episode.file, "shift", repr(found), repr(shift), episode.index)
    return shift
