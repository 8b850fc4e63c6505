"""Writing LeRobot v3.0 data sets: stage episodes one by one, then merge them into few files."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from worldmodel.data.lerobot.merge import StagedEpisode, merge_episodes
from worldmodel.data.lerobot.schema import LeRobotSchema
from worldmodel.data.lerobot.statistics import colour_histogram
from worldmodel.data.video.write import encode_video
from worldmodel.files import write_json

__all__ = ["LeRobotSchema", "finalise", "read_staged", "stage_episode", "staged_episodes", "write_staged"]

STAGING = ".staging"
EPISODE_COLUMNS = ("episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index")


def stage_episode(
    folder: Path,
    index: int,
    *,
    schema: LeRobotSchema,
    frames: Mapping[str, UInt8[np.ndarray, "_ _ _ 3"]],
    actions: Float[np.ndarray, "_ _"],
    states: Float[np.ndarray, "_ _"] | None,
    rewards: Float[np.ndarray, "_"] | None,
    successes: Bool[np.ndarray, "_"] | None,
    task: str,
    metadata: Mapping[str, int | float | str],
) -> None:
    """Encode and stage one episode of t rows; row i holds the observation before action i.

    Several processes may stage into one folder. A killed call leaves nothing staged; an episode
    that is there already is replaced.

    Args:
        folder: Folder of the new data set.
        index: Number of the episode.
        schema: What the arrays must look like.
        frames: RGB pictures of every view, `t H W 3`.
        actions: `t a`.
        states: Proprioception before each action, `t s`.
        rewards: `next.reward`, `t`: the reward of each action.
        successes: `next.success`, `t`: whether the task is solved after each action.
        task: The task in words.
        metadata: Facts about the episode, stored as columns of `meta/episodes`.

    Raises:
        ValueError: An array does not fit the schema or the other arrays, a number is not finite, or
            a metadata name is that of another column.
    """
    columns = {"observation.state": states, "action": actions}
    columns |= {"next.success": successes, "next.reward": rewards}
    columns = {
        name: values if values.dtype == bool else values.astype(np.float32)
        for name, values in columns.items()
        if values is not None
    }
    where = f"episode {index} for {folder}"
    _check_arrays(where, schema, frames, columns)
    _check_metadata(where, metadata)
    staging = folder / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging, prefix="part-") as name:
        part = Path(name) / "episode"
        part.mkdir()
        for view, pictures in frames.items():
            encode_video(part / f"{view}.mp4", pictures, schema.fps)
        histograms = {f"histogram/{view}": colour_histogram(x) for view, x in frames.items()}
        np.savez(part / "columns.npz", **columns, **histograms)
        facts = {"task": task, "length": len(actions), "metadata": dict(metadata)}
        write_json(part / "episode.json", facts)
        _appear(part, folder, index)


def read_staged(folder: Path, index: int) -> dict[str, bytes]:
    """The files of a staged episode, for `write_staged` on another machine."""
    return {file.name: file.read_bytes() for file in _place_of(folder, index).iterdir()}


def write_staged(folder: Path, index: int, files: Mapping[str, bytes]) -> None:
    """Stage an episode that was staged elsewhere, by its files."""
    staging = folder / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=staging, prefix="part-") as name:
        part = Path(name) / "episode"
        part.mkdir()
        for file, contents in files.items():
            (part / file).write_bytes(contents)
        _appear(part, folder, index)


def _place_of(folder: Path, index: int) -> Path:
    return folder / STAGING / f"episode_{index:06d}"


def _appear(part: Path, folder: Path, index: int) -> None:
    """Move a complete episode to its place."""
    target = _place_of(folder, index)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)


def staged_episodes(folder: Path) -> set[int]:
    """Numbers of the episodes that are staged in `folder`."""
    paths = (folder / STAGING).glob("episode_*")
    return {int(path.name.removeprefix("episode_")) for path in paths}


def finalise(folder: Path, schema: LeRobotSchema) -> None:
    """Merge the staged episodes into a LeRobot v3.0 data set, and remove the staging.

    The videos are joined without encoding them again. The folder `meta` appears last, so that a
    killed call can be repeated.

    Args:
        folder: Where the episodes were staged.
        schema: The schema they were staged with.

    Raises:
        ValueError: `folder` is a data set already, nothing is staged, an episode between 0 and the
            last is missing, or the episodes do not have the same columns.
    """
    if (folder / "meta").exists():
        raise ValueError(f"{folder} is a data set already: it has a folder meta")
    staging = folder / STAGING
    merged = staging / "merged"
    shutil.rmtree(merged, ignore_errors=True)
    merge_episodes(merged, schema, _load_staged(folder))
    for name in ("data", "videos", "meta"):
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(merged / name, folder / name)
    shutil.rmtree(staging)


def _check_arrays(name: str, schema: LeRobotSchema, frames: Mapping[str, np.ndarray], columns: dict) -> None:
    if set(frames) != set(schema.views):
        raise ValueError(f"{name}: views are {sorted(frames)}, expected {sorted(schema.views)}")
    rows = len(columns["action"])
    if rows == 0:
        raise ValueError(f"{name}: action has 0 rows, expected at least 1")
    shapes = {f"frames of {view}": (rows, *size, 3) for view, size in schema.views.items()}
    shapes |= {"action": (rows, len(schema.action_names)), "next.reward": (rows,)}
    shapes |= {"next.success": (rows,), "observation.state": (rows, len(schema.state_names))}
    arrays: dict[str, Shaped[np.ndarray, "..."]] = {f"frames of {k}": x for k, x in frames.items()}
    for field, values in (arrays | columns).items():
        if values.shape != shapes[field]:
            raise ValueError(f"{name}: {field} has shape {values.shape}, expected {shapes[field]}")
        if not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise ValueError(f"{name}: {field} is {values[row].tolist()} in row {row}, not finite")
    if schema.state_names and "observation.state" not in columns:
        raise ValueError(f"{name}: observation.state is missing, expected {shapes['observation.state']}")


def _check_metadata(name: str, metadata: Mapping[str, int | float | str]) -> None:
    for key, value in metadata.items():
        if key in EPISODE_COLUMNS or "/" in key:
            raise ValueError(f"{name}: metadata cannot be called {key!r}, a column of meta/episodes")
        if isinstance(value, float) and not np.isfinite(value):
            raise ValueError(f"{name}: metadata {key} is {value}, expected a finite number")


def _load_staged(folder: Path) -> list[StagedEpisode]:
    indices = sorted(staged_episodes(folder))
    if not indices:
        raise ValueError(f"{folder} has no staged episodes, expected at least 1")
    missing = sorted(set(range(indices[-1])) - set(indices))
    if missing:
        raise ValueError(f"{folder} has episodes up to {indices[-1]} staged, missing are {missing[:10]}")
    episodes = [_load_episode(folder / STAGING / f"episode_{index:06d}") for index in indices]
    for index, episode in enumerate(episodes):
        if episode.fields != episodes[0].fields:
            raise ValueError(
                f"episode {index} for {folder} has the fields {episode.fields}, episode 0 {episodes[0].fields}"
            )
    return episodes


def _load_episode(part: Path) -> StagedEpisode:
    with np.load(part / "columns.npz") as arrays:
        columns = dict(arrays)
    prefix = "histogram/"
    histograms = {name.removeprefix(prefix): columns.pop(name) for name in list(columns) if name.startswith(prefix)}
    facts = json.loads((part / "episode.json").read_text())
    return StagedEpisode(part, columns, histograms, **facts)
