"""Sets as they are found in the wild: each opens with the numbers and pictures that were written."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from robot_sets import FPS, KINDS, LENGTHS, PREFIX, Kind, faults, picture, shown, write_set
from small_sets import EPISODES_V30, ROWS_V30, edit_json, edit_lines, edit_table, with_values

from worldmodel.data import open_episodes
from worldmodel.data.formats import DataWarning, open_set
from worldmodel.data.options import DataOptions, Request
from worldmodel.data.video.write import encode_video

INFO = "meta/info.json"
LISTED = "meta/episodes.jsonl"


def rows_v2(episode):
    return f"data/chunk-000/episode_{episode:06d}.parquet"


def video_v2(episode, camera="top"):
    return f"videos/chunk-000/{PREFIX}{camera}/episode_{episode:06d}.mp4"


def each_table(folder, edit):
    for file in (folder / "data").rglob("*.parquet"):
        edit_table(file, edit)


def rename_columns(folder, **names):
    """Rename features everywhere."""
    names = {{"observation_state": "observation.state"}.get(old, old): new for old, new in names.items()}
    edit_json(folder / INFO, lambda i: i.update(features={names.get(key, key): x for key, x in i["features"].items()}))
    each_table(folder, lambda rows: rows.rename_columns([names.get(name, name) for name in rows.column_names]))


def frames(episode, length, camera=0):
    return np.stack([picture(episode, frame, camera) for frame in range(length)])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    kinds = KINDS | {"v2.1 images": Kind("v2.1", (), ("top", "wrist"))}
    return {name: write_set(root / name, kind) for name, kind in kinds.items()}


@pytest.fixture
def make(written, tmp_path):
    return lambda kind: shutil.copytree(written[kind], tmp_path / "d")


def opened(folder, **request):
    """The set, with what it returns compared with what was written."""
    source = open_set(folder, Request(**request))
    assert faults(source, chosen="episodes" in request) == []
    return source


def refusal(folder, **request):
    with pytest.raises(ValueError) as error:
        open_set(folder, Request(**request))
    assert str(error.value).startswith(str(folder)) and "\n" not in str(error.value)
    return str(error.value)


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
    each_table(folder, lambda rows: rows.append_column("actions", rows["action"]))
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


def test_only_the_cameras_that_are_asked_for_must_be_whole(make):
    folder = make("v2.1")
    (folder / video_v2(1)).write_bytes(b"no video")
    (folder / video_v2(2)).unlink()
    assert "episodes 1-2 of 4 are broken" in refusal(folder)
    source = opened(folder, views=("wrist",))
    assert source.views == ("wrist",)
    assert "['side'] were asked for" in refusal(folder, views=("side",))


def test_deleted_by_hand(make):
    folder = make("v2.1")
    edit_lines(folder / LISTED, lambda rows: [row for row in rows if row["episode_index"] != 1])
    for file in folder.rglob("episode_000001.*"):
        file.unlink()
    message = refusal(folder)
    assert "episode 1 of 4 is broken" in message and "--skip-broken" in message
    source = opened(folder, skip_broken=True)
    assert source.numbers == (0, 2, 3) and [origin.number for origin in source.origins] == [0, 2, 3]
    assert opened(folder, episodes="2:4").numbers == (2, 3)


def test_all_broken_episodes_are_named_in_one_line(make):
    folder = make("v2.1")
    (folder / video_v2(3, "wrist")).unlink()
    (folder / rows_v2(0)).unlink()
    edit_table(folder / rows_v2(2), with_values("action", lambda rows: [*rows[:7], [float("nan")] * 4, *rows[8:]]))
    message = refusal(folder)
    for word in ("episodes 0, 2-3 of 4", rows_v2(0), "dim 0 of frame 7 is nan", video_v2(3, "wrist"), "--skip-broken"):
        assert word in message
    assert opened(folder, skip_broken=True).numbers == (1,)
    assert opened(folder, episodes="1:2").numbers == (1,)


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


@pytest.mark.parametrize("extra", [1, 3])
def test_longer_video_is_cut_to_the_table(make, extra):
    folder = make("v2.1")
    encode_video(folder / video_v2(2), frames(2, 25 + extra), FPS)
    source = opened(folder)
    assert source.lengths == LENGTHS and f"{extra} frame" in source.notes[0] and "(episode 2)" in source.notes[0]


def test_shorter_video_cuts_the_episode(make):
    folder = make("v2.1")
    encode_video(folder / video_v2(2), frames(2, 23), FPS)
    source = opened(folder)
    assert source.lengths == (21, 17, 23, 19) and "2 frames less" in source.notes[0]


@pytest.mark.parametrize("length", [20, 30])
def test_video_of_quite_another_length_is_broken(make, length):
    folder = make("v2.1")
    encode_video(folder / video_v2(2), frames(2, length), FPS)
    assert "episode 2 of 4 is broken" in refusal(folder)


def test_exchanged_and_copied_videos_are_broken(make):
    folder = make("v2.1")
    first, last = folder / video_v2(0), folder / video_v2(3)
    content = first.read_bytes(), last.read_bytes()
    first.write_bytes(content[1])
    assert "copy of" in refusal(folder)
    last.write_bytes(content[0])
    message = refusal(folder)
    assert "episodes 0, 3 of 4" in message and "exchanged" in message


def test_videos_exchanged_between_cameras_are_broken(make):
    folder = make("v2.1")
    first, last = folder / video_v2(1, "wrist"), folder / video_v2(3, "top")
    content = first.read_bytes(), last.read_bytes()
    first.write_bytes(content[1])
    last.write_bytes(content[0])
    message = refusal(folder)
    assert "episodes 1, 3 of 4" in message and "exchanged" in message
    (folder / rows_v2(1)).unlink()
    message = refusal(folder)
    assert "episodes 1, 3 of 4" in message and "as long and broken" in message


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_nan_in_the_last_action_is_never_used(make, kind):
    folder = make(kind)
    stops = np.cumsum(LENGTHS) - 1 if kind == "v3.0" else None

    def spoil(values):
        last = stops if stops is not None else [len(values) - 1]
        return [[float("nan")] * 4 if row in last else value for row, value in enumerate(values)]

    each_table(folder, with_values("action", spoil))
    source = opened(folder)
    assert source.lengths == LENGTHS and "never used (episodes 0-3)" in source.notes[0]
    each_table(folder, with_values("observation.state", lambda x: [*x[:3], [float("inf")] * 5, *x[4:]]))
    assert "observation.state dim 0 of frame 3 is inf" in refusal(folder)


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


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_git_lfs_pointers_are_named(make, kind):
    folder = make(kind)
    for file in folder.rglob("*.mp4"):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = refusal(folder)
    assert "episodes 0-3 of 4" in message and "Git LFS pointer" in message and "git lfs pull" in message


def test_sounds_and_hidden_files_are_no_cameras(make):
    folder = make("v2.1")
    sound = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    each_table(folder, lambda t: t.append_column("sound", pa.array([{"bytes": b"x", "path": None}] * len(t), sound)))
    edit_json(folder / INFO, lambda i: i["features"].update(sound={"dtype": "audio", "shape": [1]}))
    for file in list(folder.rglob("episode_*")):
        file.with_name(f"._{file.name}").write_bytes(b"left by a system")
    assert opened(folder).notes == ("pictures of sound are there, but meta/info.json declares it as audio; left out",)


def test_renamed_camera_is_refused(make):
    folder = make("v2.1")
    edit_json(folder / INFO, lambda i: i["features"].update(side=i["features"].pop(f"{PREFIX}top")))
    message = refusal(folder)
    assert "['side'], without files" in message and f"['{PREFIX}top'], whose files are there" in message
    assert opened(folder, views=("wrist",)).views == ("wrist",)


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


def test_unlisted_episode_with_data_is_broken(make):
    for kind in ("v2.1", "v3.0"):
        folder = make(kind)
        if kind == "v2.1":
            edit_lines(folder / LISTED, lambda rows: rows[:-1])
        else:
            edit_table(folder / EPISODES_V30, lambda rows: rows.slice(0, 3))
        assert "episode 3 of 4 is broken" in refusal(folder) and "its table is there" in refusal(folder)
        assert opened(folder, skip_broken=True).numbers == (0, 1, 2)
        shutil.rmtree(folder)


def test_exchanged_names_of_action_and_state_are_refused(make):
    folder = make("v3.0")
    names = {"action": "observation.state", "observation.state": "action"}
    edit_table(folder / ROWS_V30, lambda t: t.rename_columns([names.get(n, n) for n in t.column_names]))
    assert "width of action is 5, expected 4" in refusal(folder)


def test_selection_keeps_numbers_and_order(make):
    folder = make("v2.1")
    source = open_episodes(folder, views=["wrist", "top"], options=DataOptions(episodes="3,1"))
    assert source.views == ("wrist", "top") and source.numbers == (3, 1) and source.lengths == (19, 17)
    assert source.read(0, 2, 4).actions.tolist() == [[302, 303, 304, 305]]
    assert shown(source.read(0, 2, 4).frames[:, 1].numpy()) == [(3, 2), (3, 3)]
