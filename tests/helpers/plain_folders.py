"""Plain folders whose pictures show episode and frame as grey fields, so that a shift cannot hide."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image

from worldmodel.data.clip import EpisodeSource

FPS = 10
LENGTHS = (21, 17, 25)
SIZE = (32, 48)
CAMERAS = ("top", "wrist")
NAMES = ("x", "y", "z", "g")


def actions(episode: int, length: int) -> np.ndarray:
    """`action[f] = arange(4) + 100 e + f`, with decimals that count rows once more."""
    return np.arange(4) + 100.0 * episode + np.arange(length)[:, None]


def states(episode: int, length: int) -> np.ndarray:
    """`state[f] = arange(5) + 100 e + f / 10`."""
    return np.arange(5) + 100.0 * episode + np.arange(length)[:, None] / 10


def pictures(episode: int, length: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Left field: the episode; right field: the frame."""
    frames = np.zeros((length, *size, 3), np.uint8)
    frames[:, :, : size[1] // 2] = 40 + 30 * episode
    frames[:, :, size[1] // 2 :] = (20 + 6 * np.arange(length))[:, None, None, None]
    return frames


def shown(frames: np.ndarray) -> tuple[int, list[int]]:
    """Episode and frame numbers that pictures show."""
    height, width = frames.shape[1:3]
    grey = frames[:, height // 2, :, 1].astype(float)
    left, right = (
        grey[:, width // 4 - 4 : width // 4 + 4].mean(1),
        grey[:, 3 * width // 4 - 4 : 3 * width // 4 + 4].mean(1),
    )
    (episode,) = set(np.round((left - 40) / 30).astype(int).tolist())
    return episode, np.round((right - 20) / 6).astype(int).tolist()


@functools.cache
def video(episode: int, length: int, suffix: str = ".mp4", first: int = 0) -> bytes:
    """A video file, encoded once a session."""
    encoder, options = {".webm": ("libvpx-vp9", {"crf": "15", "cpu-used": "8"})}.get(
        suffix.lower(), ("libx264", {"crf": "8"})
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(encoder, rate=FPS)
            (stream.height, stream.width), stream.pix_fmt, stream.options = SIZE, "yuv420p", options
            for frame in pictures(episode, length)[first:]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        return path.read_bytes()


def csv_text(values: np.ndarray, names: Sequence[str] | None = NAMES) -> str:
    """As `pandas.DataFrame.to_csv(index=False)` writes it."""
    lines = [",".join(map(repr, row)) for row in values.tolist()]
    return "".join(f"{line}\n" for line in ([",".join(names)] if names else []) + lines)


def write_plain(
    folder: Path,
    *,
    lengths: Sequence[int] = LENGTHS,
    cameras: Sequence[str] = CAMERAS,
    write: Callable[[Path, int, int], object] | None = None,
    suffix: str = ".mp4",
    name: str = "episode_{}",
) -> Path:
    """Folders with videos; `write(folder, episode, length)` adds tables, `actions.csv` by default."""
    for episode, length in enumerate(lengths):
        part = folder / name.format(episode)
        part.mkdir(parents=True)
        for camera in cameras:
            (part / f"{camera}{suffix}").write_bytes(video(episode, length, suffix))
        if write is None:
            (part / "actions.csv").write_text(csv_text(actions(episode, length)))
            np.save(part / "states.npy", states(episode, length))
        else:
            write(part, episode, length)
    return folder


def assert_true(
    source: EpisodeSource, *, lengths: Sequence[int] = LENGTHS, labelled: bool = True, width: int = 4
) -> None:
    """Every frame, action and state is that of the episode and frame that the picture shows, and none is missing."""
    for index, length in enumerate(source.lengths):
        clip = source.read(index, 0, length)
        for camera in range(len(source.views)):
            episode, frames = shown(clip.frames[:, camera].numpy())
            assert frames == list(range(lengths[episode])), (index, camera, frames)
        if labelled:
            assert clip.actions is not None
            assert clip.actions.tolist() == actions(episode, length)[:-1, :width].tolist(), index
        if clip.states is not None:
            assert np.allclose(clip.states.numpy(), states(episode, length)), index


def write_pictures(
    folder: Path, episode: int, form: str = "{:06d}.png", first: int = 0, length: int | None = None
) -> None:
    """A folder of numbered pictures."""
    folder.mkdir(parents=True)
    for index, picture in enumerate(pictures(episode, length or LENGTHS[episode])):
        Image.fromarray(picture).save(folder / form.format(index + first), **({"quality": 98} if "jp" in form else {}))
