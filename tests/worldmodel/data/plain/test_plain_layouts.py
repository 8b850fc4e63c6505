"""Which files of a plain folder belong to which episode."""

import json

import numpy as np
import pytest
from plain_folders import LENGTHS, actions, assert_true, csv_text, states, video, write_pictures, write_plain

from worldmodel.data import open_episodes
from worldmodel.data.formats import open_set
from worldmodel.data.options import Request

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")


@pytest.mark.parametrize("name", ["{:04d}", "demo-{}", "traj {}", "2026-11-27_{}", "Episode{:02d}"])
def test_folders_of_any_name(tmp_path, name):
    assert_true(open_episodes(write_plain(tmp_path, name=name)))


def test_folders_without_numbers(tmp_path):
    folder = write_plain(tmp_path)
    for episode, name in enumerate(("close drawer", "open drawer", "push")):
        (folder / f"episode_{episode}").rename(folder / name)
    assert_true(open_episodes(folder))


def test_flat_videos(tmp_path):
    for episode, length in enumerate(LENGTHS):
        (tmp_path / f"{episode:04d}.mp4").write_bytes(video(episode, length))
    source = open_episodes(tmp_path)
    assert (source.views, source.lengths, source.action_dim) == (("camera",), LENGTHS, 0)
    assert_true(source, labelled=False)


@pytest.mark.parametrize("form", ["{}.npy", "{}_actions.npy", "actions_{}.npy", "{}.csv"])
def test_flat_videos_with_tables_beside(tmp_path, form):
    for episode, length in enumerate(LENGTHS):
        (tmp_path / f"run_{episode}.mkv").write_bytes(video(episode, length, ".mkv"))
        file = tmp_path / form.format(f"run_{episode}")
        if file.suffix == ".csv":
            file.write_text(csv_text(actions(episode, length)))
        else:
            np.save(file, actions(episode, length))
            np.save(tmp_path / f"run_{episode}_states.npy", states(episode, length))
    source = open_set(tmp_path, Request())
    assert source.action_dim == 4
    assert_true(source)
    said = form.startswith("{}.")
    assert source.notes == ((f"{form[2:]} files that are named like their videos are read as actions",) if said else ())


def test_captions_beside_flat_videos_are_named(tmp_path):
    for episode, length in enumerate(LENGTHS):
        (tmp_path / f"clip{episode}.mp4").write_bytes(video(episode, length))
        (tmp_path / f"clip{episode}.txt").write_text("push the red cube")
        (tmp_path / f"clip{episode}.json").write_text('{"task": "push"}')
    source = open_set(tmp_path, Request())
    assert_true(source, labelled=False)
    assert source.notes[-1] == ("not read: clip0.txt, clip1.txt, clip2.txt, clip0.json, clip1.json, clip2.json")
    for episode, length in enumerate(LENGTHS):
        (tmp_path / f"clip{episode}.json").write_text(
            json.dumps({"task": "push", "actions": actions(episode, length).tolist()})
        )
    assert_true(open_episodes(tmp_path))


def test_a_video_is_an_episode(tmp_path):
    for episode in range(2):
        (tmp_path / f"{'ab'[episode]}.mp4").write_bytes(video(episode, LENGTHS[episode]))
    source = open_set(tmp_path / "b.mp4", Request())
    assert (source.views, source.lengths, source.notes) == (("camera",), LENGTHS[1:2], ())
    assert_true(source, labelled=False)
    np.save(tmp_path / "b.npy", actions(1, 17))
    assert_true(open_episodes(tmp_path / "b.mp4"))


def test_a_folder_that_is_one_episode(tmp_path):
    folder = write_plain(tmp_path, lengths=LENGTHS[:1]) / "episode_0"
    source = open_episodes(folder)
    assert (source.views, source.lengths, source.action_dim, source.state_dim) == (("top", "wrist"), (21,), 4, 5)
    assert_true(source)


def test_an_episode_with_its_cameras_in_a_folder(tmp_path):
    np.save(tmp_path / "actions.npy", actions(2, 25))
    for camera in ("top", "wrist"):
        write_pictures(tmp_path / "images" / camera, 2)
    source = open_set(tmp_path, Request())
    assert (source.views, source.lengths) == (("top", "wrist"), (25,))
    assert_true(source)


def test_folders_of_pictures_are_episodes_or_cameras(tmp_path):
    for episode in range(3):
        write_pictures(tmp_path / "flat" / f"{episode:03d}", episode)
    assert open_episodes(tmp_path / "flat").views == ("camera",)
    assert_true(open_episodes(tmp_path / "flat"), labelled=False)
    for camera in ("left", "right"):
        write_pictures(tmp_path / "one" / camera, 1)
    assert open_episodes(tmp_path / "one").views == ("left", "right")
    for name in ("run_a1", "run_b2"):
        write_pictures(tmp_path / "unclear" / name, 1)
    with pytest.raises(ValueError, match=r"run_a1, run_b2 may be episodes or cameras of one episode"):
        open_episodes(tmp_path / "unclear")


