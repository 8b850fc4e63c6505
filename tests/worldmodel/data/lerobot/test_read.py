import pickle
import shutil

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_sets import (
    EPISODES_V30,
    ROWS_V30,
    V21,
    V30,
    digest,
    edit_json,
    edit_lines,
    edit_table,
    two_episodes_v21,
    two_episodes_v30,
    with_values,
)

from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.video.letterbox import Letterbox
from worldmodel.data.video.read import read_frames
from worldmodel.data.video.write import encode_video

TASK = "Push the T-shaped block onto the T-shaped target."


def drop_feature(name):
    return lambda info: info["features"].pop(name)


@pytest.mark.parametrize(
    ("folder", "lengths"), [(V21, (42, 67, 80, 76, 64)), (V30, (71, 74, 68, 57, 69, 77, 41, 49))], ids=["v2.1", "v3.0"]
)
def test_attributes(folder, lengths):
    source = open_episodes(folder)
    assert isinstance(source, EpisodeSource)
    assert source.name == str(folder)
    assert source.views == ("top", "wrist")
    assert source.fps == 10
    assert source.lengths == lengths
    assert len(source) == len(lengths)
    assert (source.action_dim, source.state_dim) == (2, 2)
    assert source.size == (96, 96)
    assert bool(source.pixel_mask.all())
    assert source.robot_type == "pusht"
    assert {source.task(episode) for episode in range(len(source))} == {TASK}
    assert source.reset_seed(0) is None


def test_v21_read_is_the_files_content():
    clip = open_episodes(V21).read(1, 0, 67)
    table = pq.read_table(V21 / "data/chunk-000/episode_000001.parquet")
    top, wrist = (
        read_frames(V21 / f"videos/chunk-000/observation.images.{view}/episode_000001.mp4", range(67))
        for view in ("top", "wrist")
    )
    assert np.array_equal(clip.frames[:, 0].numpy(), top)
    enlarged = Letterbox((64, 64), (96, 96)).fit(torch.from_numpy(wrist))
    assert torch.equal(clip.frames[:, 1], enlarged)
    assert clip.actions.tolist() == table["action"].to_pylist()[:-1]
    assert clip.states.tolist() == table["observation.state"].to_pylist()
    assert clip.rewards.tolist() == table["next.reward"].to_pylist()[:-1]
    assert clip.successes.tolist() == table["next.success"].to_pylist()[:-1]
    assert clip.pixel_mask is None


def test_v30_finds_each_episode_inside_the_shared_video():
    source = open_episodes(V30)
    video = V30 / "videos/observation.images.top/chunk-000/file-000.mp4"
    table = pq.read_table(V30 / ROWS_V30)
    first = 0
    for episode, length in enumerate(source.lengths):
        clip = source.read(episode, 0, length)
        frames = read_frames(video, range(first, first + length))
        assert np.array_equal(clip.frames[:, 0].numpy(), frames)
        rows = table.slice(first, length)
        assert clip.states.tolist() == rows["observation.state"].to_pylist()
        first += length


def test_stride_joins_actions_and_sums_rewards():
    source = open_episodes(V30)
    every = source.read(2, 4, 30)
    clip = source.read(2, 4, 30, stride=4)
    assert len(clip.frames) == 7 and clip.actions.shape == (6, 8)
    assert torch.equal(clip.frames, every.frames[::4])
    assert torch.equal(clip.states, every.states[::4])
    assert torch.equal(clip.actions[1], every.actions[4:8].flatten())
    assert clip.rewards[2] == pytest.approx(float(every.rewards[8:12].sum()))
    assert clip.successes.tolist() == [bool(every.successes[i : i + 4].any()) for i in range(0, 24, 4)]


def test_one_frame_has_no_actions():
    clip = open_episodes(V30).read(0, 70, 71)
    assert clip.frames.shape == (1, 2, 96, 96, 3)
    assert clip.actions.shape == (0, 2) and clip.rewards.shape == (0,)


def test_success_within_a_stride_counts(tmp_path):
    folder = two_episodes_v21(tmp_path / "d")
    edit_table(
        folder / "data/chunk-000/episode_000000.parquet",
        with_values("next.success", lambda values: [i == 6 for i in range(len(values))]),
    )
    clip = open_episodes(folder).read(0, 0, 13, stride=4)
    assert clip.successes.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, -1, 5), ["episode 0", "-1:5", "0:42"]),
        ((0, 5, 5), ["5:5", "0:42"]),
        ((0, 0, 43), ["0:43", "0:42"]),
        ((0, 0, 42, 0), ["0:42:0", "at least 1"]),
        ((5, 0, 1), ["episode 5", "0..4"]),
        ((-1, 0, 1), ["episode -1", "0..4"]),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError) as error:
        open_episodes(V21).read(*arguments)
    for word in words:
        assert word in str(error.value)


def test_task_and_reset_seed_check_the_episode():
    source = open_episodes(V21)
    for read in (source.task, source.reset_seed):
        with pytest.raises(ValueError, match="episode 9"):
            read(9)


