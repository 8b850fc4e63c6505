"""Plain folders of any layout: what is opened, what is named, and what is refused."""

import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from plain_folders import LENGTHS, actions, assert_true, csv_text, pictures, states, video, write_pictures, write_plain
from small_sets import digest

from worldmodel.data import open_episodes
from worldmodel.data.formats import open_set
from worldmodel.data.options import DataOptions, Request
from worldmodel.fidelity.windows import trained_episodes

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")


def as_rows(values):
    return [{"action": row} for row in values.tolist()]


def write_parquet(file, columns):
    pq.write_table(pa.table(columns), file)


TABLES = {
    "npz": lambda part, a, s: np.savez(part / "actions.npz", actions=a),
    "npz, no name": lambda part, a, s: np.savez(part / "actions.npz", a),
    "npz, any name": lambda part, a, s: np.savez(part / "actions.npz", data=a),
    "npz, all": lambda part, a, s: np.savez_compressed(part / "episode.npz", action=a, state=s, t=np.arange(len(a))),
    "npy": lambda part, a, s: np.save(part / "actions.npy", a),
    "npy, other spellings": lambda part, a, s: (
        np.save(part / "Action.npy", a),
        np.save(part / "observation.state.npy", s),
    ),
    "npy of whole numbers": lambda part, a, s: np.save(part / "actions.npy", a.astype(np.int16)),
    "npy, one row less": lambda part, a, s: np.save(part / "actions.npy", a[:-1]),
    "json": lambda part, a, s: (part / "actions.json").write_text(json.dumps(a.tolist())),
    "json, fields": lambda part, a, s: (part / "log.json").write_text(
        json.dumps({"task": "push", "actions": a.tolist(), "observation.state": s.tolist()})
    ),
    "json, rows": lambda part, a, s: (part / "actions.json").write_text(json.dumps(as_rows(a))),
    "jsonl": lambda part, a, s: (part / "actions.jsonl").write_text("\n".join(map(json.dumps, as_rows(a)))),
    "jsonl, lists": lambda part, a, s: (part / "actions.jsonl").write_text("\n".join(map(json.dumps, a.tolist()))),
    "json with a mark": lambda part, a, s: (part / "actions.json").write_text("\ufeff" + json.dumps(a.tolist())),
    "parquet, lists": lambda part, a, s: write_parquet(part / "data.parquet", {"action": list(a), "state": list(s)}),
    "parquet, columns": lambda part, a, s: write_parquet(
        part / "actions.parquet", dict(zip("xyzg", a.T, strict=True)) | {"timestamp": np.arange(len(a)) / 10}
    ),
    "csv": lambda part, a, s: (part / "Actions.CSV").write_text(csv_text(a)),
    "tsv": lambda part, a, s: (part / "actions.tsv").write_text(csv_text(a).replace(",", "\t")),
    "txt": lambda part, a, s: np.savetxt(part / "actions.txt", a),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    def write(part, episode, length):
        TABLES[name](part, actions(episode, length), states(episode, length))

    source = open_episodes(write_plain(tmp_path, cameras=("top",), write=write))
    assert source.action_dim == 4
    assert source.state_dim == (
        5 if name in ("npz, all", "npy, other spellings", "json, fields", "parquet, lists") else 0
    )
    assert_true(source)


def save_actions(part, episode, length):
    np.save(part / "actions.npy", actions(episode, length))


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".avi", ".webm", ".m4v", ".MP4", ".Mov"])
def test_videos(tmp_path, suffix):
    source = open_episodes(write_plain(tmp_path, suffix=suffix, write=save_actions))
    assert source.views == ("top", "wrist")
    assert_true(source)


@pytest.mark.parametrize(("form", "first"), [("{:06d}.png", 0), ("{}.jpg", 1), ("frame_{}_rgb.JPEG", 95)])
def test_sequences_of_pictures(tmp_path, form, first):
    for episode, length in enumerate(LENGTHS):
        write_pictures(tmp_path / f"episode_{episode}/top", episode, form, first)
        write_pictures(tmp_path / f"episode_{episode}/wrist", episode, form, first)
        save_actions(tmp_path / f"episode_{episode}", episode, length)
    source = open_set(tmp_path, Request())
    assert (source.views, source.lengths, source.fps) == (("top", "wrist"), LENGTHS, 10.0)
    assert_true(source)
    assert "pictures do not tell frames per second, 10 are assumed" in source.notes
    assert source.pictures.codec(0, 0) == ("png" if form.endswith("png") else "jpeg")
    assert digest(pickle.loads(pickle.dumps(source))) == digest(source)


