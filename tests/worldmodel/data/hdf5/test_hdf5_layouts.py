"""HDF5 as ALOHA, Isaac Lab and others write it, each file made by code."""

import json
import pickle

import cv2
import h5py
import numpy as np
import pytest
from small_sets import digest

from worldmodel.data import open_episodes
from worldmodel.data.formats import DataWarning, open_set
from worldmodel.data.options import DataOptions, Request

LENGTHS = (7, 5, 6)
pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")


def frames(episode, length, size=(24, 32)):
    """The left half is red, and a grey that tells episode and frame apart is on the right."""
    pictures = (
        np.full((length, *size, 3), 20 * episode, np.uint8) + np.arange(length, dtype=np.uint8)[:, None, None, None]
    )
    pictures[:, :, : size[1] // 2] = (230, 20, 20)
    return pictures


def actions(episode, length, width=14):
    return np.arange(width) + 100.0 * episode + np.arange(length)[:, None]


def write_aloha(folder, encoded=False, lengths=LENGTHS):
    """Episodes as ACT records them: OpenCV encodes arrays that are RGB."""
    folder.mkdir(parents=True)
    for episode, length in enumerate(lengths):
        with h5py.File(folder / f"episode_{episode}.hdf5", "w") as file:
            file.attrs["sim"] = not encoded
            file["action"] = actions(episode, length)
            file["observations/qpos"] = actions(episode, length) / 2
            file["observations/qvel"] = np.zeros((length, 14))
            for camera in ("cam_high", "cam_left_wrist"):
                pictures = frames(episode, length)
                name = f"observations/images/{camera}"
                if not encoded:
                    file.create_dataset(name, data=pictures, chunks=(1, *pictures.shape[1:]))
                    continue
                file.attrs["compress"] = True
                rows = [
                    cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].ravel() for picture in pictures
                ]
                padded = np.zeros((length, max(map(len, rows)) + 9), np.uint8)
                for row, content in enumerate(rows):
                    padded[row, : len(content)] = content
                file[name] = padded
            if encoded:
                file["compress_len"] = np.zeros((2, length))
    return folder


@pytest.mark.parametrize("encoded", [False, True], ids=["raw", "jpeg"])
def test_aloha(tmp_path, encoded):
    source = open_episodes(write_aloha(tmp_path / "set", encoded))
    assert source.views == ("cam_high", "cam_left_wrist")
    assert (source.lengths, source.fps, source.size) == (LENGTHS, 50.0, (24, 32))
    assert (source.action_dim, source.state_dim) == (14, 14)
    clip = source.read(1, 1, 5)
    assert clip.actions.tolist() == actions(1, 5)[1:4].tolist()
    assert clip.states.tolist() == (actions(1, 5)[1:] / 2).tolist()
    found = clip.frames[:, 1].numpy().astype(int)
    assert np.abs(found - frames(1, 5)[1:].astype(int)).max() <= (60 if encoded else 0)
    assert np.abs(found - frames(1, 5)[1:].astype(int)).mean() < 4
    assert found[0, 12, 4, 0] > 200 and found[0, 12, 4, 2] < 50  # red as recorded, not as the JPEG file says
    assert digest(pickle.loads(pickle.dumps(source))) == digest(source)
    assert source.pictures.codec(0, 0) == ("jpeg" if encoded else "raw")


def test_opencv_decodes_the_same_pictures(tmp_path):
    folder = write_aloha(tmp_path / "set", encoded=True)
    with h5py.File(folder / "episode_2.hdf5") as file:
        expected = cv2.imdecode(file["observations/images/cam_high"][3], 1)
    found = open_episodes(folder).read(2, 3, 4).frames[0, 0].numpy()
    assert np.abs(found.astype(int) - expected).max() <= 2


