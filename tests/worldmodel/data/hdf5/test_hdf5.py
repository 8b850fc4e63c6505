"""HDF5 in the layouts of robomimic and LIBERO."""

import json
import pickle
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from same_episodes import LENGTHS, tables, write_folder, write_hdf5
from small_sets import digest

from worldmodel.data import EpisodeSource, open_episodes


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("hdf5")
    return write_hdf5(root / "data.hdf5", write_folder(root / "videos"))


def change(file, edit):
    with h5py.File(file, "r+") as content:
        edit(content["data"])


def test_attributes(original):
    source = open_episodes(original, (16, 16))
    assert isinstance(source, EpisodeSource)
    assert source.views == ("top", "wrist")
    assert (source.fps, source.robot_type, source.lengths) == (10.0, "drawn", LENGTHS)
    assert (source.action_dim, source.state_dim, source.size) == (2, 3, (16, 16))
    assert digest(pickle.loads(pickle.dumps(source))) == digest(source)
    assert source.read(0, 0, 3).states.tolist() == tables(0)["states"][:3].tolist()


def test_libero_names_and_several_files(tmp_path):
    for number in range(2):
        with h5py.File(tmp_path / f"task_{number}_demo.hdf5", "w") as content:
            data = content.create_group("data")
            data.attrs["problem_info"] = json.dumps({"language_instruction": f"Task {number}."})
            for demo, length in ((10, 4), (2, 3)):
                group = data.create_group(f"demo_{demo}")
                group["obs/agentview_rgb"] = np.full((length, 8, 8, 3), 10 * demo, np.uint8)
                group["obs/eye_in_hand_rgb"] = np.zeros((length, 8, 8, 3), np.uint8)
                group["obs/ee_ori"] = np.zeros((length, 3))
                group["obs/ee_pos"] = np.ones((length, 3))
                group["obs/gripper_states"] = np.full((length, 2), 2.0)
                group["actions"] = np.zeros((length, 7))
    source = open_episodes(tmp_path)
    assert source.views == ("agentview", "eye_in_hand")
    assert source.lengths == (3, 4, 3, 4)
    assert (source.fps, source.action_dim, source.state_dim) == (20.0, 7, 8)
    assert [source.task(episode) for episode in range(4)] == ["Task 0."] * 2 + ["Task 1."] * 2
    clip = source.read(3, 1, 4, stride=2)
    assert clip.states[0].tolist() == [1.0] * 3 + [0.0] * 3 + [2.0] * 2
    assert clip.frames[:, 0].unique().tolist() == [100]
    assert clip.rewards is None


def test_unlabelled(original, tmp_path):
    file = shutil.copy(original, tmp_path / "d.h5")
    for name in ("actions", "rewards", "obs/robot0_eef_pos", "obs/robot0_gripper_qpos"):
        change(file, lambda data, name=name: [data[demo].pop(name) for demo in list(data)])
    clip = open_episodes(file).read(0, 0, 3)
    assert clip.actions is None and clip.states is None and clip.rewards is None


def replace(name, values):
    def edit(data):
        del data[f"demo_1/{name}"]
        data[f"demo_1/{name}"] = values

    return lambda file: change(file, edit)


def drop(name):
    return lambda file: change(file, lambda data: data.pop(f"demo_1/{name}"))


def attribute(name, value):
    return lambda file: change(file, lambda data: data.attrs.__setitem__(name, value))


