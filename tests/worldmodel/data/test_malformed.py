import json
import shutil

import pytest
import torch
from folder_mutations import NAN, as_text, at, cut, rename, swap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_sets import (
    EPISODES_V30,
    ROWS_V30,
    digest,
    edit_json,
    edit_lines,
    edit_table,
    two_episodes_v21,
    two_episodes_v30,
    with_values,
)

from worldmodel.data import open_episodes
from worldmodel.data.formats import open_set
from worldmodel.data.options import Request

INFO = "meta/info.json"
TOP_V21 = "videos/chunk-000/observation.images.top/episode_000001.mp4"
TOP_V30 = "videos/observation.images.top/chunk-000/file-000.mp4"
ROWS_V21 = "data/chunk-000/episode_000001.parquet"
LIST_V21 = "meta/episodes.jsonl"
PREFIX = "videos/observation.images.top"
INF = float("inf")

FOLDERS = {"v2.1": two_episodes_v21, "v3.0": two_episodes_v30}


def camera(**change):
    def edit(info):
        info["features"]["observation.images.top"].update(change)

    return edit


def declare(name, **change):
    return lambda info: info["features"][name].update(change)


def table(file, edit):
    return lambda folder: edit_table(folder / file, edit)


def values(file, name, change):
    return table(file, with_values(name, change))


def info(edit):
    return lambda folder: edit_json(folder / INFO, edit)


def total(**change):
    return info(lambda content: content.update(change))


def listed(index, **change):
    def edit(rows):
        rows[index].update(change)
        return rows

    return lambda folder: edit_lines(folder / LIST_V21, edit)


def write(file, content):
    return lambda folder: (folder / file).write_bytes(content)


def remove(file):
    return lambda folder: (folder / file).unlink()


def depth(content):
    content["features"] = {k: v for k, v in content["features"].items() if not k.startswith("observation.images")}