def test_size_letterboxes_every_camera():
    source = open_episodes(V21, size=(48, 80))
    clip = source.read(0, 0, 3)
    assert clip.frames.shape == (3, 2, 48, 80, 3)
    assert clip.pixel_mask.shape == (2, 48, 80)
    assert torch.equal(clip.pixel_mask, source.pixel_mask)
    assert bool(clip.pixel_mask[:, :, 16:64].all())
    assert not bool(clip.pixel_mask[:, :, :16].any() or clip.pixel_mask[:, :, 64:].any())
    assert not clip.frames.movedim(1, 0)[~clip.pixel_mask[:, None].expand(2, 3, 48, 80)].any()


def test_size_must_be_positive():
    with pytest.raises(ValueError, match="at least 1 x 1"):
        open_episodes(V21, size=(0, 8))


def test_video_without_actions_or_rewards(tmp_path):
    folder = two_episodes_v30(tmp_path / "d")
    for name in ("action", "observation.state", "next.reward", "next.success"):
        edit_json(folder / "meta" / "info.json", drop_feature(name))
        edit_table(folder / ROWS_V30, lambda table, name=name: table.drop_columns([name]))
    source = open_episodes(folder)
    clip = source.read(1, 0, 5)
    assert (source.action_dim, source.state_dim) == (0, 0)
    assert clip.actions is None and clip.states is None
    assert clip.rewards is None and clip.successes is None


def test_scalar_and_wide_columns(tmp_path):
    folder = two_episodes_v30(tmp_path / "d")

    def declare(info):
        info["features"]["action"] = {"dtype": "float64", "shape": [1], "names": None}
        info["features"]["observation.state"] = {"dtype": "float32", "shape": [5], "names": None}

    def replace(table):
        rows = len(table)
        wide = pa.array([[float(i)] * 5 for i in range(rows)], pa.list_(pa.float32()))
        table = table.drop_columns(["action", "observation.state"])
        table = table.append_column("action", pa.array(np.arange(rows, dtype=np.float64)))
        return table.append_column("observation.state", wide)

    edit_json(folder / "meta" / "info.json", declare)
    edit_table(folder / ROWS_V30, replace)
    source = open_episodes(folder)
    assert (source.action_dim, source.state_dim) == (1, 5)
    clip = source.read(1, 0, 5, stride=2)
    assert clip.actions.tolist() == [[71, 72], [73, 74]]
    assert clip.states[:, 4].tolist() == [71, 73, 75]


def test_several_files_of_data_and_of_episodes(tmp_path):
    folder = two_episodes_v30(tmp_path / "d")
    expected = digest(open_episodes(folder))
    table = pq.read_table(folder / ROWS_V30)
    episodes = pq.read_table(folder / EPISODES_V30)
    (folder / "data/chunk-001").mkdir()
    (folder / "meta/episodes/chunk-001").mkdir()
    pq.write_table(table.slice(0, 71), folder / ROWS_V30)
    pq.write_table(table.slice(71), folder / "data/chunk-001/file-002.parquet")
    pq.write_table(episodes.slice(0, 1), folder / EPISODES_V30)
    second = folder / "meta/episodes/chunk-001/file-000.parquet"
    pq.write_table(episodes.slice(1), second)
    edit_table(second, with_values("data/chunk_index", lambda _: [1]))
    edit_table(second, with_values("data/file_index", lambda _: [2]))
    assert digest(open_episodes(folder)) == expected


