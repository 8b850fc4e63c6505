"""Episodes that are broken: named all at once, and left out where that is asked for."""

import shutil

import numpy as np
import pytest
from robot_sets import (
    FPS,
    KINDS,
    LENGTHS,
    PREFIX,
    each_table,
    frames,
    opened,
    refusal,
    rows_v2,
    shown,
    video_v2,
    write_set,
)
from small_sets import EPISODES_V30, ROWS_V30, edit_json, edit_lines, edit_table, with_values

from worldmodel.data import open_episodes
from worldmodel.data.options import DataOptions
from worldmodel.data.video.write import encode_video

INFO = "meta/info.json"
LISTED = "meta/episodes.jsonl"


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


def encode_lengths(folder, lengths, camera="top"):
    """Give the videos of a camera other lengths, by episode."""
    for episode, length in lengths.items():
        encode_video(folder / video_v2(episode, camera), frames(episode, length, camera == "wrist"), FPS)


def test_a_frame_more_and_a_frame_less_are_no_exchange(make):
    folder = make("v2.1")
    encode_lengths(folder, {0: 22, 2: 24})
    encode_lengths(folder, {1: 16, 2: 24}, "wrist")
    source = opened(folder)
    assert source.lengths == (21, 16, 24, 19)
    for words in ("top has 1 frame more", "top has 1 frame less", "wrist has 1 frame less"):
        assert any(words in note for note in source.notes)


def test_lengths_that_fit_crosswise_are_an_exchange(make):
    folder = make("v2.1")
    encode_lengths(folder, {0: 19, 1: 16, 3: 21})
    message = refusal(folder)
    assert "episodes 0, 3 of 4" in message
    assert "the table of episode 3 has 19: are videos exchanged?" in message
    assert opened(folder, skip_broken=True).lengths == (16, 25)


def test_three_videos_in_a_circle_are_an_exchange(make):
    folder = make("v2.1")
    encode_lengths(folder, {0: 19, 1: 21, 3: 17})
    assert "episodes 0-1, 3 of 4" in refusal(folder)
    assert opened(folder, skip_broken=True).numbers == (2,)
    encode_lengths(folder, {2: 26})
    assert opened(folder, skip_broken=True).numbers == (2,)


def test_videos_that_are_late_by_an_episode_are_an_exchange(tmp_path):
    folder = write_set(tmp_path / "d", KINDS["v2.1"], lengths=(20, 21, 21, 22, 23))
    encode_lengths(folder, {1: 20, 2: 21, 3: 21, 4: 22})
    assert "episodes 1-4 of 5" in refusal(folder)


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


@pytest.mark.parametrize("kind", ["v2.1", "v3.0"])
def test_git_lfs_pointers_are_named(make, kind):
    folder = make(kind)
    for file in folder.rglob("*.mp4"):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    message = refusal(folder)
    assert "episodes 0-3 of 4" in message and "Git LFS pointer" in message and "git lfs pull" in message


def test_renamed_camera_is_refused(make):
    folder = make("v2.1")
    edit_json(folder / INFO, lambda i: i["features"].update(side=i["features"].pop(f"{PREFIX}top")))
    message = refusal(folder)
    assert "['side'], without files" in message and f"['{PREFIX}top'], whose files are there" in message
    assert opened(folder, views=("wrist",)).views == ("wrist",)


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


def test_interleaved_rows_do_not_shift_other_episodes(make):
    folder = make("v3.0")
    order = [*range(20), 21, 20, *range(22, 82)]
    edit_table(folder / ROWS_V30, lambda rows: rows.take(order))
    assert "episodes 0-1 of 4 are broken" in refusal(folder)
    assert opened(folder, skip_broken=True).numbers == (2, 3)