FAULTS = {
    # what is wrong: (version, edit, words of the message)
    "no info": ("v2.1", remove(INFO), ["info.json", "missing"]),
    "empty info": ("v3.0", write(INFO, b""), ["info.json", "JSON"]),
    "info is a list": ("v3.0", write(INFO, b"[]"), ["info.json", "list", "object"]),
    "info is not text": ("v3.0", write(INFO, b"\xff\xfe{}"), ["info.json", "JSON"]),
    "version": ("v2.1", total(codebase_version="v1.6"), ["codebase_version", "v1.6", "v3.0"]),
    "other version": ("v2.1", total(codebase_version="v3.0"), ["meta/episodes", "0"]),
    "features": ("v2.1", total(features=None), ["features", "None"]),
    "no fps": ("v2.1", total(fps=None), ["fps", "None"]),
    "fps": ("v2.1", total(fps=30), ["fps of observation.images.top is 10", "30", "episodes 0-1"]),
    "no camera": ("v2.1", info(depth), ["info.json", "0", "camera"]),
    "action width": ("v3.0", info(declare("action", shape=[3])), ["width of action", "2", "3"]),
    "empty list": ("v2.1", write(LIST_V21, b""), ["meta", "listed episodes", "0"]),
    "list of numbers": ("v2.1", write(LIST_V21, b"1\n2\n"), ["episodes.jsonl", "row 0", "int"]),
    "cut list": ("v2.1", cut(LIST_V21, 0.7), ["episodes.jsonl", "JSON"]),
    "empty episode": ("v2.1", listed(1, length=0), ["episode 1", "length is 0"]),
    "doubled": ("v2.1", listed(1, episode_index=0), ["episodes 0-1", "listed twice"]),
    "seed": ("v2.1", listed(1, reset_seed="x"), ["episode 1", "reset_seed", "'x'"]),
    "missing rows file": ("v2.1", remove(ROWS_V21), [ROWS_V21, "episode 1", "missing"]),
    "missing video": ("v2.1", remove(TOP_V21), [TOP_V21, "episode 1", "missing"]),
    "cut rows": ("v2.1", cut(ROWS_V21, 0.5), [ROWS_V21, "parquet"]),
    "cut video": ("v2.1", cut(TOP_V21, 0.5), [TOP_V21]),
    "empty video": ("v3.0", write(TOP_V30, b""), [TOP_V30]),
    "swapped videos": ("v2.1", swap(TOP_V21, TOP_V21.replace("1.mp4", "0.mp4")), ["frames", "67", "42"]),
    "swapped cameras": ("v3.0", swap(TOP_V30, TOP_V30.replace("top", "wrist")), ["(64, 64)", "(96, 96)", "exchanged"]),
    "swapped rows files": ("v2.1", swap(ROWS_V21, ROWS_V21.replace("1.p", "0.p")), ["episode_index", "[1]", "[0]"]),
    "no action": (
        "v3.0",
        table(ROWS_V30, lambda rows: rows.drop_columns(["action"])),
        ["info.json", "action", "--action-keys"],
    ),
    "renamed action": ("v2.1", table(ROWS_V21, rename("action", "actions")), ["episode 1", "column action is missing"]),
    "action in words": ("v2.1", table(ROWS_V21, as_text("action")), ["episode 1", "action"]),
    "NaN action": (
        "v2.1",
        values(ROWS_V21, "action", at(5, [0.0, NAN])),
        [ROWS_V21, "episode 1", "action dim 1 of frame 5", "nan", "finite"],
    ),
    "infinite state": (
        "v3.0",
        values(ROWS_V30, "observation.state", at(73, [INF, 0.0])),
        [ROWS_V30, "episode 1", "observation.state dim 0 of frame 2", "inf"],
    ),
    "null action": ("v3.0", values(ROWS_V30, "action", at(0, None)), ["episode 0", "action dim 0 of frame 0 is nan"]),
    "null in action": (
        "v3.0",
        values(ROWS_V30, "action", at(0, [1.0, None])),
        ["episode 0", "action dim 1 of frame 0 is nan"],
    ),
    "row lost": ("v2.1", table(ROWS_V21, lambda rows: rows.slice(1)), ["rows", "66", "67"]),
    "row doubled": (
        "v2.1",
        table(ROWS_V21, lambda rows: rows.take([0, *range(67)])),
        ["episode 1", "frame_index of frame 1"],
    ),
    "no rows": ("v2.1", table(ROWS_V21, lambda rows: rows.slice(0, 0)), ["[]", "[1]"]),
    "interleaved": (
        "v3.0",
        table(ROWS_V30, lambda rows: rows.take([0, 71, *range(1, 71), *range(72, 145)])),
        ["order of rows", "episodes 0-1"],
    ),
    "frame order": (
        "v2.1",
        table(ROWS_V21, lambda rows: rows.take([1, 0, *range(2, 67)])),
        ["frame_index of frame 1 is 0", "episode 1"],
    ),
    "time stamps": ("v2.1", values(ROWS_V21, "timestamp", at(9, 1.5)), ["timestamp of frame 9", "1.5", "0.9"]),
    "no episodes": ("v3.0", remove(EPISODES_V30), ["meta/episodes", "0"]),
    "cut episodes": ("v3.0", cut(EPISODES_V30, 0.9), [EPISODES_V30, "parquet"]),
    "column twice": (
        "v3.0",
        table(EPISODES_V30, lambda rows: rows.append_column("length", rows["length"])),
        [EPISODES_V30],
    ),
    "between frames": (
        "v3.0",
        values(EPISODES_V30, f"{PREFIX}/from_timestamp", at(1, 7.15)),
        ["episode 1", "from_timestamp", "7.15"],
    ),
    "end of video": (
        "v3.0",
        lambda f: (
            values(EPISODES_V30, f"{PREFIX}/from_timestamp", at(1, 50.0))(f),
            values(EPISODES_V30, f"{PREFIX}/to_timestamp", at(1, 57.4))(f),
        ),
        [TOP_V30, "episode 1", "506", "574"],
    ),
    "overlap": (
        "v3.0",
        lambda f: (
            values(EPISODES_V30, f"{PREFIX}/from_timestamp", at(1, 7.0))(f),
            values(EPISODES_V30, f"{PREFIX}/to_timestamp", at(1, 14.4))(f),
        ),
        ["episodes 0-1", "is 70", "within episode 0"],
    ),
    "time is null": (
        "v3.0",
        values(EPISODES_V30, f"{PREFIX}/from_timestamp", at(1, None)),
        ["episode 1", "from_timestamp", "None"],
    ),
    "episode null": ("v3.0", values(EPISODES_V30, "episode_index", at(1, None)), ["episode_index", "None"]),
    "task twice": (
        "v2.1",
        write("meta/tasks.jsonl", b'{"task_index": 0, "task": "a"}\n{"task_index": 0, "task": "b"}\n'),
        ["tasks.jsonl", "0 twice"],
    ),
}

