"""HDF5 sets whose pictures show which episode and frame they are, as in `robot_sets`, and random changes of them."""

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
from robot_sets import LENGTHS, faults, frames

from worldmodel.data.hdf5.files import BROKEN_FILE
from worldmodel.data.source import TableSource

ACTIONS = {"robomimic": "actions", "ALOHA": "action"}
STATES = {"robomimic": "obs/robot0_eef_pos", "ALOHA": "observations/qpos"}
CAMERAS = {"robomimic": "obs/{}_image", "ALOHA": "observations/images/{}"}
Edit = Callable[[random.Random, np.ndarray], np.ndarray]


def write_hdf5_set(folder: Path, kind: str, lengths: Sequence[int] = LENGTHS) -> Path:
    """One file of demonstrations as robomimic writes them, or one file an episode as ALOHA does."""
    folder.mkdir(parents=True)
    for episode, length in enumerate(lengths):
        with h5py.File(folder / _file(kind, episode), "a") as content:
            group = content.require_group(_group(kind, episode))
            rows = np.arange(length)[:, None]
            group[ACTIONS[kind]] = np.arange(4) + 100.0 * episode + rows
            group[STATES[kind]] = np.arange(5) + 100.0 * episode + rows / 10
            for camera, name in enumerate(("top", "wrist")):
                group[CAMERAS[kind].format(name)] = frames(episode, length, camera)
    return folder


def _file(kind: str, episode: int) -> str:
    return "demos.hdf5" if kind == "robomimic" else f"episode_{episode}.hdf5"


def _group(kind: str, episode: int) -> str:
    return f"data/demo_{episode}" if kind == "robomimic" else "/"


def _cut_rows(rng: random.Random, values: np.ndarray) -> np.ndarray:
    """One to three rows, anywhere."""
    count = rng.randint(1, 3)
    first = rng.choice([0, len(values) - count, rng.randrange(len(values) - count)])
    return np.delete(values, slice(first, first + count), axis=0)


def _another_type(rng: random.Random, values: np.ndarray) -> np.ndarray:
    """A type that holds the same numbers, or none."""
    whole = bool((values == values.round()).all())
    types = ["f4", "f8", "S8", "c8", *(["i8", "u2", "f2"] if whole else [])]
    return values.astype(rng.choice(types))


def _transposed(rng: random.Random, values: np.ndarray) -> np.ndarray:
    return values.T if values.ndim < 4 or rng.random() < 0.5 else np.moveaxis(values, 3, 1)


def _spoilt(rng: random.Random, values: np.ndarray) -> np.ndarray:
    """A number that is none, but not in the last row; another shape for pictures."""
    if values.ndim > 2:
        return values[..., : rng.choice([1, 2])]
    spoilt = values.copy()
    spoilt[rng.randrange(len(values) - 1), rng.randrange(values.shape[1])] = np.nan
    return spoilt


EDITS: dict[str, Edit] = {
    "rows cut": _cut_rows,
    "rows doubled": lambda rng, values: np.concatenate([values, values[-1:]]),
    "type": _another_type,
    "transposed": _transposed,
    "spoilt": _spoilt,
    "flattened": lambda rng, values: values.reshape(-1),
    "with an axis more": lambda rng, values: values[:, None],
}
EVERYWHERE = ("type", "transposed", "flattened", "with an axis more")
"""Changes that are noticed or harmless if they are made in every episode."""


def damage_hdf5_set(rng: random.Random, folder: Path, kind: str) -> str:
    """Change one episode or the same in all, and say how."""
    change = rng.choice([*EDITS, "rows cut", "renamed", "renamed", "deleted", "exchanged", "file cut"])
    if change == "file cut":
        file = rng.choice(sorted(folder.glob("*.hdf5")))
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * rng.choice([0, rng.random(), 0.999]))])
        return f"{change}: {file.name}"
    names = [ACTIONS[kind], STATES[kind], *(CAMERAS[kind].format(camera) for camera in ("top", "wrist"))]
    name, other = rng.sample(names, 2)
    wide = change in (*EVERYWHERE, "renamed", "deleted") and rng.random() < 0.4
    episodes = range(len(LENGTHS)) if wide else [rng.randrange(len(LENGTHS))]
    new = rng.choice(["{}x", "x{}", "commands", "action", "actions", "next_actions", "depth_image"])
    state = rng.getstate()
    for episode in episodes:
        rng.setstate(state)
        file = folder / _file(kind, episode)
        with suppress(*BROKEN_FILE), h5py.File(file, "r+") as content:  # a change before may have cut the file
            group = content[_group(kind, episode)]
            if name in group and (change != "exchanged" or other in group):
                _change(rng, group, change, name, other if change == "exchanged" else new)
    return f"{change}: {name} ({other if change == 'exchanged' else new}) of {list(episodes)}"


def _change(rng: random.Random, group: h5py.Group, change: str, name: str, other: str) -> None:
    values = group[name][()]
    if change == "exchanged":
        group.move(name, "aside")
        group.move(other, name)
        group.move("aside", other)
        return
    if change == "renamed":
        above, _, last = name.rpartition("/")
        target = f"{above}/{other.format(last)}".strip("/")
        if target not in group:
            group.move(name, target)
        return
    del group[name]
    if change != "deleted":
        group[name] = EDITS[change](rng, values) if values.dtype.kind in "fiu" and values.ndim > 1 else values


def hdf5_faults(source: TableSource, done: str = "") -> list[str]:
    """What an opened set returns that was not written; without actions, a note must name what is not read.

    Args:
        source: An opened data set.
        done: What `damage_hdf5_set` said.
    """
    found = faults(source)
    if source.action_dim:
        return found
    said = "deleted" in done or any("not read" in note for note in source.notes)
    found = [fault for fault in found if not fault.endswith("the actions are others")]
    return found if said else [*found, "no actions, and no note"]
