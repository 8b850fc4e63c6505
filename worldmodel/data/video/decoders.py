"""Indexing a video and decoding its frames, by PyAV or decord."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.video.frame import PictureType
from jaxtyping import Float64, UInt8

from worldmodel.data.video.turn import UPRIGHT, Turn, has_edit_list, stream_turn

try:
    import decord
except ImportError:  # no wheels for ARM and Mac
    decord = None
else:
    decord.logging.set_level(decord.logging.QUIET)

DECORD_ERRORS = () if decord is None else (decord.DECORDError, RuntimeError)
DECORD_CODECS = {"h264", "hevc", "vp9"}
SAME_PICTURE = 2.0  # mean difference of two decoders, in grey levels


@dataclass(frozen=True)
class VideoHeader:
    """What the container of a video says about it.

    Attributes:
        codec: Name of the codec as ffmpeg calls it, such as `h264` or `av1`.
        size: `(H, W)` in pixels as shown, after the turn.
        fps: Average frames per second.
        num_frames: Number of frames that are shown; `None` where the container does not say.
        turn: How a player turns the stored pictures.
        pixel_aspect: Width of a pixel divided by its height; the pictures are read without this stretch.
    """

    codec: str
    size: tuple[int, int]
    fps: float
    num_frames: int | None
    turn: Turn = UPRIGHT
    pixel_aspect: Fraction = Fraction(1)


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        codec: Name of the codec as ffmpeg calls it, such as `h264` or `av1`.
        size: `(H, W)` in pixels as shown, after the turn.
        fps: Average frames per second.
        pts: Presentation time of every frame that is shown, ascending, in units of `time_base`.
        time_base: Seconds of one unit of `pts`.
        keyframes: Indices of the frames that can be decoded on their own, ascending.
        closed: Whether no frame that follows a keyframe in the file is shown before it.
        eight_bit: Whether a colour value has 8 bits.
        trimmed: Whether an edit list leaves out frames of the file.
        turn: How a player turns the stored pictures.
        counted: Whether frames are counted as they are decoded, because the container (AVI) has no presentation times.
    """

    codec: str
    size: tuple[int, int]
    fps: float
    pts: tuple[int, ...]
    time_base: Fraction
    keyframes: tuple[int, ...]
    closed: bool
    eight_bit: bool
    trimmed: bool = False
    turn: Turn = UPRIGHT
    counted: bool = False

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.pts)

    @property
    def seconds(self) -> Float64[np.ndarray, "t"]:
        """Presentation time of every frame, counted from the first one."""
        return (np.array(self.pts) - self.pts[0]) * float(self.time_base)


def video_header(path: Path | str) -> VideoHeader:
    """Read a video's header, in about a millisecond; `video_info` reads all packets.

    Damage inside the file is not noticed here.

    Raises:
        ValueError: The file cannot be read, has no video, is cut short, or is turned by an odd angle.
    """
    path = Path(path)
    with _opened(path) as container:
        return _header(path, container)


