"""Load a data set that this package wrote in the reference `lerobot` and compare every row.

The reference lives in a venv of its own, because it pins other versions:

    python3 -m venv lerobot-venv && lerobot-venv/bin/pip install lerobot==0.4.4
    worldmodel record pusht --episodes 6 --out data/check
    python benchmarks/check_lerobot.py data/check --reference lerobot-venv/bin/python
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

OFFSETS = (-2, 0, 1, 3)  # frames of `delta_timestamps`
COLUMNS = ("observation.state", "action", "next.reward", "next.success")


def dump_reference(folder: Path, backend: str, out: Path) -> None:
    """Write what `LeRobotDataset` says about the data set; runs in the reference's venv."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    options = {"root": folder, "video_backend": backend}
    dataset = LeRobotDataset("local/check", **options)
    deltas = [offset / dataset.fps for offset in OFFSETS]
    windowed = dict.fromkeys([*dataset.meta.camera_keys, "action"], deltas)
    shifted = LeRobotDataset("local/check", delta_timestamps=windowed, **options)
    arrays = {}
    rows = [dataset[index] for index in range(len(dataset))]
    windows = [shifted[index] for index in range(len(shifted))]
    for key in dataset.meta.camera_keys:
        arrays[key] = np.stack([row[key].numpy() for row in rows])
        arrays[f"windows/{key}"] = np.stack([row[key].numpy() for row in windows])
        arrays[f"padded/{key}"] = np.stack([row[f"{key}_is_pad"].numpy() for row in windows])
    arrays["windows/action"] = np.stack([row["action"].numpy() for row in windows])
    for key in (*COLUMNS, "episode_index", "frame_index", "timestamp"):
        arrays[key] = np.stack([row[key].numpy() for row in rows])
    for feature, values in dataset.meta.stats.items():
        arrays |= {f"stats/{feature}/{name}": np.asarray(x) for name, x in values.items()}
    facts = {
        "num_episodes": dataset.num_episodes,
        "num_frames": dataset.num_frames,
        "fps": dataset.fps,
        "robot_type": dataset.meta.robot_type,
        "cameras": dataset.meta.camera_keys,
        "tasks": [row["task"] for row in rows],
    }
    np.savez(out, facts=json.dumps(facts), **arrays)


def load_reference(folder: Path, python: Path, backend: str) -> dict[str, np.ndarray]:
    """Run `dump_reference` in the reference's venv, without a network."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "reference.npz"
        command = [python, __file__, folder, "--backend", backend, "--dump", out]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": scratch}
        environment.pop("PYTHONPATH", None)
        subprocess.run([str(part) for part in command], env=environment, check=True)
        with np.load(out) as arrays:
            return dict(arrays)


def compare(folder: Path, reference: dict[str, np.ndarray]) -> None:
    """Compare with what this package reads; an `AssertionError` names what differs."""
    from worldmodel.data import open_episodes

    source = open_episodes(folder)
    facts = json.loads(str(reference["facts"]))
    assert facts["num_episodes"] == len(source), facts["num_episodes"]
    assert facts["num_frames"] == sum(source.lengths), facts["num_frames"]
    assert facts["robot_type"] == source.robot_type, facts["robot_type"]
    assert facts["fps"] == source.fps, facts["fps"]
    assert {key.removeprefix("observation.images.") for key in facts["cameras"]} == {*source.views}
    first = 0
    for episode, length in enumerate(source.lengths):
        rows = slice(first, first + length)
        compare_episode(source, episode, rows, reference)
        assert set(facts["tasks"][rows]) == {source.task(episode)}
        first += length
    for name, value in reference.items():
        if name.startswith("stats/"):
            assert np.isfinite(value.astype(float)).all(), name
    for name in ("observation.state", "action"):
        np.testing.assert_allclose(reference[f"stats/{name}/mean"], reference[name].mean(0), 1e-4)
        np.testing.assert_allclose(reference[f"stats/{name}/max"], reference[name].max(0), 1e-6)
    for key in facts["cameras"]:
        mean = reference[key].mean((0, 2, 3))[:, None, None]
        np.testing.assert_allclose(reference[f"stats/{key}/mean"], mean, atol=3e-3)


def compare_episode(source, episode: int, rows: slice, reference: dict[str, np.ndarray]) -> None:
    """Columns, windows, padding and frames of one episode; frames may differ by 2 of 255."""
    length = source.lengths[episode]
    clip = source.read(episode, 0, length)
    assert (reference["episode_index"][rows] == episode).all()
    assert (reference["frame_index"][rows] == np.arange(length)).all()
    np.testing.assert_array_equal(reference["observation.state"][rows], clip.states.numpy())
    # A clip has one action fewer than frames; the data set has one per frame.
    columns = {"action": clip.actions, "next.reward": clip.rewards, "next.success": clip.successes}
    for name, values in columns.items():
        theirs = reference[name][rows][:-1]
        np.testing.assert_array_equal(theirs.reshape(values.shape), values.numpy(), name)
    wanted = np.arange(length)[:, None] + OFFSETS
    padded = (wanted < 0) | (wanted >= length)
    inside = wanted.clip(0, length - 1)
    actions = reference["action"][rows]
    np.testing.assert_array_equal(reference["windows/action"][rows], actions[inside])
    for view, name in enumerate(source.views):
        key = f"observation.images.{name}"
        ours = clip.frames[:, view].permute(0, 3, 1, 2).numpy()
        theirs = np.rint(reference[key][rows] * 255).astype(int)
        worst = np.abs(theirs - ours).max()
        assert worst <= 2, f"{key}: frames of episode {episode} differ by up to {worst} of 255"
        np.testing.assert_array_equal(reference[f"windows/{key}"][rows], reference[key][rows][inside])
        np.testing.assert_array_equal(reference[f"padded/{key}"][rows], padded)


def main() -> None:
    """Read with both, or, as the child process, only with the reference; fail where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="LeRobot v3.0 folder to check")
    parser.add_argument("--reference", type=Path, help="Python that has lerobot 0.4.4")
    parser.add_argument("--backend", default="pyav", help="video backend of the reference")
    parser.add_argument("--dump", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.dump:
        dump_reference(arguments.folder, arguments.backend, arguments.dump)
        return
    if not arguments.reference:
        parser.error("--reference: name the Python that has lerobot 0.4.4")
    reference = load_reference(arguments.folder, arguments.reference, arguments.backend)
    compare(arguments.folder, reference)
    facts = json.loads(str(reference["facts"]))
    print(
        f"{arguments.folder}: {facts['num_episodes']} episodes, {facts['num_frames']} frames agree "
        f"with lerobot ({arguments.backend})"
    )


if __name__ == "__main__":
    main()
