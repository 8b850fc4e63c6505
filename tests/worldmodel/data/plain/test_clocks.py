"""Columns that count rows or tell the time are left out if they are named so, and refused if not."""

import json

import numpy as np
import pandas
import pytest
from plain_folders import LENGTHS, NAMES, actions, assert_true, write_plain

from worldmodel.data import open_episodes
from worldmodel.data.formats import open_set
from worldmodel.data.options import DataOptions, Request

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")

KINDS = {
    "csv": lambda part, table: table.to_csv(part / "actions.csv", index=False),
    "parquet": lambda part, table: table.to_parquet(part / "actions.parquet"),
    "json": lambda part, table: (part / "actions.json").write_text(json.dumps(table.to_dict("list"))),
    "jsonl": lambda part, table: table.to_json(part / "actions.jsonl", orient="records", lines=True),
    "npz": lambda part, table: np.savez(part / "actions.npz", **table),
}
INDICES = (
    "timestep",
    "frame_number",
    "frame_idx",
    "frame_no",
    "frame_count",
    "frameIndex",
    "FrameID",
    "stepid",
    "step_id",
    "id",
    "i",
    "sample number",
)
TIMES = (
    "%time",
    "wall_time",
    "ros_time",
    "ros2.timestamp",
    "unix_timestamp",
    "time_from_start",
    "secs_from_start",
    "header.stamp.secs",
    "timestamp_ns",
    "timestep",
    "t",
)


def write(folder, kind, column):
    """`column(episode, frames)` makes the first column: a name, and its values."""

    def add(part, episode, length):
        name, values = column(episode, np.arange(length))
        table = pandas.DataFrame(actions(episode, length), columns=NAMES)
        table.insert(0, name, values)
        KINDS[kind](part, table)

    return write_plain(folder, cameras=("top",), write=add)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("names", "what"), [(INDICES, "an index"), (TIMES, "a time")], ids=["index", "time"])
def test_a_column_that_is_named_like_an_index_or_a_time_is_left_out(tmp_path, kind, names, what):
    for number, name in enumerate(names if kind == "csv" else names[number_of(kind) :: 4]):
        clock = (lambda e, f: 1.7e9 + 50 * e + f / 10.5) if what == "a time" else (lambda e, f: f + 50 * e)
        source = open_set(write(tmp_path / str(number), kind, lambda e, f, n=name, c=clock: (n, c(e, f))), Request())
        assert_true(source)
        assert any(f"column {name} of actions.{kind} is {what} and is not read" in note for note in source.notes), name


def number_of(kind):
    return list(KINDS).index(kind) - 1


@pytest.mark.parametrize(
    "name", ["timing_belt", "stepper", "rowing", "idle", "accounts", "time_to_go", "id", "t1", "step_0"]
)
def test_a_value_with_a_similar_name_is_read(tmp_path, name):
    source = open_episodes(write(tmp_path, "csv", lambda e, f: (name, np.sin(f + e))))
    assert source.action_dim == 5
    assert np.allclose(source.read(1, 0, 9).actions[:, 0], np.sin(np.arange(8) + 1))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", ["frame_number", "id"])
def test_a_gap_in_an_index_breaks_an_episode(tmp_path, kind, name):
    folder = write(tmp_path, kind, lambda e, f: (name, f + (e == 1) * (f > 4)))
    with pytest.raises(ValueError, match=rf"1: episode_1/.*column '{name}' is 6 after 4, expected an index without"):
        open_episodes(folder)


@pytest.mark.parametrize("kind", [*KINDS, "npy"])
@pytest.mark.parametrize(
    ("clock", "what"),
    [
        (lambda e, f: f, "counts like an index"),
        (lambda e, f: f + 7 + 50 * e, "counts like an index"),
        (lambda e, f: f / 10, "rises by 1 / fps like a time"),
        (lambda e, f: 5 + (f + np.sin(f) / 3) / 10, "rises by 1 / fps like a time"),
        (lambda e, f: 1.7e9 + 50 * e + f / 7.7, "rises by 1 / fps like a time"),
    ],
    ids=["from 0", "from anywhere", "seconds", "uneven", "since 1970"],
)
def test_a_column_that_counts_or_rises_without_such_a_name_is_refused(tmp_path, kind, clock, what):
    def smooth(episode, length):
        return np.sin(np.arange(length)[:, None] + np.arange(4) + 100 * episode)

    def add(part, episode, length):
        table = pandas.DataFrame(smooth(episode, length), columns=NAMES)
        table.insert(0, "lift", clock(episode, np.arange(length)))
        np.save(part / "actions.npy", table.to_numpy()) if kind == "npy" else KINDS[kind](part, table)

    folder = write_plain(tmp_path, cameras=("top",), write=add)
    label = "column 0 has no name and" if kind == "npy" else "column 'lift'"
    for options in ({}, {"episodes": "1"}):
        with pytest.raises(ValueError, match=rf"0: episode_0/actions\.{kind}: {label} {what}, expected --action-keys"):
            open_episodes(folder, options=DataOptions(**options))
    keys = ("actions",) if kind == "npy" else ("lift", *NAMES)
    source = open_episodes(folder, options=DataOptions(action_keys=keys))
    assert (source.lengths, source.action_dim) == (LENGTHS, 5)