NOTES = {
    # what is odd: (version, edit, words of the note); the data is read as before, but for cameras that are left out
    "robot type": ("v2.1", total(robot_type=3), ["robot_type", "3"]),
    "total episodes": ("v2.1", total(total_episodes=3), ["total_episodes", "3", "2"]),
    "total frames": ("v3.0", total(total_frames=146), ["total_frames", "146", "145"]),
    "total videos": ("v2.1", total(total_videos=3), ["total_videos", "3", "4"]),
    "chunks": ("v2.1", total(chunks_size=0), ["chunks_size", "0"]),
    "template": ("v2.1", total(data_path="{nonsense}"), ["data_path", "{nonsense}"]),
    "template file": ("v3.0", total(data_path="a.parquet"), ["a.parquet", "names no file (episodes 0-1)"]),
    "pictures in tables": (
        "v2.1",
        info(camera(dtype="image")),
        ["dtype of observation.images.top is image", "in videos"],
    ),
    "depth camera": ("v2.1", info(camera(shape=[96, 96, 1])), ["images.top is left out", "one channel"]),
    "flat camera": ("v2.1", info(camera(shape=[96])), ["shape of observation.images.top is none", "(96, 96)"]),
    "camera size": ("v2.1", info(camera(shape=[48, 96, 3])), ["(96, 96)", "(48, 96)"]),
    "camera shape": ("v2.1", info(camera(shape=7)), ["shape of observation.images.top is none"]),
    "feature": ("v2.1", info(lambda i: i["features"].update(action=1)), ["feature action is 1"]),
    "lost camera": (
        "v3.0",
        info(lambda i: i["features"].pop("observation.images.top")),
        ["observation.images.top", "declares it not at all"],
    ),
    "action dtype": ("v3.0", info(declare("action", dtype="int64")), ["action", "float", "int64"]),
    "undeclared": ("v3.0", info(lambda i: i["features"].pop("action")), ["column action", "not declared"]),
    "no frame index": (
        "v3.0",
        lambda f: (
            info(lambda i: i["features"].pop("frame_index"))(f),
            table(ROWS_V30, lambda rows: rows.drop_columns(["frame_index"]))(f),
        ),
        ["no table has a column frame_index"],
    ),
    "listed length": ("v2.1", listed(1, length=66), ["length is 66", "67 (episode 1)"]),
    "length in words": ("v2.1", listed(0, length="42"), ["length is not an integer (episode 0)"]),
    "other task": ("v2.1", listed(1, tasks=["Dance."]), ["Dance.", "(episode 1)"]),
    "task is text": ("v2.1", listed(1, tasks="Dance."), ["Dance.", "(episode 1)"]),
    "no tasks": ("v2.1", remove("meta/tasks.jsonl"), ["meta/tasks.jsonl is missing"]),
    "no task text": ("v2.1", write("meta/tasks.jsonl", b'{"task_index": 0}'), ["task_index", "row 0"]),
    "unknown task": (
        "v2.1",
        values(ROWS_V21, "task_index", at(9, 4)),
        ["task_index changes within the episode", "(episode 1)"],
    ),
    "bounds": (
        "v3.0",
        values(EPISODES_V30, "dataset_to_index", at(1, 144)),
        ["dataset_to_index", "73", "74 (episode 1)"],
    ),
    "global index": (
        "v3.0",
        lambda f: (
            values(EPISODES_V30, "dataset_from_index", at(1, 72))(f),
            values(EPISODES_V30, "dataset_to_index", at(1, 146))(f),
        ),
        ["index begins at 71", "72", "(episode 1)"],
    ),
    "span": ("v3.0", values(EPISODES_V30, f"{PREFIX}/to_timestamp", at(1, 14.0)), ["69", "74 rows (episode 1)"]),
    "wide reward": (
        "v3.0",
        lambda f: (
            info(declare("next.reward", shape=[2]))(f),
            table(
                ROWS_V30,
                lambda rows: rows.set_column(rows.column_names.index("next.reward"), "next.reward", rows["action"]),
            )(f),
        ),
        ["next.reward is left out", "2 numbers a row", "(episodes 0-1)"],
    ),
    "NaN reward": (
        "v3.0",
        values(ROWS_V30, "next.reward", at(0, NAN)),
        ["next.reward is left out", "some rows (episode 0)"],
    ),
    "no such file": (
        "v3.0",
        values(EPISODES_V30, "data/file_index", at(1, 3)),
        ["file-003.parquet", "missing", "(episode 1)"],
    ),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Per version the folder and the digest of what it holds."""
    root = tmp_path_factory.mktemp("originals")
    folders = {version: cut_set(root / version) for version, cut_set in FOLDERS.items()}
    return {version: (folder, digest(open_episodes(folder))) for version, folder in folders.items()}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(name, originals, tmp_path):
    version, edit, words = FAULTS[name]
    folder = shutil.copytree(originals[version][0], tmp_path / "d")
    edit(folder)
    with pytest.raises(ValueError) as error:
        open_episodes(folder)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", NOTES)
def test_oddity_is_noted_and_changes_no_numbers(name, originals, tmp_path):
    version, edit, words = NOTES[name]
    folder = shutil.copytree(originals[version][0], tmp_path / "d")
    whole = open_episodes(folder)
    edit(folder)
    source = open_set(folder, Request())
    notes = " | ".join(source.notes)
    for word in words:
        assert word in notes
    assert source.lengths == whole.lengths
    for episode, length in enumerate(source.lengths):
        found, expected = (each.select(["wrist"]).read(episode, 0, length) for each in (source, whole))
        assert torch.equal(found.actions, expected.actions) and torch.equal(found.frames, expected.frames)
        assert torch.equal(found.states, expected.states)
        left_out = "next.reward is left out" in notes
        assert found.rewards is None if left_out else torch.equal(found.rewards, expected.rewards)


def test_damaged_picture_is_found_when_it_is_read(originals, tmp_path):
    folder = shutil.copytree(originals["v2.1"][0], tmp_path / "d")
    content = bytearray((folder / TOP_V21).read_bytes())
    start = content.index(b"mdat") + 4
    content[start : start + 4000] = bytes(4000)
    (folder / TOP_V21).write_bytes(content)
    with pytest.raises(ValueError, match=r"episode_000001\.mp4"):
        digest(open_episodes(folder))


GENTLE = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.slow
@pytest.mark.parametrize("version", FOLDERS)
@GENTLE
@given(data=st.data())
def test_flipped_bytes_are_refused_or_leave_a_whole_data_set(version, originals, tmp_path_factory, data):
    """The formats carry no checksum, so a flip may change a value; it never breaks a clip."""
    original, _ = originals[version]
    folder = shutil.copytree(original, tmp_path_factory.mktemp("flipped") / "d")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        source = open_episodes(folder)
        digest(source)
    except ValueError as error:
        assert str(folder) in str(error)
    else:
        assert sum(source.lengths) == json.loads((original / INFO).read_text())["total_frames"]
        assert len(source.views) == 2
    shutil.rmtree(folder)
