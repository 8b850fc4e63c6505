"""Plain folders of videos, and the bar that every format gives the same clips."""

import pickle
import shutil
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same_episodes import FPS, LENGTHS, pictures, tables, write_folder, write_hdf5, write_lerobot, write_lerobot_v2
from small_sets import V21, digest, edit_json

from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.video.write import encode_video

NAN = float("nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("plain") / "data")


@pytest.fixture(scope="module")
def sources(folder, tmp_path_factory):
    """The same episodes in every format."""
    root = tmp_path_factory.mktemp("formats")
    places = {
        "lerobot": write_lerobot(root / "lerobot"),
        "v2.0": write_lerobot_v2(root / "v20", folder, "v2.0"),
        "v2.1": write_lerobot_v2(root / "v21", folder, "v2.1"),
        "npy": folder,
        "csv": write_folder(root / "csv", ".csv"),
        "npy without last action": write_folder(root / "short", last_action=False),
        "hdf5": write_hdf5(root / "data.hdf5", folder),
    }
    return {name: open_episodes(place) for name, place in places.items()}


def test_attributes(folder):
    source = open_episodes(folder)
    assert isinstance(source, EpisodeSource)
    assert source.name == str(folder)
    assert source.views == ("top", "wrist")
    assert (source.fps, source.lengths, source.size) == (FPS, LENGTHS, (32, 32))
    assert (source.action_dim, source.state_dim) == (2, 3)
    assert source.reset_seed(1) is None and source.task(1) == ""
    assert digest(pickle.loads(pickle.dumps(source))) == digest(source)


def test_read_is_the_files_content(folder):
    clip = open_episodes(folder).read(1, 2, 8, stride=2)
    expected = tables(1)
    assert clip.actions.tolist() == expected["actions"][2:6].reshape(2, 4).tolist()
    assert clip.states.tolist() == expected["states"][2:8:2].tolist()
    assert clip.successes.tolist() == [False, False]
    shown = clip.frames[:, 0].numpy().astype(int)
    assert np.abs(shown - pictures(1)["top"][2:8:2]).mean() < 3


@pytest.mark.parametrize("name", ["v2.0", "v2.1", "npy", "csv", "npy without last action", "hdf5"])
def test_every_format_gives_the_same_clip(sources, name):
    reference, source = sources["lerobot"], sources[name]
    assert source.views == reference.views
    assert source.fps == reference.fps
    assert source.lengths == reference.lengths
    for episode, length in enumerate(LENGTHS):
        for start, stop, stride in ((0, length, 1), (1, 8, 3), (length - 1, length, 1)):
            expected = reference.read(episode, start, stop, stride)
            clip = source.read(episode, start, stop, stride)
            for field in fields(clip):
                if name == "hdf5" and field.name == "successes":
                    continue  # robomimic has no such table
                if field.name == "task" and not name.startswith("v"):
                    continue  # these have no tasks
                found, wanted = getattr(clip, field.name), getattr(expected, field.name)
                same = torch.equal(found, wanted) if isinstance(found, torch.Tensor) else found == wanted
                assert same, field.name


@pytest.mark.slow
def test_lerobot_v20_gives_the_same_clips(tmp_path):
    """v2.0 differs from v2.1 in its version and in where the statistics are."""
    folder = shutil.copytree(V21, tmp_path / "v20")
    (folder / "meta" / "episodes_stats.jsonl").unlink()
    (folder / "meta" / "stats.json").write_text("{}")
    edit_json(folder / "meta" / "info.json", lambda info: info.update(codebase_version="v2.0"))
    assert digest(open_episodes(folder, (24, 24))) == digest(open_episodes(V21, (24, 24)))
    (folder / "meta" / "episodes.jsonl").unlink()
    with pytest.raises(ValueError, match=r"episodes\.jsonl"):
        open_episodes(folder)


def test_unlabelled_video(folder, tmp_path):
    for part in folder.iterdir():
        shutil.copytree(part, tmp_path / part.name, ignore=shutil.ignore_patterns("*.npy"))
    source = open_episodes(tmp_path)
    clip = source.read(0, 0, 4)
    assert (source.action_dim, source.state_dim) == (0, 0)
    assert clip.actions is None and clip.states is None and clip.rewards is None


def test_episodes_are_in_order_of_their_numbers(tmp_path):
    for number, length in ((10, 5), (2, 4), (1, 3)):
        (tmp_path / f"episode_{number}").mkdir()
        encode_video(tmp_path / f"episode_{number}/top.mp4", pictures(0)["top"][:length], FPS)
    assert open_episodes(tmp_path).lengths == (3, 4, 5)


def test_hidden_files_are_passed_over(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for name in ("._top.mp4", "._actions.npy", ".DS_Store"):
        (copy / "episode_0" / name).write_bytes(b"finder")
    assert digest(open_episodes(copy)) == digest(open_episodes(folder))


def test_fingerprint_follows_content(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = open_episodes(copy).fingerprint
    assert before == open_episodes(folder).fingerprint
    np.save(copy / "episode_1/actions.npy", tables(1)["actions"] + 1)
    assert open_episodes(copy).fingerprint != before


def test_nothing_recognised_names_the_formats(tmp_path):
    with pytest.raises(ValueError, match=r"meta/info\.json.*episode_\*/.*HDF5"):
        open_episodes(tmp_path)
    with pytest.raises(ValueError, match="missing"):
        open_episodes(tmp_path / "nowhere")


def save(name, values):
    return lambda folder: np.save(folder / "episode_1" / name, values)


def write(name, content):
    return lambda folder: (folder / "episode_1" / name).write_bytes(content)


def csv(content):
    def edit(folder):
        (folder / "episode_1/actions.npy").unlink()
        (folder / "episode_1/actions.csv").write_text(content)

    return edit


def recode(change, fps=FPS, name="top"):
    return lambda folder: encode_video(folder / f"episode_1/{name}.mp4", change(pictures(1)[name]), fps)


def _claim(file, shape):
    """A header that promises more numbers than the file has."""
    with file.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)


ACTIONS = tables(1)["actions"]
FAULTS = {
    "no camera": (lambda f: [p.unlink() for p in f.glob("episode_1/*.mp4")], ["episode_1", "mp4", "0", "at least 1"]),
    "missing camera": (
        lambda f: (f / "episode_1/wrist.mp4").unlink(),
        ["episode_1", "cameras", "('top',)", "('top', 'wrist')"],
    ),
    "no video": (write("top.mp4", b"no"), ["episode_1/top.mp4", "not a readable video"]),
    "short camera": (recode(lambda x: x[:7]), ["top.mp4", "wrist.mp4", "episode 1", "frames", "7"]),
    "other size": (recode(lambda x: x[:, :16]), ["size of top", "(16, 32)", "(32, 32)"]),
    "other rate": (recode(lambda x: x, fps=20), ["frames per second", "20.0", "10.0"]),
    "no actions": (lambda f: (f / "episode_1/actions.npy").unlink(), ["episode_1", "tables", "states", "actions"]),
    "two spellings": (save("action.npy", ACTIONS), ["episode_1", "action.npy, actions.npy", "one"]),
    "two tables": (write("actions.csv", b"1,2\n"), ["actions.csv, ", "actions.npy", "one"]),
    "rows": (save("actions.npy", ACTIONS[:5]), ["actions.npy", "episode 1", "5", "9 or 8"]),
    "state rows": (save("states.npy", np.zeros((8, 3))), ["states.npy", "8", "expected 9"]),
    "width": (save("actions.npy", np.zeros((9, 3))), ["width of actions", "(3,)", "(2,)"]),
    "axes": (save("actions.npy", np.zeros((9, 2, 2))), ["shape of actions", "(9, 2, 2)"]),
    "scalar": (save("actions.npy", np.float32(1)), ["shape of actions", "()"]),
    "wide reward": (save("rewards.npy", np.zeros((9, 2))), ["width of rewards", "2", "1"]),
    "NaN": (save("actions.npy", np.full((9, 2), NAN)), ["actions dim 0 of frame 0", "nan"]),
    "text": (save("actions.npy", np.full((9, 2), "a")), ["dtype of actions", "<U1", "numbers"]),
    "objects": (
        lambda f: np.save(f / "episode_1/actions.npy", np.array([{}] * 9), True),
        ["actions.npy", "Object arrays cannot be loaded"],
    ),
    "archive": (
        lambda f: np.savez(f / "episode_1/a", a=ACTIONS) or (f / "episode_1/a.npz").rename(f / "episode_1/actions.npy"),
        ["actions.npy", "not a readable array"],
    ),
    "too long": (lambda f: _claim(f / "episode_1/actions.npy", (9, 10**13)), ["actions.npy", "not a readable array"]),
    "empty": (write("actions.npy", b""), ["actions.npy", "not a readable array"]),
    "csv in words": (csv("x,y\n" + "1,two\n" * 9), ["actions.csv", "two"]),
    "ragged csv": (csv("1,2\n" * 8 + "1\n"), ["actions.csv", "row 8", "1", "2"]),
    "empty csv": (csv(""), ["actions.csv"]),
    "binary csv": (
        lambda f: csv("")(f) or write("actions.csv", b"\xff\xfe,")(f),
        ["actions.csv", "not a readable table"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(name, folder, tmp_path):
    edit, words = FAULTS[name]
    copy = shutil.copytree(folder, tmp_path / "d")
    edit(copy)
    with pytest.raises(ValueError) as error:
        open_episodes(copy)
    for word in words:
        assert word in str(error.value)


def mutate(draw, folder):
    """One change of one file that cannot go unnoticed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    file = draw(st.sampled_from(files))
    kind = draw(st.sampled_from(["delete", "cut", "empty", "swap", "rename", "cell"]))
    content = file.read_bytes()
    if kind == "delete":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(content[: int(len(content) * draw(st.floats(0, 0.999)))])
    elif kind == "empty":
        file.write_bytes(draw(st.sampled_from([b"", b"\x93NUMPY", b"[]", bytes(64)])))
    elif kind == "swap":
        other = draw(st.sampled_from([path for path in files if path.name != file.name]))
        file.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == "rename":
        file.rename(file.with_name(draw(st.sampled_from(["front", "more"])) + file.suffix))
    elif file.suffix == ".npy":
        values = np.load(file).astype(np.float64)
        row = draw(st.integers(0, len(values) - 1))
        values[row] = draw(st.sampled_from([NAN, float("inf"), 1e300]))
        np.save(file, values)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.slow
def test_changed_folder_is_refused_or_harmless(folder, tmp_path_factory, data):
    expected = digest(open_episodes(folder))
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("changed") / "d")
    mutate(data.draw, copy)
    try:
        found = digest(open_episodes(copy))
    except ValueError as error:
        assert str(copy) in str(error)
    else:
        assert found == expected
    shutil.rmtree(copy)