def test_pictures_beside_videos_and_inside_a_folder_of_images(tmp_path):
    folder = write_plain(tmp_path, cameras=("top",))
    for episode in range(len(LENGTHS)):
        write_pictures(folder / f"episode_{episode}/images/wrist", episode)
    source = open_set(folder, Request())
    assert source.views == ("top", "wrist") and not source.notes
    assert_true(source)


def test_a_gap_between_pictures_breaks_an_episode(tmp_path):
    for episode in range(2):
        write_pictures(tmp_path / f"episode_{episode}/top", episode)
    (tmp_path / "episode_1/top/000004.png").unlink()
    with pytest.raises(
        ValueError, match=r"episode 1 of 2 is broken .*after number 3 is 000005\.png, expected number 4"
    ):
        open_episodes(tmp_path)
    (tmp_path / "episode_1/top/cover.png").write_bytes(b"")
    with pytest.raises(ValueError, match="names that differ in one number only"):
        open_episodes(tmp_path)


def test_deep_and_damaged_pictures_are_refused(tmp_path):
    write_pictures(tmp_path / "episode_0/top", 0)
    (tmp_path / "episode_0/top/000007.png").write_bytes(b"no picture")
    source = open_episodes(tmp_path)
    with pytest.raises(ValueError, match=r"000007\.png: content is not a readable picture"):
        source.read(0, 0, 9)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "episode_0/top/000000.png")
    with pytest.raises(ValueError, match=r"000000\.png: mode is I;16, expected a picture of 8 bits"):
        open_episodes(tmp_path)


def test_whatever_is_not_read_is_named(tmp_path):
    folder = write_plain(tmp_path)
    for episode in range(3):
        (folder / f"episode_{episode}/robot_log.csv").write_text("a,b\n1,2\n")
        (folder / f"episode_{episode}/actions.pkl").write_bytes(b"")
        (folder / f"episode_{episode}/Thumbs.db").write_bytes(b"")
        (folder / f"episode_{episode}/._top.mp4").write_bytes(b"")
    (folder / "notes.md").write_text("")
    shutil.copytree(folder / "episode_0", folder / "__MACOSX" / "episode_0")
    shutil.copytree(folder / "episode_0", folder / "calibration")
    (folder / "episode_1/spare.mp4").write_bytes(video(1, 17))
    source = open_set(folder, Request())
    assert_true(source)
    assert source.notes == (
        "robot_log.csv has the columns a, b, which are not read",
        "cameras left out: spare; --views can name them",
        "not read, because opening them can run programs: actions.pkl (3 times)",
        "not read: calibration/, notes.md, robot_log.csv (3 times)",
    )


def test_actions_that_are_not_found_are_missed(tmp_path):
    def write(part, episode, length):
        np.savez(part / "data.npz", qpos=states(episode, length), ctrl=actions(episode, length))

    folder = write_plain(tmp_path, cameras=("top",), write=write)
    source = open_set(folder, Request())
    assert_true(source, labelled=False)
    assert source.notes == (
        "no actions are read, the video is unlabelled; --action-keys can name columns that hold them",
        "data.npz has the columns qpos, ctrl, which are not read",
        "not read: data.npz (3 times)",
    )
    assert_true(open_episodes(folder, options=DataOptions(action_keys=("ctrl",), state_keys=("qpos",))))


def test_views_are_chosen_before_cameras_are_opened(tmp_path):
    folder = write_plain(tmp_path)
    (folder / "episode_1/wrist.mp4").write_bytes(b"broken")
    (folder / "episode_2/wrist.mp4").unlink()
    source = open_episodes(folder, views=["top"])
    assert source.views == ("top",)
    assert_true(source)
    with pytest.raises(ValueError, match=r"cameras \['front'\] were asked for.* but the data has \['top', 'wrist'\]"):
        open_episodes(folder, views=["front"])
    with pytest.raises(
        ValueError, match=r"episodes 1-2 of 3 are broken \(1: episode_1/wrist\.mp4.*2: episode_2: cameras"
    ):
        open_episodes(folder)


def test_broken_episodes_are_left_out_and_keep_their_numbers(tmp_path):
    folder = write_plain(tmp_path, lengths=(*LENGTHS, 12, 13))
    (folder / "episode_1/actions.csv").unlink()
    (folder / "episode_3/top.mp4").unlink()
    source = open_episodes(folder, options=DataOptions(skip_broken=True))
    assert source.lengths == (21, 25, 13)
    assert [origin.number for origin in source.origins] == [0, 2, 4]
    assert_true(source, lengths=(*LENGTHS, 12, 13))
    chosen = open_episodes(folder, options=DataOptions(episodes="4,0"))
    assert [origin.number for origin in chosen.origins] == [4, 0]
    assert_true(chosen, lengths=(*LENGTHS, 12, 13))