def test_layouts_that_can_be_understood_in_two_ways_are_refused(tmp_path):
    def put(name):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(video(0, 21))

    for camera in ("top", "wrist"):
        put(f"a/{camera}.mp4")
        put(f"b/cam_{'tw'.index(camera[0])}.mp4")
    for name in ("a", "b"):
        with pytest.raises(ValueError, match="may be episodes or cameras of one episode"):
            open_episodes(tmp_path / name)
    for number in range(2):
        put(f"c/videos/{number:04d}.mp4")
        put(f"d/{number:04d}/top.mp4")
    with pytest.raises(ValueError, match=r"c/videos: 0000, 0001 may be episodes or cameras"):
        open_episodes(tmp_path / "c")
    for number in range(2):
        put(f"f/data/episode_{number}/top.mp4")
        put(f"g/top/{number:04d}.mp4")
        put(f"g/wrist/{number:04d}.mp4")
    with pytest.raises(
        ValueError, match=r"f/data: episode_0, episode_1 may be episodes or cameras.*open .*f/data itself"
    ):
        open_episodes(tmp_path / "f")
    with pytest.raises(ValueError, match=r"g/top: 0000, 0001 may be episodes or cameras"):
        open_episodes(tmp_path / "g")
    assert open_episodes(tmp_path / "f" / "data").lengths == (21, 21)
    put("d/preview/top.mp4")
    with pytest.raises(ValueError, match=r"folders preview hold videos but are named unlike 0000"):
        open_episodes(tmp_path / "d")
    put("e/0000.mp4")
    np.save(tmp_path / "e/0000.npy", actions(0, 21))
    np.save(tmp_path / "e/actions.npy", actions(0, 21))
    with pytest.raises(ValueError, match=r"0000\.npy lie beside videos of the same name and actions\.npy"):
        open_episodes(tmp_path / "e")


def test_a_folder_for_each_camera_and_depth(tmp_path):
    for episode, length in enumerate(LENGTHS):
        part = tmp_path / f"episode_{episode}"
        for camera in ("top", "top_depth"):
            (part / camera).mkdir(parents=True)
            (part / camera / "video.mp4").write_bytes(video(episode, length))
        np.savez(part / "actions.npz", actions=actions(episode, length), fps=30)
    source = open_set(tmp_path, Request())
    assert source.views == ("top",)
    assert_true(source)
    assert "cameras left out: top_depth (3 times); --views can name them" in source.notes
    assert "fields fps of actions.npz are not read" in source.notes
    assert open_episodes(tmp_path, views=["top_depth"]).views == ("top_depth",)


def test_one_table_beside_numbered_videos_is_refused(tmp_path):
    for episode in range(2):
        (tmp_path / f"{episode:03d}.mp4").write_bytes(video(0, 21))
    np.save(tmp_path / "actions.npy", actions(0, 21))
    with pytest.raises(ValueError, match=r"videos 000, 001 beside actions\.npy may be episodes or cameras"):
        open_episodes(tmp_path)


@pytest.mark.parametrize("name", ["actions.csv", "states.npy", "Action.parquet", "actions/0000.npy"])
def test_a_table_of_actions_beside_the_episodes_is_refused(tmp_path, name):
    write_plain(tmp_path, write=lambda part, episode, length: None)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
    place = name.partition("/")[0]
    with pytest.raises(
        ValueError, match=rf"/{place}: place is beside the episodes, such as episode_0, expected a table"
    ):
        open_episodes(tmp_path)


def test_actions_beside_a_single_video_are_refused(tmp_path):
    folder = write_plain(tmp_path, lengths=LENGTHS[:1], cameras=("top",)) / "episode_0"
    with pytest.raises(ValueError, match=r"episode_0/actions\.csv: place is beside the episodes, such as top"):
        open_episodes(folder / "top.mp4")
    assert_true(open_episodes(folder))


def test_a_table_beside_the_episodes_is_missed_first(tmp_path):
    for episode, length in enumerate(LENGTHS):
        (tmp_path / f"{episode:04d}.mp4").write_bytes(video(episode, length))
    (tmp_path / "log.csv").write_text("episode,x\n0,1\n")
    source = open_set(tmp_path, Request())
    assert source.action_dim == 0
    assert source.notes[0].startswith("no actions are read, the video is unlabelled")
    assert "not read: log.csv" in source.notes


def test_a_layout_that_is_not_known_is_shown(tmp_path):
    place = tmp_path / "success/2023-03-01/Wed_Mar_1/recordings/MP4"
    place.mkdir(parents=True)
    (place / "1234.mp4").write_bytes(video(0, 21))
    (tmp_path / "README.md").write_text("")
    with pytest.raises(ValueError) as error:
        open_episodes(tmp_path)
    for words in (f"{tmp_path}: holds README.md, success/", "too deep, such as success/2023", "/MP4/1234.mp4", "HDF5"):
        assert words in str(error.value)
    (tmp_path / "data.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"data\.zip: is a file \.zip, expected"):
        open_episodes(tmp_path / "data.zip")
