"""Reading video frames by index, and writing videos for people."""

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from jaxtyping import UInt8

from worldmodel.files import write_atomically

try:
    import decord
except ImportError:  # no wheels for ARM and Mac
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)

DECORD_ERRORS = () if decord is None else (decord.DECORDError,)
DECORD_CODECS = {"h264", "hevc", "vp9"}
MAX_OPEN_READERS = 8
PEOPLE_CONSTANT_RATE_FACTOR = 18


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        codec: Name of the codec as ffmpeg calls it, such as `h264` or `av1`.
        size: `(H, W)` in pixels.
        fps: Average frames per second.
        pts: Presentation time of every frame, ascending, in units of the stream's time base.
        keyframes: Indices of the frames that can be decoded on their own, ascending.
        closed: Whether no frame that follows a keyframe in the file is shown before it.
        eight_bit: Whether a colour value has 8 bits.
    """

    codec: str
    size: tuple[int, int]
    fps: float
    pts: tuple[int, ...]
    keyframes: tuple[int, ...]
    closed: bool
    eight_bit: bool

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.pts)


def video_info(path: Path | str) -> VideoInfo:
    """Index the packets of a video without decoding them.

    Raises:
        ValueError: The file cannot be read, has no video, or holds fewer frames than its header
            promises.
    """
    path = Path(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ValueError(f"{path} is in a codec that ffmpeg does not know")
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
            promised, rate = stream.frames, stream.average_rate
            codec, size = stream.codec_context.name, (stream.height, stream.width)
            pixels = stream.codec_context.format
    except (av.error.FFmpegError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable video: {error}") from error
    codec = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9"}.get(codec, codec)
    if not packets or any(pts is None for pts, _ in packets):
        raise ValueError(f"{path} holds {len(packets)} frames, or frames without a time")
    if len(packets) < promised:
        raise ValueError(f"{path} is cut short: {len(packets)} frames, its header says {promised}")
    shown = np.array([pts for pts, _ in packets])
    latest_keyframe = np.maximum.accumulate(
        np.where([is_key for _, is_key in packets], shown, shown.min())
    )
    packets.sort()
    keyframes = tuple(index for index, (_, is_key) in enumerate(packets) if is_key)
    pts = tuple(pts for pts, _ in packets)
    if len(set(pts)) != len(pts):
        raise ValueError(f"{path} has {len(pts)} frames at {len(set(pts))} different times")
    closed = bool((shown >= latest_keyframe).all())
    eight_bit = pixels is not None and all(part.bits == 8 for part in pixels.components)
    return VideoInfo(codec, size, float(rate or 0), pts, keyframes, closed, eight_bit)


def count_frames(path: Path | str) -> int:
    """Number of frames of a video."""
    return video_info(path).num_frames


class PyAVDecoder:
    """Frames by index through PyAV: seek to the keyframe before, decode up to the frame.

    Damage that ffmpeg notices is an error, where it would by default guess the picture. That cannot
    be asked of a stream that is not closed: it lacks what precedes the keyframe by design.
    """

    def __init__(self, path: Path, info: VideoInfo):
        self.path = path
        self.info = info
        self.container = av.open(str(path))
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = 1
        if info.closed:
            self.stream.codec_context.options = {"err_detect": "explode"}
        self.index_of = {pts: index for index, pts in enumerate(info.pts)}
        self.decoded = iter(())
        self.position = info.num_frames

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
        """Frames in the order of `indices`.

        Where a stream cannot be entered at the keyframe before (H.264 with intra refresh), it is
        decoded from its beginning.
        """
        wanted = {}
        for index in sorted(set(indices)):
            try:
                frame = self.decode(index)
            except ValueError:
                frame = self.decode(index, start=0)
            wanted[index] = frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
        return np.stack([wanted[index] for index in indices])

    def close(self) -> None:
        """Release the file."""
        self.decoded = iter(())
        self.container.close()

    def decode(self, index: int, start: int | None = None) -> av.VideoFrame:
        """One decoded frame, going on from the frame before or from the keyframe `start`.

        Raises:
            ValueError: The frame cannot be decoded, or only with damage.
        """
        if start is None:
            before = bisect_right(self.info.keyframes, index)
            start = self.info.keyframes[before - 1] if before else 0
        frame, reason = None, "it is not in the stream, or damaged"
        try:
            if not start <= self.position <= index:
                self.container.seek(self.info.pts[start], stream=self.stream)
                self.decoded = self.container.decode(self.stream)
            frame = self._next(index)
        except av.error.FFmpegError as error:
            reason = str(error)
        if frame is not None and not frame.is_corrupt:
            return frame
        self.position = self.info.num_frames
        raise ValueError(
            f"{self.path}: frame {index} of {self.info.num_frames} at pts {self.info.pts[index]} "
            f"cannot be decoded: {reason}"
        )

    def _next(self, index: int) -> av.VideoFrame | None:
        for frame in self.decoded:
            found = self.index_of.get(frame.pts, -1)
            self.position = found + 1
            if found >= index:
                return frame if found == index else None
        return None


class DecordDecoder:
    """Frames by index through decord.

    decord says nothing of damage, so a frame is decoded by PyAV once before decord may give it.
    """

    def __init__(self, path: Path, info: VideoInfo):
        self.reader = decord.VideoReader(str(path), num_threads=1)
        if len(self.reader) != info.num_frames:
            raise ValueError(
                f"{path}: decord finds {len(self.reader)} frames, the file has {info.num_frames}"
            )
        self.checker = PyAVDecoder(path, info)
        self.unchecked = np.ones(info.num_frames, bool)

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
        """Frames in the order of `indices`."""
        for index in sorted(set(indices)):
            if self.unchecked[index]:
                self.checker.decode(index)
                self.unchecked[index] = False
        return self.reader.get_batch(list(indices)).asnumpy()

    def close(self) -> None:
        """Release the file."""
        self.checker.close()
        del self.reader


class VideoReader:
    """Frames of one video by presentation index.

    decord decodes H.264, H.265 and VP9, PyAV everything else: LeRobot's AV1, keyframes with earlier
    frames behind them or that need earlier frames (decord gives a wrong picture there), more than 8
    bits (wrong colours), the odd width that decord cannot copy, and machines without decord. Both
    give the same frame for the same index.

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
        kinds = {"decord": DecordDecoder, "pyav": PyAVDecoder, None: _choose_decoder}
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
                raise ValueError(
                    f"{self.path}: frame index={index}, the video has {len(self)} frames"
                )
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


