"""Demonstrations of robomimic, LIBERO and Isaac Lab: groups `data/demo_*` with `obs` and `actions`."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32

from worldmodel.data.checks import fail
from worldmodel.data.hdf5.files import BROKEN_FILE, data_sets, find_actions, member, read_table
from worldmodel.data.hdf5.pictures import Demo, are_pictures, array_of_frames, common_length, left_out_notes, not_rgb
from worldmodel.data.options import Request
from worldmodel.data.source import Rows

CAMERA_SUFFIXES = ("_image", "_rgb")  # robomimic, LIBERO
PROPRIOCEPTION = (
    "robot0_eef_pos",
    "robot0_eef_quat",
    "robot0_gripper_qpos",  # robomimic
    "ee_pos",
    "ee_ori",
    "gripper_states",  # LIBERO
    "eef_pos",
    "eef_quat",
    "gripper_pos",  # Isaac Lab
)
JOINTS = ("joint_pos",)  # the state where there is none of these
CONTROL_FREQUENCY = 20.0  # Hz; that of robosuite where the file does not say
KNOWN = {"actions", "action", "rewards", "dones", "obs", "next_obs", "states", "initial_state"}
DEMO = re.compile(r"demo_\d+")


@dataclass(frozen=True)
class About:
    """What a file says about all its demonstrations."""

    fps: float
    robot: str
    task: str
    notes: tuple[str, ...]


def demo_names(data: h5py.Group) -> list[str]:
    """The demonstrations, in the order of their numbers."""
    return sorted(filter(DEMO.fullmatch, data), key=lambda name: int(name.removeprefix("demo_")))


def read_demo(file: Path, group: h5py.Group, episode: int, about: About, request: Request) -> Demo:
    """Check one demonstration, and read its tables.

    Raises:
        ValueError: It is malformed.
    """
    observations = member(file, group, "obs", h5py.Group, episode)
    there = data_sets(observations)
    cameras = _cameras(file, observations, there, episode)
    pictures = tuple(cameras.values())
    odd = {view: kind for view, name in cameras.items() if (kind := not_rgb(there[name]))}
    left_out = odd if len(odd) < len(cameras) else {}
    if not request.views:
        cameras = {view: name for view, name in cameras.items() if view not in left_out}
    wanted = {view: cameras[view] for view in request.views or sorted(cameras) if view in cameras}
    stored = {view: array_of_frames(file, there[name], episode) for view, name in wanted.items()}
    if request.views and len(stored) < len(request.views):
        fail(file, f"cameras in {observations.name}", sorted(cameras), list(request.views), episode)
    length = common_length(file, stored, episode)
    between = (length, max(length - 1, 1))
    columns: dict[str, Float32[np.ndarray, "rows width"] | None] = {}
    ends_early = False
    for role in ("actions", "rewards"):
        keys = request.action_keys if role == "actions" else ()
        names = [_find(file, group, there, key, "--action-keys", episode) for key in keys]
        if not names and role == "actions":
            names = find_actions(file, group, [f"obs/{name}" for name in pictures], episode)
        names = names or [role] * (role == "rewards" and role in group)
        columns[role] = _side_by_side(file, group, names, between, episode, may_end=True)
        ends_early |= any(len(group[name]) < length for name in names)
    rewards = columns["rewards"]
    if rewards is not None and rewards.shape[1] != 1:
        fail(file, f"width of rewards of {group.name}", rewards.shape[1], 1, episode)
    states = [f"obs/{key}" for key in PROPRIOCEPTION if key in there] or [
        f"obs/{key}" for key in JOINTS if key in there
    ]
    states = [_find(file, group, there, key, "--state-keys", episode) for key in request.state_keys] or states
    unread = [name for name in there if f"obs/{name}" not in states and name not in pictures]
    notes = [*about.notes, *left_out_notes(left_out, stored)]
    beside = [name for name in group if name not in KNOWN]
    if beside:
        notes.append(f"not read: {', '.join(beside[:8])}{' ...' * (len(beside) > 8)}")
    if unread:
        notes.append(f"obs not read: {', '.join(unread[:8])}{' ...' * (len(unread) > 8)}; --state-keys can name them")
    return Demo(
        file=file,
        cameras=stored,
        length=length,
        rows=Rows(
            task=about.task,
            actions=columns["actions"],
            states=_side_by_side(file, group, states, (length,), episode, may_end=False),
            rewards=None if rewards is None else rewards[:, 0],
            successes=_successes(file, group, length, episode),
        ),
        left_out=left_out,
        notes=tuple(notes),
        ends_early=ends_early,
    )


def _cameras(file: Path, group: h5py.Group, there: dict[str, h5py.Dataset], episode: int) -> dict[str, str]:
    """Data sets that are pictures, or are named like pictures, by the name of the camera."""
    names = [name for name, values in there.items() if are_pictures(values) or name.endswith(CAMERA_SUFFIXES)]
    for name in group:
        if name.endswith(CAMERA_SUFFIXES) and name not in there:
            member(file, group, name, h5py.Dataset, episode)
    views = [re.sub(r"(_image|_rgb)$", "", name.rpartition("/")[2]) or name for name in names]
    if len(set(views)) != len(views):
        fail(file, f"cameras in {group.name}", names, "one each", episode)
    if not views:
        found = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in list(there.items())[:6])
        expected = "at least 1 of uint8 (frames, height, width, 3)"
        fail(file, f"number of cameras in {group.name}", f"0 of {found or 'nothing'}", expected, episode)
    return dict(sorted(zip(views, names, strict=True)))


def _find(file: Path, group: h5py.Group, there: dict[str, h5py.Dataset], key: str, option: str, episode: int) -> str:
    """Path of the data set that the user names: inside the demonstration, or inside `obs`."""
    candidates = [name for name in (key, f"obs/{key}") if isinstance(group.get(name), h5py.Dataset)]
    if len(candidates) != 1:
        names = [name for name in data_sets(group) if not are_pictures(group[name])]
        fail(file, f"{option} {key}", ", ".join(candidates) or "missing", f"one of {', '.join(names)}", episode)
    return candidates[0]


def _side_by_side(
    file: Path, group: h5py.Group, names: Sequence[str], rows: tuple[int, ...], episode: int, *, may_end: bool
) -> Float32[np.ndarray, "rows width"] | None:
    tables = [read_table(file, group, name, rows, episode, may_end=may_end) for name in names]
    if len({len(table) for table in tables}) > 1:
        fail(file, f"rows of {', '.join(names)}", [len(table) for table in tables], "the same number", episode)
    return np.concatenate(tables, axis=1) if tables else None


def _successes(file: Path, group: h5py.Group, length: int, episode: int) -> np.ndarray | None:
    """Isaac Lab marks a whole demonstration as successful; then the last step counts as the success."""
    success = group.attrs.get("success")
    if success is None:
        return None
    if not isinstance(success, bool | int | np.bool_ | np.integer):
        fail(file, f"success of {group.name}", repr(success), "true or false", episode)
    rows = np.zeros(length, bool)
    rows[-2:] = bool(success)  # the last row leads out of the episode
    return rows


def read_about(file: Path, data: h5py.Group) -> About:
    """Frames per second, robot and task from the attributes `env_args` and `problem_info`.

    Raises:
        ValueError: They are malformed.
    """
    about = _json_attribute(file, data, "env_args")
    fps, notes = _rate(file, about)
    task = _json_attribute(file, data, "problem_info").get("language_instruction", "")
    if isinstance(task, list):
        task = "".join(str(part) for part in task)
    robot = about.get("env_name", "")
    for field, value in (("language_instruction", task), ("env_name", robot)):
        if not isinstance(value, str):
            fail(file, field, repr(value), "a string")
    return About(fps, robot, task, notes)


def _rate(file: Path, about: dict[str, Any]) -> tuple[float, tuple[str, ...]]:
    """`control_freq` of robosuite, or `dt` times `decimation` of Isaac Lab."""
    kwargs, simulation = about.get("env_kwargs", {}), about.get("sim_args", {})
    if isinstance(simulation, dict) and isinstance(simulation.get("dt"), int | float) and "decimation" in simulation:
        step = simulation["dt"] * simulation["decimation"]
        return (1 / step, ()) if 1e-4 < step < 1e4 else fail(file, "dt of env_args", repr(step), "a positive number")
    fps = kwargs.get("control_freq") if isinstance(kwargs, dict) else -1
    if fps is None:
        return CONTROL_FREQUENCY, (f"frames per second are not given, {CONTROL_FREQUENCY:g} are assumed",)
    if not isinstance(fps, int | float) or not 0 < fps < 1e4:
        fail(file, "control_freq of env_args", repr(fps), "a positive number")
    return float(fps), ()


def _json_attribute(file: Path, data: h5py.Group, name: str) -> dict[str, Any]:
    """A JSON object in an attribute of `data`; empty where there is none."""
    try:
        value = json.loads(data.attrs.get(name, "{}"))
    except (*BROKEN_FILE, RecursionError) as error:
        raise ValueError(f"{file}: attribute {name} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        fail(file, f"attribute {name}", repr(value), "a JSON object")
    return value