def test_a_gap_in_a_shared_video_is_refused(tmp_path):
    """Later episodes would start at other frames than their time stamps name."""
    folder = shutil.copytree(V30, tmp_path / "d")
    file = folder / "videos" / "observation.images.top" / "chunk-000" / "file-000.mp4"
    even = tmp_path / "even.mp4"
    encode_video(even, np.zeros((506, 96, 96, 3), np.uint8), fps=10)
    with av.open(even) as source, av.open(file, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.pts += 1024 * (packet.pts >= 100 * 1024)
                packet.dts, packet.stream = packet.pts, stream
                target.mux(packet)
    message = r"episodes 1-7 of 8 .*file-000\.mp4: episode 1, time of frame 100 .*images\.top is 10\.1 s, expected 10 s"
    with pytest.raises(ValueError, match=message):
        open_episodes(folder)


def test_tasks_per_episode(tmp_path):
    folder = two_episodes_v21(tmp_path / "d")
    tasks = [{"task_index": 0, "task": TASK}, {"task_index": 1, "task": "Stay."}]
    edit_lines(folder / "meta/tasks.jsonl", lambda _: tasks)
    edit_lines(folder / "meta/episodes.jsonl", lambda rows: [rows[0], rows[1] | {"tasks": ["Stay."]}])
    edit_table(
        folder / "data/chunk-000/episode_000001.parquet", with_values("task_index", lambda values: [1] * len(values))
    )
    source = open_episodes(folder)
    assert [source.task(0), source.task(1)] == [TASK, "Stay."]


def test_no_task_column(tmp_path):
    folder = two_episodes_v30(tmp_path / "d")
    edit_json(folder / "meta" / "info.json", drop_feature("task_index"))
    edit_table(folder / ROWS_V30, lambda table: table.drop_columns(["task_index"]))
    assert open_episodes(folder).task(0) == TASK
    edit_table(folder / EPISODES_V30, lambda table: table.drop_columns(["tasks"]))
    assert open_episodes(folder).task(0) == ""


def test_reset_seed_and_robot_type(tmp_path):
    folder = two_episodes_v30(tmp_path / "d")
    edit_table(folder / EPISODES_V30, lambda table: table.append_column("reset_seed", pa.array([7, None])))
    edit_json(folder / "meta" / "info.json", lambda info: info.update(robot_type=None))
    source = open_episodes(folder)
    assert [source.reset_seed(0), source.reset_seed(1)] == [7, None]
    assert source.robot_type == ""


def test_channels_first_shape(tmp_path):
    folder = two_episodes_v21(tmp_path / "d")

    def transpose(info):
        camera = info["features"]["observation.images.wrist"]
        camera.update(shape=[3, 64, 64], names=["channels", "height", "width"])

    edit_json(folder / "meta" / "info.json", transpose)
    assert open_episodes(folder).read(0, 0, 1).frames.shape == (1, 2, 96, 96, 3)


def test_fingerprint_follows_content_not_place(tmp_path):
    folder = shutil.copytree(V30, tmp_path / "d")
    before = open_episodes(folder).fingerprint
    assert before == open_episodes(V30).fingerprint
    assert before != open_episodes(V21).fingerprint
    edit_table(folder / ROWS_V30, with_values("next.reward", lambda values: [0.5, *values[1:]]))
    assert open_episodes(folder).fingerprint != before


def test_fingerprints_stay_the_same():
    """Shipped world models know their training data by them."""
    for folder, begin in ((V21, "93621512e20d053e"), (V30, "205276c3227e4415")):
        assert open_episodes(folder).fingerprint.startswith(begin)


@pytest.mark.slow
def test_what_systems_leave_behind_does_not_change_the_data_set(tmp_path):
    folder = shutil.copytree(V30, tmp_path / "d")
    expected = digest(open_episodes(folder))
    names = (".DS_Store", "Thumbs.db", "._file-000.parquet")
    for name in names:
        for part in ("data", "data/chunk-000", "meta", "meta/episodes/chunk-000", "videos"):
            (folder / part / name).write_bytes(b"left behind")
    (folder / "meta" / ".cache").mkdir()
    (folder / "meta" / ".cache" / "file").write_bytes(b"left behind")
    source = open_episodes(folder)
    assert source.fingerprint == open_episodes(V30).fingerprint
    assert digest(source) == expected


def test_linked_folders_are_part_of_the_data_set(tmp_path):
    folder = shutil.copytree(V30, tmp_path / "d")
    for part in ("data/chunk-000", "videos/observation.images.top", "meta/episodes"):
        target = tmp_path / part.replace("/", "-")
        (folder / part).rename(target)
        (folder / part).symlink_to(target)
    (folder / "data" / "again").symlink_to(folder / "data")
    assert open_episodes(folder).fingerprint == open_episodes(V30).fingerprint


def test_a_source_travels_between_processes():
    source = open_episodes(V21)
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(again.read(0, 0, 2).frames, source.read(0, 0, 2).frames)


def test_letterbox_identity_is_the_same_tensor():
    frames = torch.randint(256, (2, 5, 7, 3), dtype=torch.uint8)
    box = Letterbox((5, 7), (5, 7))
    assert box.fit(frames) is frames
    assert bool(box.mask().all())


@pytest.mark.parametrize(
    ("source", "target", "inner", "corner"),
    [
        ((96, 96), (48, 80), (48, 48), (0, 16)),
        ((48, 64), (64, 64), (48, 64), (8, 0)),
        ((480, 640), (64, 64), (48, 64), (8, 0)),
        ((10, 1), (4, 4), (4, 1), (0, 1)),
        ((64, 64), (96, 96), (96, 96), (0, 0)),
    ],
)
def test_letterbox_keeps_aspect_and_colour(source, target, inner, corner):
    box = Letterbox(source, target)
    assert (box.inner, box.corner) == (inner, corner)
    framed = box.fit(torch.full((1, *source, 3), 200, dtype=torch.uint8))
    mask = box.mask()
    assert framed.shape == (1, *target, 3)
    assert int(mask.sum()) == inner[0] * inner[1]
    assert bool((framed[0][mask] == 200).all()) and not framed[0][~mask].any()


def test_letterbox_pads_without_touching_pixels_that_fit():
    frames = torch.randint(256, (2, 48, 64, 3), dtype=torch.uint8)
    assert torch.equal(Letterbox((48, 64), (64, 64)).fit(frames)[:, 8:56], frames)


def test_letterbox_averages_when_it_shrinks():
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    frames[:, ::2] = 255
    shrunk = Letterbox((64, 64), (16, 16)).fit(frames)[0, 2:-2].float()
    assert float((shrunk - 127.5).abs().max()) < 4