def test_what_is_assumed_and_not_read_is_named(tmp_path):
    folder = write_aloha(tmp_path / "set", encoded=True)
    (folder / "episode_0_video.mp4").write_bytes(b"preview")
    notes = open_set(folder, Request()).notes
    assert [note for note in notes if "50 are assumed" in note]
    assert [note for note in notes if "JPEG" in note and "red and blue" in note]
    assert [note for note in notes if "not read: observations/qvel" in note]
    assert [note for note in notes if "not read: episode_0_video.mp4" in note]
    with pytest.warns(DataWarning, match="50 are assumed"):
        open_episodes(folder)


def test_files_are_in_the_order_of_their_numbers(tmp_path):
    folder = write_aloha(tmp_path / "set", lengths=range(3, 14))
    assert open_episodes(folder).lengths == tuple(range(3, 14))


def test_columns_views_and_episodes_are_chosen(tmp_path):
    folder = write_aloha(tmp_path / "set")
    with h5py.File(folder / "episode_2.hdf5", "r+") as file:
        del file["observations/images/cam_high"]
        file["observations/images/cam_high"] = "broken, but not asked for"
    options = DataOptions(episodes="2,0", action_keys=("action", "qvel"), state_keys=("observations/qpos", "qvel"))
    source = open_episodes(folder, views=["cam_left_wrist"], options=options)
    assert (source.views, source.lengths, source.action_dim, source.state_dim) == (("cam_left_wrist",), (6, 7), 28, 28)
    assert [origin.number for origin in source.origins] == [2, 0]
    assert source.read(0, 0, 2).actions[0].tolist() == [*actions(2, 1)[0], *[0.0] * 14]
    with pytest.raises(ValueError, match=r"--action-keys velocity is missing, expected one of action, .*qpos"):
        open_episodes(folder, views=["cam_left_wrist"], options=DataOptions(action_keys=("velocity",)))
    with pytest.raises(ValueError, match="cam_low"):
        open_episodes(folder, views=["cam_low"])


def test_broken_episodes_are_all_named_and_may_be_left_out(tmp_path):
    folder = write_aloha(tmp_path / "set", lengths=(5, 5, 5, 5, 6))
    (folder / "episode_1.hdf5").write_bytes(b"cut")
    with h5py.File(folder / "episode_3.hdf5", "r+") as file:
        del file["action"]
        file["action"] = actions(3, 4)[:3]
    with pytest.raises(ValueError, match=r"episodes 1, 3 of 5 are broken .*episode_1\.hdf5.*episode_3\.hdf5.*skip"):
        open_episodes(folder)
    source = open_episodes(folder, options=DataOptions(skip_broken=True))
    assert source.lengths == (5, 5, 6)
    assert [origin.number for origin in source.origins] == [0, 2, 4]
    assert "left out" in source.notes[0]


def test_an_action_less_than_in_the_other_episodes_may_be_the_first_one(tmp_path):
    folder = write_aloha(tmp_path / "set")
    with h5py.File(folder / "episode_1.hdf5", "r+") as file:
        del file["action"]
        file["action"] = actions(1, 5)[1:]
    with pytest.raises(ValueError, match=r"episode 1 of 3 is broken .*rows of actions"):
        open_episodes(folder)


def test_nan_in_the_last_action_is_never_used(tmp_path):
    folder = write_aloha(tmp_path / "set")
    with h5py.File(folder / "episode_1.hdf5", "r+") as file:
        file["action"][-1] = np.nan
    assert open_episodes(folder).read(1, 0, 5).actions.tolist() == actions(1, 5)[:4].tolist()


def write_isaac(file, nested=False):
    """Demonstrations as Isaac Lab's recorder writes them."""
    with h5py.File(file, "w") as content:
        data = content.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Isaac-Stack-Cube-v0", "type": 2})
        data.attrs["total"] = sum(LENGTHS)
        for episode, length in enumerate(LENGTHS):
            demo = data.create_group(f"demo_{episode}")
            demo.attrs["num_samples"], demo.attrs["success"] = length, episode != 1
            demo["actions"] = actions(episode, length, 7)
            demo["processed_actions"] = actions(episode, length, 7)
            demo["initial_state/articulation/robot/joint_position"] = np.zeros((1, 9))
            demo["states/articulation/robot/joint_position"] = np.zeros((length, 9))
            obs = demo.create_group("obs/policy" if nested else "obs")
            obs.create_dataset("table_cam", data=frames(episode, length), compression="gzip")
            obs.create_dataset("wrist_cam", data=frames(episode, length, (16, 16)), compression="gzip")
            for part in (obs, demo["obs"]) if nested else (obs,):
                part["eef_pos"], part["eef_quat"] = actions(episode, length, 3), actions(episode, length, 4)
                part["gripper_pos"], part["joint_vel"] = actions(episode, length, 2), np.zeros((length, 9))
    return file