TOP = np.zeros((9, 32, 32, 3), np.uint8)
FAULTS = {
    "no HDF5": (lambda f: f.write_bytes(b"no"), ["not readable HDF5"]),
    "cut": (lambda f: f.write_bytes(f.read_bytes()[:5000]), ["not readable HDF5"]),
    "no data": (lambda f: _top(f, lambda c: c.move("data", "other")), ["/data", "missing"]),
    "no demos": (lambda f: change(f, lambda d: (d.pop("demo_0"), d.pop("demo_1"))), ["data/demo_*", "0", "at least 1"]),
    "no obs": (drop("obs"), ["episode 1", "/data/demo_1/obs", "missing"]),
    "no cameras": (lambda f: (drop("obs/top_image")(f), drop("obs/wrist_image")(f)), ["episode 1", "cameras", "0"]),
    "camera missing": (drop("obs/wrist_image"), ["demo_1", "pictures", "'wrist'", "'top'"]),
    "camera twice": (
        lambda f: change(f, lambda d: d.copy("demo_1/obs/top_image", d["demo_1/obs"], "top_rgb")),
        ["episode 1", "top_rgb", "one each"],
    ),
    "float pictures": (replace("obs/top_image", TOP / 255.0), ["float64", "uint8"]),
    "channels first": (replace("obs/top_image", TOP.transpose(0, 3, 1, 2)), ["uint8 (frames, 3, 32, 32)"]),
    "short camera": (replace("obs/top_image", TOP[:5]), ["episode 1", "frames", "9", "5"]),
    "other size": (replace("obs/top_image", TOP[:, :16]), ["pictures", "(16, 32)", "(32, 32)"]),
    "group for camera": (
        lambda f: (drop("obs/top_image")(f), change(f, lambda d: d.create_group("demo_1/obs/top_image"))),
        ["Group", "Dataset"],
    ),
    "no actions": (drop("actions"), ["demo_1", "presence of actions", "False", "True"]),
    "rows": (replace("actions", np.zeros((5, 2))), ["episode 1", "actions", "5", "9 or 8"]),
    "width": (replace("actions", np.zeros((9, 3))), ["width of actions", "(3,)", "(2,)"]),
    "NaN": (replace("actions", np.full((9, 2), np.nan)), ["actions dim 0 of frame 0", "nan"]),
    "text": (replace("actions", "abc"), ["actions", "numbers (frames, width)"]),
    "state rows": (replace("obs/robot0_eef_pos", np.zeros((8, 2))), ["robot0_eef_pos", "8", "9"]),
    "wide reward": (replace("rewards", np.zeros((9, 2))), ["width of rewards", "2", "1"]),
    "env_args": (attribute("env_args", "{"), ["env_args", "JSON"]),
    "env_args list": (attribute("env_args", "[]"), ["env_args", "[]", "a JSON object"]),
    "rate": (attribute("env_args", '{"env_kwargs": {"control_freq": -1}}'), ["control_freq", "-1"]),
    "task": (attribute("problem_info", '{"language_instruction": 3}'), ["3", "a string"]),
}


def _top(file, edit):
    with h5py.File(file, "r+") as content:
        edit(content)


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_named(name, original, tmp_path):
    edit, words = FAULTS[name]
    file = tmp_path / "d.hdf5"
    shutil.copy(original, file)
    edit(file)
    with pytest.raises(ValueError) as error:
        open_episodes(file)
    for word in (str(file), *words):
        assert word in str(error.value)


def mutate(draw, file):
    """Drop, cut, swap or spoil one data set of one demonstration."""
    with h5py.File(file, "r+") as content:
        names = []
        content["data"].visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        name = draw(st.sampled_from(sorted(names)))
        values = content["data"][name][()]
        kind = draw(st.sampled_from(["drop", "cut", "double", "rename", "wrong kind", "cell"]))
        del content["data"][name]
        if kind == "cut":
            rows = draw(st.integers(0, len(values) - 2))
            content["data"][name] = values[:rows]
        elif kind == "double":
            content["data"][name] = np.concatenate([values, values])
        elif kind == "rename":
            content["data"][name + "x"] = values
        elif kind == "wrong kind":
            content["data"][name] = draw(st.sampled_from(["text", 1.0, [[[[[1]]]]], b""]))
        elif kind == "cell":
            spoiled = values.astype(np.float64)
            spoiled[draw(st.integers(0, len(values) - 1))] = np.nan
            content["data"][name] = spoiled


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.slow
def test_changed_file_is_refused(original, tmp_path_factory, data):
    file = tmp_path_factory.mktemp("changed") / "d.hdf5"
    shutil.copy(original, file)
    mutate(data.draw, file)
    with pytest.raises(ValueError, match="changed"):
        open_episodes(file)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_cut_file_is_refused(original, tmp_path_factory, data):
    file = tmp_path_factory.mktemp("cut") / "d.hdf5"
    content = original.read_bytes()
    file.write_bytes(content[: int(len(content) * data.draw(st.floats(0, 0.999)))])
    with pytest.raises(ValueError, match="cut"):
        open_episodes(file)
