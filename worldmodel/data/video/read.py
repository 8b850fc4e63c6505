"""Read video frames by index."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from jaxtyping import UInt8

from worldmodel.data.remote.tree import held
from worldmodel.data.video.decoders import DECORD_ERRORS, DecordDecoder, PyAVDecoder, choose_decoder, video_info
from worldmodel.data.video.part import needed_part

MAX_OPEN_READERS = 8


def count_frames(path: Path | str) -> int:
    """Number of frames of a video."""
    return video_info(path).num_frames


class VideoReader:
    """Frames of one video by presentation index.

    decord decodes H.264, H.265 and VP9. PyAV decodes everything else: LeRobot's AV1; keyframes that
    need earlier frames, or that are stored before earlier frames (decord gives a wrong picture
    there); more than 8 bits (wrong colours); odd sizes (blurred colours); trimmed and turned videos;
    AVI; and all videos on machines without decord. Both give the same frame for the same index.

    Args:
        path: The video file.
        decoder: `decord` or `pyav`; chosen by the codec when not given.

    Raises:
        ValueError: The file is corrupt, cut short or not a video.
    """

    def __init__(self, path: Path | str, decoder: Literal["decord", "pyav"] | None = None):
        self.path = Path(path)
        self.info = video_info(self.path)
        self.may_change = decoder is None
        kinds = {"decord": DecordDecoder, "pyav": PyAVDecoder, None: choose_decoder}
        with _reported(self.path):
            self.decoder = kinds[decoder](self.path, self.info)

    def __len__(self) -> int:
        """Number of frames."""
        return self.info.num_frames

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file and the decoder."""
        self.decoder.close()

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
        """Decode frames, RGB 0..255, in the order of `indices`, repeats allowed.

        Raises:
            ValueError: An index lies outside the video, or a frame cannot be decoded.
        """
        indices = [int(index) for index in indices]
        for index in indices:
            if not 0 <= index < len(self):
                raise ValueError(f"{self.path}: frame index={index}, the video has {len(self)} frames")
        if not indices:
            return np.zeros((0, *self.info.size, 3), np.uint8)
        with _reported(self.path, indices):
            frames = self._decode(indices)
        if frames.shape != (len(indices), *self.info.size, 3):
            raise ValueError(
                f"{self.path}: frames {indices[0]}..{indices[-1]} have shape {frames.shape[1:]}, "
                f"the header says {(*self.info.size, 3)}"
            )
        return frames

    def _decode(self, indices: list[int]) -> UInt8[np.ndarray, "t H W 3"]:
        try:
            return self.decoder.read(indices)
        except (ValueError, *DECORD_ERRORS):
            if not self.may_change or isinstance(self.decoder, PyAVDecoder):
                raise
        self.decoder.close()
        self.decoder = PyAVDecoder(self.path, self.info)
        return self.decoder.read(indices)


@contextmanager
def _reported(path: Path, indices: Sequence[int] = ()) -> Iterator[None]:
    """Turn the errors of both decoders into a `ValueError` that names the file and the frames."""
    foreign = (av.error.FFmpegError, OSError, UnicodeDecodeError, *DECORD_ERRORS)
    try:
        yield
    except foreign as error:
        which = f"frames {list(indices)[:8]} " if indices else ""
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: {which}cannot be decoded: {reason}") from error


class _OpenReaders(threading.local):
    """The readers that a thread keeps open, the least recently used first."""

    def __init__(self):
        self.readers: OrderedDict[tuple[str, int, int], VideoReader] = OrderedDict()


_open = _OpenReaders()
_inherited: list[OrderedDict] = []


def _leave_inherited() -> None:
    """A forked process cannot close the videos of its parent, whose decoding threads it lacks; it leaves them alone."""
    _inherited.append(_open.readers)
    _open.readers = OrderedDict()


os.register_at_fork(after_in_child=_leave_inherited)


def read_frames(path: Path | str, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
    """Decode frames of a video; each thread keeps its last few videos open for the next call.

    Of a large video behind a URL a part is fetched; if frames cannot be decoded from it, all of it.

    Raises:
        ValueError: The file is corrupt, or an index lies outside it.
    """
    part = needed_part(Path(path), indices)
    if part is not None:
        with suppress(ValueError), held(path, part) as file:
            return _read_open(file, indices)
    with held(path) as file:
        return _read_open(file, indices)


def _read_open(file: Path, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
    try:
        status = os.stat(file)
    except OSError as error:
        raise ValueError(f"{file} is not a readable video: {error}") from error
    key = (str(file), status.st_mtime_ns, status.st_size)
    reader = _open.readers.pop(key, None) or VideoReader(file)
    _open.readers[key] = reader
    while len(_open.readers) > MAX_OPEN_READERS:
        _open.readers.popitem(last=False)[1].close()
    return reader.read(indices)


def release_readers(keep: int = 0) -> None:
    """Close the videos that `read_frames` keeps open for this thread, all but the last `keep`."""
    while len(_open.readers) > keep:
        _open.readers.popitem(last=False)[1].close()
