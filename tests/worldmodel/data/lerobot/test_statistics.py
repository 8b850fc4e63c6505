"""Statistics of single episodes in `meta/` show tables that are not those of their episode."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robot_sets import LENGTHS, each_table, opened, refusal
from small_sets import EPISODES_V30, edit_json, edit_table, with_values

from worldmodel.data.formats import open_set
from worldmodel.data.lerobot.statistics import column_statistics
from worldmodel.data.options import Request

KEYS = ("action", "observation.state")


@pytest.fixture(params=["v2.1", "v3.0"])
def folder(make, request):
    """A set whose actions and states have the same width, with statistics of every episode."""
    folder = make(request.param)
    edit_json(folder / "meta/info.json", lambda info: info["features"]["observation.state"].update(shape=[4]))
    each_table(folder, narrow)
    rows = pa.concat_tables(pq.read_table(file) for file in sorted((folder / "data").rglob("*.parquet")))
    stops = np.cumsum(LENGTHS)
    told = [
        {key: column_statistics(np.array(rows[key].to_pylist())[stop - length : stop]) for key in KEYS}
        for stop, length in zip(stops, LENGTHS, strict=True)
    ]
    if request.param == "v2.1":
        lines = [json.dumps({"episode_index": episode, "stats": each}) + "\n" for episode, each in enumerate(told)]
        (folder / "meta/episodes_stats.jsonl").write_text("".join(lines))
        return folder
    for key in KEYS:
        for fact in told[0][key]:
            column = pa.array([each[key][fact] for each in told])
            name = f"stats/{key}/{fact}"
            edit_table(folder / EPISODES_V30, lambda table, n=name, c=column: table.append_column(n, c))
    return folder


def narrow(rows):
    values = pa.array([row[:4] for row in rows["observation.state"].to_pylist()], pa.list_(pa.float32()))
    return rows.set_column(rows.column_names.index("observation.state"), "observation.state", values)


def shift(*episodes):
    """An edit of a table: other actions in some episodes."""

    def edit(rows):
        pairs = zip(rows["action"].to_pylist(), rows["episode_index"].to_pylist(), strict=True)
        values = [[x + 9 for x in row] if episode in episodes else row for row, episode in pairs]
        return with_values("action", lambda _: values)(rows)

    return edit


def test_true_statistics_are_not_mentioned(folder):
    assert open_set(folder, Request()).notes == ()


def test_exchanged_columns_are_broken(folder):
    names = dict(zip(KEYS, reversed(KEYS), strict=True))
    each_table(folder, lambda rows: rows.rename_columns([names.get(name, name) for name in rows.column_names]))
    message = refusal(folder)
    assert "episodes 0-3 of 4 are broken" in message
    assert "action has the statistics in meta/episodes" in message and "of observation.state: exchanged?" in message


def test_an_episode_that_contradicts_its_statistics_is_broken(folder):
    each_table(folder, shift(2))
    message = refusal(folder)
    assert "episode 2 of 4 is broken" in message
    assert "dim 0 of action is 209 to 233, 221 on average, expected 200 to 224, 212 on average" in message
    assert open_set(folder, Request(skip_broken=True)).numbers == (0, 1, 3)


def test_statistics_that_are_out_of_date_are_one_note(folder):
    each_table(folder, shift(0, 1, 3))
    (note,) = open_set(folder, Request()).notes
    assert "out of date" in note and "(episodes 0-1, 3)" in note


def test_statistics_that_cannot_be_read_are_a_note(make):
    folder = make("v2.1")
    file = folder / "meta/episodes_stats.jsonl"
    file.write_text('{"episode_index": 0, "stats": {"action": {"min": "x"}}}\n{"episode_index": null, "stats": []}\n')
    assert opened(folder).notes == ()
    file.write_text("{")
    (note,) = opened(folder).notes
    assert note.startswith("statistics in meta/episodes_stats.jsonl cannot be read: meta/episodes_stats.jsonl: content")