def _choose_decoder(path: Path, info: VideoInfo) -> DecordDecoder | PyAVDecoder:
    """Decord where it is installed and decodes the stream, PyAV otherwise."""
    known = info.codec in DECORD_CODECS and info.closed and info.eight_bit
    if decord is None or not known:
        return PyAVDecoder(path, info)
    try:
        decoder = DecordDecoder(path, info)
        decoder.read([0])
    except (ValueError, *DECORD_ERRORS):
        return PyAVDecoder(path, info)
    return decoder


@contextmanager
def _reported(path: Path, indices: Sequence[int] = ()) -> Iterator[None]:
    """Turn the errors of both decoders into a `ValueError` that names the file and the frames."""
    foreign = (
        av.error.FFmpegError,
        OSError,
        UnicodeDecodeError,
        *DECORD_ERRORS,
    )
    try:
        yield
    except foreign as error:
        which = f"frames {list(indices)[:8]} " if indices else ""
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: {which}cannot be decoded: {reason}") from error


class _OpenReaders(threading.local):
    """The readers a thread keeps open, the least recently used first."""

    def __init__(self):
        self.readers: OrderedDict[tuple[int, str, int, int], VideoReader] = OrderedDict()


_open = _OpenReaders()


def read_frames(path: Path | str, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
    """Decode frames of a video; each thread keeps its last few videos open for the next call.

    Raises:
        ValueError: The file is corrupt, or an index lies outside it.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path} is not a readable video: {error}") from error
    key = (os.getpid(), str(path), status.st_mtime_ns, status.st_size)
    reader = _open.readers.pop(key, None) or VideoReader(path)
    _open.readers[key] = reader
    while len(_open.readers) > MAX_OPEN_READERS:
        _open.readers.popitem(last=False)[1].close()
    return reader.read(indices)


def release_readers() -> None:
    """Close the videos that `read_frames` keeps open for this thread."""
    while _open.readers:
        _open.readers.popitem()[1].close()


def write_video(
    path: Path | str,
    frames: UInt8[np.ndarray, "t H W 3"],
    fps: float | int,
    *,
    crf: int = PEOPLE_CONSTANT_RATE_FACTOR,
) -> None:
    """Write an mp4 that every browser and player shows: H.264, 4:2:0, playable while it loads.

    Frames of odd height or width are extended by repeating the last row or column.

    Args:
        path: The mp4; its folder is made when it is missing.
        frames: RGB, 0..255.
        fps: Frames per second.
        crf: Constant rate factor of x264; lower is better.

    Raises:
        ValueError: There are no frames, or `fps` is not positive.
    """
    path = Path(path)
    if not len(frames) or not fps > 0:
        raise ValueError(f"{path}: {len(frames)} frames at {fps} frames per second is no video")
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    def write(temporary: Path) -> None:
        options = {"movflags": "faststart"}
        with av.open(str(temporary), "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.height, stream.width = even.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": str(crf)}
            for frame in even:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)
