"""Writable cuts of the two data sets in `tests/data`, and edits to their files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from places import DATA

from worldmodel.data.clip import EpisodeSource

V21, V30 = DATA / "lerobot_v21_pusht", DATA / "lerobot_v30_pusht"
EPISODES_V30 = "meta/episodes/chunk-000/file-000.parquet"
ROWS_V30 = "data/chunk-000/file-000.parquet"


def edit_json(file: Path, edit: Callable[[dict], None]) -> None:
    """Change the content of a JSON file in place."""
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def edit_lines(file: Path, edit: Callable[[list[dict]], list[dict]]) -> None:
    """Replace the rows of a JSON-lines file."""
    rows = edit([json.loads(line) for line in file.read_text().splitlines() if line])
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_table(file: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Replace the table of a parquet file."""
    pq.write_table(edit(pq.read_table(file)), file)


def with_values(name: str, change: Callable[[list], list]) -> Callable[[pa.Table], pa.Table]:
    """An edit of one column, given and returned as a Python list of the column's type."""

    def edit(table: pa.Table) -> pa.Table:
        place, kind = table.column_names.index(name), table.schema.field(name).type
        values = pa.array(change(table.column(name).to_pylist()), kind)
        return table.set_column(place, name, values)

    return edit


def two_episodes_v21(folder: Path) -> Path:
    """The first two episodes of the v2.1 set."""
    shutil.copytree(V21, folder)
    for file in folder.rglob("episode_00000[234].*"):
        file.unlink()
    edit_lines(folder / "meta" / "episodes.jsonl", lambda rows: rows[:2])
    totals = {"total_episodes": 2, "total_frames": 42 + 67, "total_videos": 4}
    edit_json(folder / "meta" / "info.json", lambda info: info.update(totals))
    return folder


def two_episodes_v30(folder: Path) -> Path:
    """The first two episodes of the v3.0 set; the videos keep the frames of all eight."""
    shutil.copytree(V30, folder)
    edit_table(folder / EPISODES_V30, lambda table: table.slice(0, 2))
    edit_table(folder / ROWS_V30, lambda table: table.slice(0, 71 + 74))
    totals = {"total_episodes": 2, "total_frames": 71 + 74}
    edit_json(folder / "meta" / "info.json", lambda info: info.update(totals))
    return folder


def digest(source: EpisodeSource) -> str:
    """A hash of everything a source returns, every frame decoded."""
    total = sha256(repr((source.views, source.fps, source.lengths, source.size)).encode())
    for episode, length in enumerate(source.lengths):
        clip = source.read(episode, 0, length)
        total.update(f"{source.task(episode)} {source.reset_seed(episode)}".encode())
        for value in (getattr(clip, field.name) for field in fields(clip)):
            if value is not None:
                total.update(value.encode() if isinstance(value, str) else value.numpy().tobytes())
    return total.hexdigest()