@pytest.mark.parametrize("nested", [False, True])
def test_isaac_lab(tmp_path, nested):
    source = open_episodes(write_isaac(tmp_path / "dataset.hdf5", nested))
    assert source.views == ("table_cam", "wrist_cam")
    assert (source.lengths, source.robot_type) == (LENGTHS, "Isaac-Stack-Cube-v0")
    assert (source.action_dim, source.state_dim, source.size) == (7, 9, (24, 32))
    clips = [source.read(episode, 0, length) for episode, length in enumerate(LENGTHS)]
    assert clips[2].actions.tolist() == actions(2, 6, 7)[:5].tolist()
    assert clips[2].states[3].tolist() == [*range(203, 206), *range(203, 207), 203, 204]
    assert [clip.successes.tolist() for clip in clips[:2]] == [[False] * 5 + [True], [False] * 4]
    assert (clips[0].frames[3, 0].numpy() == frames(0, 7)[3]).all()
    assert any("joint_vel" in note and "not read" in note for note in source.notes)
    assert any("20 are assumed" in note for note in source.notes)
    assert "not read: processed_actions" in source.notes


def test_isaac_lab_may_say_its_frame_rate(tmp_path):
    file = write_isaac(tmp_path / "dataset.hdf5")
    with h5py.File(file, "r+") as content:
        content["data"].attrs["env_args"] = json.dumps({"sim_args": {"dt": 0.01, "decimation": 4}})
    assert open_episodes(file).fps == 25.0
    options = DataOptions(action_keys=("processed_actions",), state_keys=("joint_vel", "eef_pos"))
    assert open_episodes(file, options=options).state_dim == 12


def test_another_layout_is_shown_beside_those_that_are_known(tmp_path):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        for episode in range(40):
            file[f"traj_{episode}/rgb"] = np.zeros((3, 8, 8, 3), np.uint8)
            file[f"traj_{episode}/commands"] = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError) as error:
        open_episodes(tmp_path / "mine.h5")
    message = str(error.value)
    for words in (
        "mine.h5",
        "traj_0/rgb uint8 (3, 8, 8, 3)",
        "traj_0/commands float32 (3, 4)",
        "traj_1 and 38 like it",
        "data/demo_*/obs/<camera>",
        "observations/images/<camera>",
    ):
        assert words in message
    assert len(message.splitlines()) == 1 and len(message) < 600


def write_demos(file, actions_name="actions", cameras=()):
    """Demonstrations with one RGB camera; `cameras` are added to it."""
    with h5py.File(file, "w") as content:
        for episode, length in enumerate(LENGTHS):
            demo = content.create_group(f"data/demo_{episode}")
            demo["obs/top_image"] = frames(episode, length)
            demo[actions_name] = actions(episode, length, 7)
            for name, make in cameras:
                demo[f"obs/{name}"] = make(length)
    return file


def rename_actions(folder, name):
    for file in folder.glob("*.hdf5"):
        with h5py.File(file, "r+") as content:
            content.move("action", name)
    return folder


def test_both_spellings_of_actions_are_read(tmp_path):
    demos = open_episodes(write_demos(tmp_path / "demos.hdf5", "action"))
    assert demos.read(1, 0, 4).actions.tolist() == actions(1, 3, 7).tolist()
    assert not any("action" in note for note in demos.notes)
    aloha = open_episodes(rename_actions(write_aloha(tmp_path / "aloha"), "actions"))
    assert aloha.read(1, 0, 4).actions.tolist() == actions(1, 3).tolist()


