"""Episodes of ALOHA and ACT (2304.13705): one file each, `action` and `observations/images/<camera>`."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float32

from worldmodel.data.checks import fail
from worldmodel.data.hdf5.files import data_sets, find_actions, member, read_table
from worldmodel.data.hdf5.pictures import Demo, array_of_frames, common_length, encoded_frames, left_out_notes, not_rgb
from worldmodel.data.options import Request
from worldmodel.data.source import Rows

FPS = 50.0  # of the robot's control loop and of the simulation; the files do not say
IMAGES = "observations/images"


def is_aloha(content: h5py.File) -> bool:
    """Whether a file has the cameras of an ALOHA episode."""
    return isinstance(content.get(IMAGES), h5py.Group)


def read_aloha(file: Path, content: h5py.File, episode: int, request: Request) -> Demo:
    """Check one episode, and read its tables.

    Raises:
        ValueError: It is malformed.
    """
    images = member(file, content, IMAGES, h5py.Group, episode)
    there = sorted(images)
    left_out = {name: kind for name in there if (kind := not_rgb(member(file, images, name, h5py.Dataset, episode)))}
    views = request.views or tuple(name for name in there if name not in left_out) or tuple(there)
    if not views or not set(views) <= set(there):
        fail(file, f"cameras in /{IMAGES}", there, list(views) if views else "at least 1", episode)
    stored = {}
    for view in views:
        values = member(file, images, view, h5py.Dataset, episode)
        stored[view] = (array_of_frames if values.ndim == 4 else encoded_frames)(file, values, episode)
    length = common_length(file, stored, episode)
    pictures = [f"{IMAGES}/{name}" for name in there]
    actions = request.action_keys or find_actions(file, content, pictures, episode)
    states = request.state_keys or ("observations/qpos",) * ("observations/qpos" in content)
    actions = [_find(file, content, key, "--action-keys", episode) for key in actions]
    states = [_find(file, content, key, "--state-keys", episode) for key in states]
    notes = [f"frames per second are not given, {FPS:g} are assumed as for ALOHA"]
    if any(camera.encoded for camera in stored.values()):
        notes.append(
            "JPEG pictures are read as OpenCV reads them in ALOHA's code: red and blue as in the recorded arrays"
        )
    known = {*actions, *states, "compress_len"}
    notes += left_out_notes(left_out, views)
    unread = [name for name in data_sets(content) if name not in known and not name.startswith(IMAGES)]
    if unread:
        notes.append(f"not read: {', '.join(unread)}; --action-keys and --state-keys can name them")
    return Demo(
        file=file,
        cameras=stored,
        length=length,
        rows=Rows(
            task="",
            actions=_side_by_side(file, content, actions, (length, max(length - 1, 1)), episode, may_end=True),
            states=_side_by_side(file, content, states, (length,), episode, may_end=False),
            rewards=None,
            successes=None,
        ),
        left_out=left_out,
        notes=tuple(notes),
        ends_early=any(len(content[name]) < length for name in actions),
    )


def _find(file: Path, content: h5py.File, key: str, option: str, episode: int) -> str:
    candidates = [name for name in (key, f"observations/{key}") if isinstance(content.get(name), h5py.Dataset)]
    if not candidates:
        names = [name for name in data_sets(content) if not name.startswith(IMAGES)]
        fail(file, f"{option} {key}", "missing", f"one of {', '.join(names)}", episode)
    return candidates[0]


def _side_by_side(
    file: Path, content: h5py.File, names: Sequence[str], rows: tuple[int, ...], episode: int, *, may_end: bool
) -> Float32[np.ndarray, "rows width"] | None:
    tables = [read_table(file, content, name, rows, episode, may_end=may_end) for name in names]
    if len({len(table) for table in tables}) > 1:
        fail(file, f"rows of {', '.join(names)}", [len(table) for table in tables], "the same number", episode)
    return np.concatenate(tables, axis=1) if tables else None