def test_a_camera_may_be_longer_by_a_frame_if_another_one_agrees_with_the_tables(tmp_path):
    folder = write_plain(tmp_path)
    (folder / "episode_1/wrist.mp4").write_bytes(video(1, 18))
    source = open_set(folder, Request())
    assert source.lengths == LENGTHS
    assert_true(source)
    assert source.notes == ("videos are longer than the shortest camera and are cut: episode_1/wrist.mp4 by 1 frames",)
    (folder / "episode_1/top.mp4").write_bytes(video(1, 18))
    with pytest.raises(ValueError, match=r"episode 1 of 3 is broken .*states\.npy.* 17, expected 18"):
        open_episodes(folder)


def test_two_files_for_one_thing_are_refused(tmp_path):
    folder = write_plain(tmp_path)
    (folder / "episode_0/top.mkv").write_bytes(video(0, 21, ".mkv"))
    with pytest.raises(ValueError, match=r"files of camera top are top\.mkv, top\.mp4, expected one"):
        open_episodes(folder)
    (folder / "episode_0/top.mkv").unlink()
    for episode, length in enumerate(LENGTHS):
        np.savez(folder / f"episode_{episode}/log.npz", action=actions(episode, length))
    with pytest.raises(ValueError, match=r"files of actions is actions\.csv.*log\.npz \(action\).*--action-keys"):
        open_episodes(folder)
    assert_true(open_episodes(folder, options=DataOptions(action_keys=("log/action",))))


def variable_rate(file, times):
    """A video whose frames are shown at `times`, in milliseconds."""
    from fractions import Fraction

    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for picture, time in zip(pictures(0, len(times)), times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_variable_frame_rate_differs_a_little_between_episodes(tmp_path):
    for episode, step in enumerate((99, 100, 101)):
        (tmp_path / f"episode_{episode}").mkdir()
        variable_rate(tmp_path / f"episode_{episode}/top.mp4", range(0, 20 * step, step))
    source = open_set(tmp_path, Request())
    assert source.fps == pytest.approx(10, abs=0.01)
    (note,) = source.notes
    assert note.startswith("frames per second are 9.9") and note.endswith(" to 10.1, 10 are used")
    variable_rate(tmp_path / "episode_1/top.mp4", range(0, 20 * 110, 110))
    with pytest.raises(ValueError, match=r"episode 1 of 3 is broken .*frames per second is 9\.1\d, expected"):
        open_episodes(tmp_path)


@pytest.mark.parametrize("options", [{"episodes": "0:2"}, {"episodes": "2,0"}, {"action_keys": ("actions",)}])
def test_a_selection_is_the_same_data_set(tmp_path, options):
    folder = write_plain(tmp_path, write=save_actions)
    whole, part = open_episodes(folder), open_episodes(folder, views=["wrist"], options=DataOptions(**options))
    assert part.fingerprint == whole.fingerprint
    assert set(part.origins) <= set(whole.origins)
    trained = [{"fingerprint": whole.fingerprint, "episodes": [0, 2], "reset_seeds": None, "robot_type": "x"}]
    assert [part.origins[e].number for e in trained_episodes(trained, part)] == [
        origin.number for origin in part.origins if origin.number in (0, 2)
    ]


def test_a_broken_episode_that_is_left_out_belongs_to_the_data_set(tmp_path):
    folder = write_plain(tmp_path)
    (folder / "episode_1/actions.csv").write_text("")
    kept = open_episodes(folder, options=DataOptions(skip_broken=True))
    assert kept.fingerprint == open_episodes(folder, options=DataOptions(episodes="0:1")).fingerprint
    (folder / "episode_1/actions.csv").write_text("x")
    assert kept.fingerprint != open_episodes(folder, options=DataOptions(episodes="0:1")).fingerprint


def test_a_table_is_not_read_for_blank_lines(tmp_path):
    def write(part, episode, length):
        lines = list(map(json.dumps, as_rows(actions(episode, length))))
        (part / "actions.jsonl").write_text("\n".join([*lines[:4], "", *lines[5:]]))

    with pytest.raises(ValueError, match=r"0: episode_0/actions\.jsonl: line 5 is blank"):
        open_episodes(write_plain(tmp_path, write=write))


def test_paths_are_shortened_at_their_beginning_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_plain(tmp_path / "a", name="data_{}")
    for episode in range(3):
        (tmp_path / f"a/data_{episode}").rename(tmp_path / f"a/extra {episode} a")
    (tmp_path / "a/extra 1 a/actions.csv").write_text("x,y\nno/a/b,1\n")
    with pytest.raises(ValueError, match=r"\(1: extra 1 a/actions\.csv: .*'no/a/b'"):
        open_episodes("a")