@pytest.mark.parametrize("name", ["joint_action", "obs/last_actions", "Actions", "action_dict/abs_pos"])
def test_actions_of_another_name_are_refused_unless_they_are_named(tmp_path, name):
    file = write_demos(tmp_path / "demos.hdf5", name)
    with pytest.raises(ValueError, match=rf"actions of /data/demo_0 is {name}, expected one named .*--action-keys"):
        open_episodes(file)
    assert open_episodes(file, options=DataOptions(action_keys=(name,))).action_dim == 7
    folder = rename_actions(write_aloha(tmp_path / "aloha"), name)
    with pytest.raises(ValueError, match=rf"actions of / is {name}, expected one named .*--action-keys"):
        open_episodes(folder)
    assert open_episodes(folder, options=DataOptions(action_keys=(name,))).action_dim == 14


def test_two_spellings_at_once_are_refused(tmp_path):
    file = write_demos(tmp_path / "demos.hdf5")
    with h5py.File(file, "r+") as content:
        content["data/demo_1/action"] = actions(1, 5, 7)
    with pytest.raises(ValueError, match="1: episode 1, actions of /data/demo_1 is actions, action, expected one"):
        open_episodes(file)


OTHER_CAMERAS = {
    "depth of 16 bits": lambda n: np.zeros((n, 24, 32), np.uint16),
    "depth in a channel": lambda n: np.zeros((n, 24, 32, 1), np.float32),
    "labels": lambda n: np.zeros((n, 24, 32), np.uint8),
    "RGBA": lambda n: np.zeros((n, 24, 32, 4), np.uint8),
    "float": lambda n: np.zeros((n, 24, 32, 3)),
}


@pytest.mark.parametrize("name", OTHER_CAMERAS)
def test_cameras_that_are_not_rgb_are_left_out(tmp_path, name):
    make = OTHER_CAMERAS[name]
    file = write_demos(tmp_path / "demos.hdf5", cameras=[("side_image", make)])
    source = open_set(file, Request())
    assert source.views == ("top",)
    assert (source.read(2, 0, 6).frames[:, 0].numpy() == frames(2, 6)).all()
    said = [note for note in source.notes if "not RGB of 8 bits: side (" in note]
    assert len(said) == 1 and not any("obs not read" in note for note in source.notes)
    with pytest.raises(ValueError, match=r"obs/side_image is .*expected uint8"):
        open_set(file, Request(views=("side",)))
    folder = write_aloha(tmp_path / "aloha")
    for episode, length in enumerate(LENGTHS):
        with h5py.File(folder / f"episode_{episode}.hdf5", "r+") as content:
            content["observations/images/cam_depth"] = make(length)
    source = open_set(folder, Request())
    assert source.views == ("cam_high", "cam_left_wrist")
    assert any("not RGB of 8 bits: cam_depth (" in note for note in source.notes)
    with h5py.File(folder / "episode_1.hdf5", "r+") as content:
        del content["observations/images/cam_high"]
        content["observations/images/cam_high"] = make(LENGTHS[1])
    with pytest.raises(ValueError, match=r"1: episode_1\.hdf5: .*cam_high is .*expected uint8"):
        open_set(folder, Request())
    with h5py.File(file, "r+") as content:
        for episode in range(3):
            del content[f"data/demo_{episode}/obs/top_image"]
    with pytest.raises(ValueError, match=r"side_image.*expected uint8 \(frames, height, width, 3\)"):
        open_set(file, Request())


def test_encoded_depth_is_left_out(tmp_path):
    folder = write_aloha(tmp_path / "set", encoded=True)
    for episode, length in enumerate(LENGTHS):
        rows = [cv2.imencode(".png", np.full((24, 32), 999, np.uint16))[1].ravel()] * length
        with h5py.File(folder / f"episode_{episode}.hdf5", "r+") as content:
            content["observations/images/cam_depth"] = np.stack(rows)
    source = open_set(folder, Request())
    assert source.views == ("cam_high", "cam_left_wrist")
    assert any("cam_depth (pictures of more than 8 bits)" in note for note in source.notes)
