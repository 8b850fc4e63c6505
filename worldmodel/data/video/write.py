"""Write mp4 files: encode one episode, and join files without encoding them again."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from worldmodel.files import write_atomically

CODEC = "h264"
ENCODER = "libx264"
PIXEL_FORMAT = "yuv444p"
CONSTANT_RATE_FACTOR = 8
KEYFRAME_INTERVAL = 2


def encode_video(file: Path, frames: UInt8[np.ndarray, "t H W 3"], fps: int) -> None:
    """Encode one episode with H.264.

    Colour is kept at full resolution, because half of it would blur objects of a few pixels. Every
    second frame is a keyframe, so that any frame is read with one seek. With one thread and no
    B-frames the file depends on the frames alone, and files can be joined packet by packet.

    Args:
        file: The mp4 to write.
        frames: RGB, 0..255.
        fps: Frames per second.
    """
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(ENCODER, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXEL_FORMAT
        stream.gop_size = KEYFRAME_INTERVAL
        stream.options = {"crf": str(CONSTANT_RATE_FACTOR), "bf": "0"}
        stream.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def concatenate_videos(file: Path, parts: Sequence[Path], lengths: Sequence[int], fps: int) -> None:
    """Join mp4 files of `encode_video` packet by packet; frame n lies at n / fps seconds.

    Args:
        file: The mp4 to write.
        parts: The files to join, of one frame size.
        lengths: Number of frames of each part.
        fps: Frames per second of all parts.

    Raises:
        ValueError: The number of frames of a part is not that in `lengths`, or a part was encoded
            with other settings than the first part.
    """
    with av.open(file, "w", format="mp4", options={"movflags": "faststart"}) as output:
        target, header, first = None, b"", 0
        for part, length in zip(parts, lengths, strict=True):
            with av.open(part) as container:
                source = container.streams.video[0]
                if target is None:
                    target = output.add_stream_from_template(source)
                    header = source.codec_context.extradata
                if source.codec_context.extradata != header:
                    raise ValueError(
                        f"{part} was encoded with other settings than {parts[0]}: "
                        f"{source.codec_context.extradata!r} and {header!r}"
                    )
                ticks = 1 / (source.time_base * fps)
                packets = [packet for packet in container.demux(source) if packet.size]
                if len(packets) != length:
                    raise ValueError(f"{part} has {len(packets)} frames, expected are {length}")
                for number, packet in enumerate(packets, start=first):
                    packet.pts = packet.dts = round(number * ticks)
                    packet.duration = round(ticks)
                    packet.stream = target
                    output.mux(packet)
            first += length


def video_properties(file: Path) -> dict[str, object]:
    """The facts about an mp4 that `meta/info.json` states for a camera."""
    with av.open(file) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec_context.name,
            "video.pix_fmt": stream.codec_context.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(Fraction(stream.average_rate)),
            "video.channels": 3,
            "has_audio": False,
        }


PEOPLE_CONSTANT_RATE_FACTOR = 18
WEBP_QUALITY = 80


def write_video(
    path: Path | str, frames: UInt8[np.ndarray, "t H W 3"], fps: float | int, *, crf: int = PEOPLE_CONSTANT_RATE_FACTOR
) -> None:
    """Write a video for people: an mp4 or, as a page such as a README can show it, an endless animated WebP.

    The mp4 plays in every browser and while it loads (H.264, 4:2:0); frames of odd height or width are extended by
    repeating the last row or column.

    Args:
        path: The file, which ends in `.mp4` or `.webp`; its folder is made when it is missing.
        frames: RGB, 0..255.
        fps: Frames per second; a WebP holds them as whole milliseconds per frame.
        crf: Constant rate factor of x264, for an mp4; lower is better.

    Raises:
        ValueError: There are no frames, `fps` is not positive, or the file has another ending.
    """
    path = Path(path)
    if not len(frames) or not fps > 0:
        raise ValueError(f"{path}: {len(frames)} frames at {fps} frames per second is not a video")
    if path.suffix not in VIDEO_SUFFIXES:
        raise ValueError(f"{path}: ends in {path.suffix!r}, a video is written as one of {', '.join(VIDEO_SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: _WRITERS[path.suffix](temporary, frames, fps, crf))


def _write_mp4(file: Path, frames: UInt8[np.ndarray, "t H W 3"], fps: float | int, crf: int) -> None:
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")

    with av.open(str(file), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf)}
        for frame in even:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _write_webp(file: Path, frames: UInt8[np.ndarray, "t H W 3"], fps: float | int, crf: int) -> None:
    del crf
    first, *rest = [Image.fromarray(frame) for frame in frames]
    options = {"duration": round(1000 / fps), "loop": 0, "quality": WEBP_QUALITY, "method": 6}
    first.save(file, format="WEBP", save_all=True, append_images=rest, **options)


_WRITERS = {".mp4": _write_mp4, ".webp": _write_webp}
VIDEO_SUFFIXES = tuple(_WRITERS)
"""The endings of the files that `write_video` writes."""