def video_info(path: Path | str) -> VideoInfo:
    """Index the packets of a video without decoding them.

    Raises:
        ValueError: The file cannot be read, has no video, holds fewer frames than its header
            promises, or is turned by an odd angle.
    """
    path = Path(path)
    with _opened(path) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        entries = [(packet.pts, packet.is_keyframe) for packet in packets if not packet.is_discard]
        entered, promised = len(getattr(stream, "index_entries", packets)), stream.frames
        pixels, time_base = stream.codec_context.format, stream.time_base
        counted = "avi" in container.format.name and not all(is_key for _, is_key in entries)
    header = video_header(path)
    trimmed = len(entries) < len(packets) or (0 < entered != promised and has_edit_list(path))
    if len(packets) < (entered if trimmed else promised):
        raise ValueError(f"{path} is cut short: {len(packets)} frames, its header says {promised}")
    if not entries or any(pts is None for pts, _ in entries):
        raise ValueError(f"{path} holds {len(entries)} frames, or frames without a time")
    shown = np.array([pts for pts, _ in entries])
    latest_keyframe = np.maximum.accumulate(np.where([is_key for _, is_key in entries], shown, shown.min()))
    entries.sort()
    keyframes = tuple(index for index, (_, is_key) in enumerate(entries) if is_key)
    pts = tuple(pts for pts, _ in entries)
    if len(set(pts)) != len(pts):
        raise ValueError(f"{path} has {len(pts)} frames at {len(set(pts))} different times")
    return VideoInfo(
        codec=header.codec,
        size=header.size,
        fps=header.fps,
        pts=pts,
        time_base=time_base,
        keyframes=(0,) if counted else keyframes,
        closed=bool((shown >= latest_keyframe).all()),
        eight_bit=pixels is not None and all(part.bits == 8 for part in pixels.components),
        trimmed=trimmed,
        turn=header.turn,
        counted=counted,
    )


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The container of a video; ffmpeg's errors become a `ValueError` that names the file."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no video stream")
            if container.streams.video[0].codec_context is None:
                raise ValueError(f"{path} is in a codec that ffmpeg does not know")
            yield container
    except (av.error.FFmpegError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable video: {error}") from error


def _header(path: Path, container: av.container.InputContainer) -> VideoHeader:
    stream = container.streams.video[0]
    codec, entries = stream.codec_context.name, indexed(path, stream)
    num_frames = stream.frames or None
    if num_frames and len(entries):
        last, end = entries[len(entries) - 1], path.stat().st_size
        if last.pos + last.size > end:
            whole = sum(entry.pos + entry.size <= end for entry in entries)
            raise ValueError(f"{path} is cut short: {whole} frames, its header says {num_frames}")
        trimmed = len(entries) != num_frames or entries[0].is_discard or entries[len(entries) - 1].is_discard
        num_frames = sum(not entry.is_discard for entry in entries) if trimmed else num_frames
    turn = stream_turn(path, container)
    return VideoHeader(
        codec={"libdav1d": "av1", "libaom-av1": "av1", "libvpx-vp9": "vp9"}.get(codec, codec),
        size=turn.size((stream.height, stream.width)),
        fps=float(stream.average_rate or 0),
        num_frames=num_frames,
        turn=turn,
        pixel_aspect=Fraction(stream.sample_aspect_ratio or 1),
    )


def indexed(path: Path, stream: Any) -> Any:
    """Where the frames of a video lie in its file: a sequence with `pos`, `size` and `is_discard` of each.

    PyAV tells it since its version 17. With an older one all packets of the file are read.

    Raises:
        ValueError: PyAV is older, and there are fewer packets than frames, for which there are two reasons.
    """
    if hasattr(stream, "index_entries"):
        return stream.index_entries
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    whole = sum(not packet.is_corrupt for packet in packets)
    if whole < stream.frames:
        why = ", or shows only a part, which PyAV 17 can tell" if has_edit_list(path) else ""
        raise ValueError(f"{path} is cut short: {whole} frames, its header says {stream.frames}{why}")
    return packets


class PyAVDecoder:
    """Frames by index through PyAV: seek to the keyframe before, decode up to the frame.

    Damage that ffmpeg notices is an error; by default ffmpeg would guess the picture. This check is
    not possible for a stream that is not closed: by design, it lacks frames before the keyframe.
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
        self.entry = 0
        self.keyframes = set(info.keyframes)
        self.keyframes_are_whole = True

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
            picture = frame.to_ndarray(format="rgb24", interpolation="BICUBIC")
            wanted[index] = self.info.turn.apply(picture)
        return np.stack([wanted[index] for index in indices])

    def close(self) -> None:
        """Release the file."""
        self.decoded = iter(())
        self.container.close()

    def decode(self, index: int, start: int | None = None) -> av.VideoFrame:
        """One decoded frame, decoded on from the frame before or from the keyframe `start`.

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
                self.entry = self.position = start
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
            found = self.position if self.info.counted else self.index_of.get(frame.pts, -1)
            self.position = found + 1
            if found in self.keyframes and frame.pict_type != PictureType.I:
                self.keyframes_are_whole = False
                if found == self.entry:
                    return None
            if found >= index:
                return frame if found == index else None
        return None


class DecordDecoder:
    """Frames by index through decord.

    decord does not report damage, or keyframes that need earlier frames, so PyAV decodes a frame
    once before decord may return it. decord seeks wrongly in a trimmed video and in AVI, so that these are
    read from their beginning. decord turns some videos and others not, so its first frame is compared.
    """

    def __init__(self, path: Path, info: VideoInfo):
        self.reader = decord.VideoReader(str(path), num_threads=1)
        self.info = info
        if len(self.reader) != info.num_frames and not info.trimmed:
            raise ValueError(f"{path}: decord finds {len(self.reader)} frames, the file has {info.num_frames}")
        self.from_start = info.trimmed or info.counted
        self.turn = UPRIGHT if info.turn == UPRIGHT else self._missing_turn(path)
        self.checker = PyAVDecoder(path, info)
        self.unchecked = np.ones(info.num_frames, bool)

    def read(self, indices: Sequence[int]) -> UInt8[np.ndarray, "t H W 3"]:
        """Frames in the order of `indices`."""
        for index in sorted(set(indices)):
            if self.unchecked[index]:
                self.checker.decode(index)
                self.unchecked[index] = False
        if not self.checker.keyframes_are_whole:
            raise ValueError(f"{self.checker.path}: a keyframe is not a whole picture")
        if self.from_start:
            frames = self.reader.get_batch(range(max(indices) + 1)).asnumpy()[list(indices)]
        else:
            frames = self.reader.get_batch(list(indices)).asnumpy()
        return np.stack([self.turn.apply(frame) for frame in frames])

    def _missing_turn(self, path: Path) -> Turn:
        """The turn that decord leaves to us."""
        shown = PyAVDecoder(path, self.info).read([0])[0].astype(int)
        found = self.reader.get_batch([0]).asnumpy()[0]
        for turn in (UPRIGHT, self.info.turn):
            turned = turn.apply(found)
            if turned.shape == shown.shape and np.abs(turned - shown).mean() < SAME_PICTURE:
                return turn
        raise ValueError(f"{path}: decord does not show the first frame as a player does")

    def close(self) -> None:
        """Release the file."""
        self.checker.close()
        del self.reader


def choose_decoder(path: Path, info: VideoInfo) -> DecordDecoder | PyAVDecoder:
    """Decord where it is installed and decodes the stream, PyAV otherwise."""
    known = info.codec in DECORD_CODECS and info.closed and info.eight_bit
    known = known and not info.trimmed and not info.counted and info.turn == UPRIGHT
    known = known and not any(side % 2 for side in info.size)  # decord blurs the colours of odd sizes
    if decord is None or not known:
        return PyAVDecoder(path, info)
    try:
        decoder = DecordDecoder(path, info)
        decoder.read([0])
    except (ValueError, *DECORD_ERRORS):
        return PyAVDecoder(path, info)
    return decoder
