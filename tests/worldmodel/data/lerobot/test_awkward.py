"""Sets as they are found in the wild: each opens with the numbers and pictures that were written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from robot_sets import (
    FPS,
    KINDS,
    LENGTHS,
    PREFIX,
    each_table,
    frames,
    opened,
    picture,
    refusal,
    rows_v2,
    shown,
    video_v2,
)
from small_sets import EPISODES_V30, ROWS_V30, edit_json, edit_lines, edit_table, with_values

from worldmodel.data import open_episodes
from worldmodel.data.formats import DataWarning, open_set
from worldmodel.data.options import Request
from worldmodel.data.video.decoders import video_info
from worldmodel.data.video.read import read_frames
from worldmodel.data.video.write import encode_video

INFO = "meta/info.json"
LISTED = "meta/episodes.jsonl"


def rename_columns(folder, **names):
    """Rename features everywhere."""
    names = {{"observation_state": "observation.state"}.get(old, old): new for old, new in names.items()}
    edit_json(folder / INFO, lambda i: i.update(features={names.get(key, key): x for key, x in i["features"].items()}))
    each_table(folder, lambda rows: rows.rename_columns([names.get(name, name) for name in rows.column_names]))


@pytest.mark.parametrize("kind", [*KINDS, "v2.1 images"])
def test_videos_and_pictures_in_tables_hold_the_same(written, kind):
    source = opened(written[kind])
    assert source.notes == () and source.numbers == ()
    assert (source.views, source.lengths, source.size) == (("top", "wrist"), LENGTHS, (32, 48))
    some = source.read(2, 3, 20, 4).frames
    assert (
        some[:, 0].int() - open_episodes(written["v2.1 images"]).read(2, 3, 20, 4).frames[:, 0].int()
    ).abs().max() < 4
    assert source.pictures.codec(0, 1) == ("h264" if "images" not in kind and "mixed" not in kind else "png in tables")


def test_pictures_in_files_beside_the_tables(make):
    folder = make("v2.1 images")
    for episode in range(len(LENGTHS)):
        beside = folder / "images" / f"{PREFIX}wrist" / f"episode_{episode:06d}"
        beside.mkdir(parents=True)

        def move(cells, beside=beside):
            for frame, cell in enumerate(cells):
                (beside / f"frame_{frame:06d}.png").write_bytes(cell["bytes"])
            return [{"bytes": None, "path": f"frame_{frame:06d}.png"} for frame in range(len(cells))]

        edit_table(folder / rows_v2(episode), with_values(f"{PREFIX}wrist", move))
    opened(folder)
    lost = folder / "images" / f"{PREFIX}wrist" / "episode_000002"
    for frame in (4, 5, 9):
        (lost / f"frame_{frame:06d}.png").unlink()
    assert "episode 2 of 4 is broken" in refusal(folder) and "no picture in frames 4-5, 9" in refusal(folder)
    assert opened(folder, skip_broken=True).numbers == (0, 1, 3)


def test_pictures_as_arrays(make):
    folder = make("v3.0 images")
    edit_json(folder / INFO, lambda i: i["features"][f"{PREFIX}top"].update(dtype="uint8"))
    pixels = [picture(e, f, 0).tolist() for e, length in enumerate(LENGTHS) for f in range(length)]
    kind = pa.list_(pa.list_(pa.list_(pa.uint8())))
    edit_table(
        folder / ROWS_V30,
        lambda t: t.set_column(t.column_names.index(f"{PREFIX}top"), f"{PREFIX}top", pa.array(pixels, kind)),
    )
    assert opened(folder).pictures.codec(0, 0) == "raw pictures in tables"


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_keys_of_openpi(make, kind):
    folder = make(kind)
    rename_columns(folder, action="actions", observation_state="state")
    assert opened(folder).notes == ("the action is read from actions", "the state is read from state")


def test_two_action_keys_stand_side_by_side_as_declared(make):
    folder = make("v3.0")

    def split(rows):
        values = np.array(rows["action"].to_pylist(), np.float32)
        rows = rows.drop_columns(["action"])
        rows = rows.append_column("action.right", pa.array(values[:, 1:].tolist(), pa.list_(pa.float64())))
        return rows.append_column("action.left", pa.array(values[:, 0].tolist(), pa.float32()))

    def declare(i):
        del i["features"]["action"]
        i["features"]["action.left"] = {"dtype": "float32", "shape": [1], "names": {"motors": ["a"]}}
        i["features"]["action.right"] = {"dtype": "float64", "shape": [3], "names": None}

    edit_table(folder / ROWS_V30, split)
    edit_json(folder / INFO, declare)
    assert opened(folder).notes == ("the action is read from action.left, action.right",)
    turned = open_set(folder, Request(action_keys=("action.right", "action.left")))
    assert turned.read(1, 3, 5).actions.tolist() == [[104, 105, 106, 103]]
    assert "action.middle" in refusal(folder, action_keys=("action.middle",))


def test_ambiguous_and_unknown_actions(make):
    folder = make("v2.1")
    each_table(folder, lambda rows: rows.append_column("actions", rows["observation.state"]))
    message = refusal(folder)
    assert "action or actions" in message and "--action-keys" in message
    opened(folder, action_keys=("action",))
    each_table(folder, lambda rows: rows.drop_columns(["actions"]))
    rename_columns(folder, action="robot_action")
    assert "robot_action may be it" in refusal(folder)
    opened(folder, action_keys=("robot_action",))
    rename_columns(folder, robot_action="targets")
    source = open_set(folder, Request())
    assert source.action_dim == 0 and "not used are ['targets']" in source.notes[0]


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_action_and_state_win_over_their_parts(make, kind):
    """As in DROID 1.0.1."""
    folder = make(kind)

    def beside(rows):
        rows = rows.append_column("action.joint_velocity", rows["observation.state"])
        rows = rows.append_column("action.gripper_position", rows["timestamp"])
        return rows.append_column("observation.state.joints", rows["action"])

    declared = {"action.gripper_position": 1, "action.joint_velocity": 5, "observation.state.joints": 4}
    each_table(folder, beside)
    parts = {name: {"dtype": "float32", "shape": [width], "names": None} for name, width in declared.items()}
    edit_json(folder / INFO, lambda i: i["features"].update(parts))
    assert opened(folder).notes == (
        "the action is read from action; not used are action.gripper_position, action.joint_velocity",
        "the state is read from observation.state; not used are observation.state.joints",
    )
    assert open_set(folder, Request(action_keys=("action.joint_velocity",))).action_dim == 5
    each_table(folder, lambda rows: rows.rename_columns([{"action": "a"}.get(n, n) for n in rows.column_names]))
    edit_json(folder / INFO, lambda i: i["features"].update(a=i["features"].pop("action")))
    source = open_set(folder, Request())
    assert source.action_dim == 6
    assert source.notes[0] == "the action is read from action.gripper_position, action.joint_velocity"


def test_equal_actions_twice_are_read_once(make):
    folder = make("v3.0")
    nan = [[float("nan")] * 4]

    def twice(rows):
        return rows.append_column("actions", pa.array(rows["action"].to_pylist(), pa.list_(pa.float64())))

    edit_table(folder / ROWS_V30, with_values("action", lambda values: [*values[:-1], *nan]))
    edit_table(folder / ROWS_V30, twice)
    notes = opened(folder).notes
    assert "actions holds the same numbers as action" in notes
    assert "the action is read from action; not used are actions" in notes
    edit_table(folder / ROWS_V30, with_values("actions", lambda values: [*values[1:], *nan]))
    assert "ambiguous, action or actions" in refusal(folder)


def with_outcomes(rewards, successes):
    """An edit of a table: outcomes that are functions of the frame."""

    def edit(rows):
        frames = range(len(rows))
        rows = rows.append_column("next.reward", pa.array([rewards(frame) for frame in frames]))
        rows = rows.append_column("next.success", pa.array([successes(frame) for frame in frames]))
        return rows.append_column("next.done", pa.array(["no"] * len(rows)))

    return edit


@pytest.mark.parametrize(
    ("rewards", "successes", "words"),
    [
        (lambda frame: float("nan"), lambda frame: None, ["not a finite number in every row", "holds null"]),
        (lambda frame: "one", lambda frame: "yes", ["next.reward is left out: it holds string", "holds string"]),
        (lambda frame: None, lambda frame: [True, False], ["holds null", "2 numbers a row, expected 1"]),
        (lambda frame: [1.0] * (frame % 2 + 1), lambda frame: None if frame else True, ["it holds list", "some rows"]),
    ],
)
def test_outcomes_that_are_no_numbers_are_left_out(make, rewards, successes, words):
    folder = make("v2.1")
    each_table(folder, with_outcomes(rewards, successes))
    source = opened(folder)
    clip = source.read(1, 0, 5)
    notes = " | ".join(source.notes)
    assert clip.rewards is None and clip.successes is None
    for word in words:
        assert word in notes


def test_rewards_that_are_partly_missing_are_left_out_everywhere(make):
    folder = make("v2.1")
    each_table(folder, with_outcomes(float, lambda frame: frame > 10))
    assert opened(folder).read(1, 0, 3).rewards.tolist() == [0, 1]
    edit_table(folder / rows_v2(2), with_values("next.reward", lambda x: [*x[:4], float("nan"), *x[5:]]))
    edit_table(folder / rows_v2(3), lambda rows: rows.drop_columns(["next.success"]))
    source = opened(folder)
    assert "next.reward is left out: it is not a finite number in some rows (episode 2)" in source.notes
    assert "next.success is left out: a table lacks it (episode 3)" in source.notes
    for episode in range(4):
        clip = source.read(episode, 0, 12)
        assert clip.rewards is None and clip.successes is None
    some = opened(folder, episodes="0,1,3").read(1, 0, 12)
    assert some.rewards is not None and some.successes is None


@pytest.mark.parametrize("name", ["data", "meta", "videos"])
def test_paths_in_messages_are_shortened_once(make, tmp_path, monkeypatch, name):
    folder = tmp_path / "inside" / name
    folder.parent.mkdir()
    make("v2.1").rename(folder)
    (folder / rows_v2(1)).unlink()
    edit_lines(folder / LISTED, lambda rows: [rows[0] | {"tasks": ["other"]}, *rows[1:3]])
    monkeypatch.chdir(folder.parent)
    message = refusal(Path(name))
    assert f"1: {rows_v2(1)}: episode 1, file named by data_path" in message
    assert "3: it is not listed in meta/episodes.jsonl" in message
    notes = open_set(Path(name), Request(episodes="0:1")).notes
    assert any(note.startswith("meta/episodes.jsonl names the task") for note in notes)


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_videos_of_a_multiple_rate_are_read_by_time(make, kind):
    folder = make(kind)
    for file in (folder / "videos").rglob(f"{PREFIX}top/**/*.mp4"):
        pictures = read_frames(file, range(video_info(file).num_frames))
        encode_video(file, np.repeat(pictures, 3, axis=0)[:-1], 3 * FPS)
    source = opened(folder)
    assert source.notes[0].startswith(f"the videos of {PREFIX}top have 30 frames per second, the tables 10; one frame")
    assert shown(source.read(2, 3, 20, 4).frames[:, 0].numpy()) == [(2, frame) for frame in range(3, 20, 4)]


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
@pytest.mark.parametrize("fps", [5, 20])
def test_a_wrong_rate_is_refused(make, kind, fps):
    folder = make(kind)
    each_table(folder, lambda rows: rows.drop_columns(["timestamp"]))
    edit_json(folder / INFO, lambda i: i.update(fps=fps))
    assert f"fps of {PREFIX}top is 10, expected {fps}" in refusal(folder)


def test_removed_camera(make):
    folder = make("v3.0")
    edit_json(folder / INFO, lambda i: i["features"].pop(f"{PREFIX}wrist"))
    shutil.rmtree(folder / "videos" / f"{PREFIX}wrist")
    source = opened(folder)
    assert source.views == ("top",) and source.notes == ()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [32, 48, 1]},
        {"info": {"video.is_depth_map": True}},
        {"info": {"video.pix_fmt": "gray12le"}},
        {"shape": [1, 32, 48], "names": ["channels", "height", "width"]},
    ],
    ids=str,
)
def test_depth_camera_is_left_out_by_name(make, change):
    folder = make("v2.1")
    depth = {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]} | change
    edit_json(folder / INFO, lambda i: i["features"].update({f"{PREFIX}top_depth": depth}))
    source = opened(folder)
    assert source.views == ("top", "wrist") and f"{PREFIX}top_depth is left out" in source.notes[0]
    assert "top_depth cannot be read" in refusal(folder, views=("top_depth",))


def test_stale_totals_and_undeclared_column_are_noted(make):
    folder = make("v2.1")
    edit_json(folder / INFO, lambda i: i.update(total_frames=80, total_videos=4, total_episodes=9))
    each_table(folder, lambda rows: rows.append_column("__index_level_0__", pa.array(range(len(rows)))))
    notes = " | ".join(opened(folder).notes)
    for word in (
        "total_frames is 80, found 82",
        "total_videos is 4, found 8",
        "total_episodes is 9",
        "__index_level_0__",
    ):
        assert word in notes
    with pytest.warns(DataWarning, match="__index_level_0__.*; and 1 more"):
        open_episodes(folder)


def test_what_groot_publishes(make):
    """A camera without files, no `frame_index`, timestamps from 1/fps, templates that name no files, wrong totals."""
    folder = make("v2.1")

    def untidy(i):
        top = i["features"].pop(f"{PREFIX}top")
        i["features"] = {f"{PREFIX}egoview": top | {"shape": [80, 128, 3]}, f"{PREFIX}top": top, **i["features"]}
        i["features"].pop("frame_index")
        i.update(codebase_version="v2.0", fps=10.0, total_videos=2, total_chunks=0)
        for field in ("data_path", "video_path"):
            i[field] = i[field].replace("episode_chunk", "episode_index")

    edit_json(folder / INFO, untidy)
    each_table(folder, lambda rows: rows.drop_columns(["frame_index"]))
    each_table(folder, with_values("timestamp", lambda times: [time + 0.1 for time in times]))
    edit_lines(folder / LISTED, lambda rows: [row | {"tasks": ["do it", "valid"]} for row in rows])
    source = opened(folder)
    assert source.views == ("top", "wrist") and source.task(0) == "do it"
    notes = " | ".join(source.notes)
    for word in ("egoview is left out", "frame_index", "begins at 0.1", "data_path", "video_path", "total_videos"):
        assert word in notes
    encode_video(folder / video_v2(2), frames(2, 26), FPS)
    assert "episode 2 of 4 is broken" in refusal(folder), "a longer video and late timestamps may be a shift"


@pytest.mark.parametrize("field", ["frame_index", "index", "timestamp", "task_index"])
@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_a_counter_may_be_missing(make, kind, field):
    folder = make(kind)
    each_table(folder, lambda rows: rows.drop_columns([field]))
    assert f"{field} is declared" in opened(folder).notes[0]


def test_small_oddities_of_the_meta_folder(make):
    folder = make("v2.1")
    edit_json(folder / INFO, lambda i: i.update(codebase_version="v2.2", fps="10"))
    top = {"shape": [3, 32, 48], "names": {"axes": ["channel", "height", "width"]}}
    edit_json(folder / INFO, lambda i: i["features"][f"{PREFIX}top"].update(top))
    for file in (folder / INFO, folder / LISTED):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    (folder / "meta" / "tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "push it"}))
    source = opened(folder)
    notes = " | ".join(source.notes)
    for word in ("codebase_version is v2.2", "fps is a string", "byte-order mark", "'push it', which is used"):
        assert word in notes
    assert "shape of" not in notes and source.task(2) == "push it"


def test_sounds_and_hidden_files_are_no_cameras(make):
    folder = make("v2.1")
    sound = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    each_table(folder, lambda t: t.append_column("sound", pa.array([{"bytes": b"x", "path": None}] * len(t), sound)))
    edit_json(folder / INFO, lambda i: i["features"].update(sound={"dtype": "audio", "shape": [1]}))
    for file in list(folder.rglob("episode_*")):
        file.with_name(f"._{file.name}").write_bytes(b"left by a system")
    assert opened(folder).notes == ("pictures of sound are there, but meta/info.json declares it as audio; left out",)


def test_tasks_in_words_and_tasks_that_change(make):
    folder = make("v3.0")
    (folder / "meta" / "tasks.parquet").unlink()
    edit_table(folder / EPISODES_V30, with_values("tasks", lambda _: [["a"], ["b"], [], ["d"]]))
    source = opened(folder)
    assert [source.task(episode) for episode in range(4)] == ["a", "b", "", "d"]
    words = ["w"] * 21 + ["x"] * 17 + ["y"] * 25 + ["z"] * 19
    edit_table(folder / ROWS_V30, lambda t: t.append_column("language_instruction", pa.array(words)))
    source = opened(folder)
    assert [source.task(episode) for episode in range(4)] == ["w", "x", "y", "z"]


def test_episodes_in_any_order_and_with_integers(make):
    folder = make("v3.0")
    order = [*range(38, 63), *range(21), *range(63, 82), *range(21, 38)]
    edit_table(folder / ROWS_V30, lambda rows: rows.take(order))
    edit_table(
        folder / ROWS_V30,
        lambda t: t.set_column(
            t.column_names.index("action"), "action", pa.array([[int(v) for v in x] for x in t["action"].to_pylist()])
        ),
    )
    edit_table(folder / EPISODES_V30, lambda rows: rows.take([2, 0, 3, 1]))
    source = opened(folder)
    assert source.lengths == LENGTHS and "dtype of action is float32, the tables hold int" in source.notes[0]


def test_uneven_timestamps_matter_only_to_videos(make):
    def uneven(times):
        return [time + 0.03 * (row % 3 == 1) for row, time in enumerate(times)]

    folder = make("v3.0 images")
    edit_table(folder / ROWS_V30, with_values("timestamp", uneven))
    assert opened(folder).notes == ("timestamp is uneven, not used (episodes 0-3)",)
    edit_json(folder / INFO, lambda i: i.update(fps=20))
    assert "timestamp of frame 1 is 0.13" in refusal(folder) and "20 frames per second" in refusal(folder)


def test_uneven_timestamps_of_a_video_are_broken(make):
    folder = make("v3.0")
    edit_table(folder / ROWS_V30, with_values("timestamp", lambda times: [*times[:30], times[30] + 0.03, *times[31:]]))
    assert "episode 1 of 4 is broken" in refusal(folder) and "timestamp of frame 9" in refusal(folder)
