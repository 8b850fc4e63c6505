import numpy as np
import pytest
from places import DATA

from worldmodel.data.video.decoders import video_header, video_info
from worldmodel.data.video.mp4 import plain_header
from worldmodel.data.video.write import encode_video

VIDEOS = sorted(DATA.rglob("*.mp4"))


@pytest.mark.parametrize("file", VIDEOS, ids=lambda file: f"{file.parts[-4]} {file.stem}")
def test_boxes_say_what_ffmpeg_says(file):
    mine, theirs = plain_header(file), video_header(file)
    assert (mine.codec, mine.size, mine.num_frames) == (theirs.codec, theirs.size, theirs.num_frames)
    assert mine.num_frames == video_info(file).num_frames and mine.fps == pytest.approx(theirs.fps)


@pytest.fixture
def video(tmp_path):
    encode_video(tmp_path / "a.mp4", np.zeros((7, 16, 24, 3), np.uint8), fps=10)
    assert plain_header(tmp_path / "a.mp4").num_frames == 7
    return tmp_path / "a.mp4"


def patched(video, kind, place, value):
    """Write `value` into the content of a box."""
    content = bytearray(video.read_bytes())
    start = content.index(kind) + 4 + place
    content[start : start + len(value)] = value
    video.write_bytes(content)
    return plain_header(video)


def test_what_is_not_plain_is_left_to_ffmpeg(video):
    content = video.read_bytes()
    for kind, place, value in [
        (b"elst", 8, bytes(3)),  # shows less than all
        (b"elst", 12, (2048).to_bytes(4, "big")),  # begins later
        (b"tkhd", 40, bytes(4)),  # turned
        (b"stsz", 8, (8).to_bytes(4, "big")),  # another number of frames than of times
        (b"stsd", 8 + 4, b"xxxx"),  # an unknown codec
    ]:
        video.write_bytes(content)
        assert patched(video, kind, place, value) is None, (kind, place)
    video.write_bytes(content[:-1])
    assert plain_header(video) is None
    video.write_bytes(b"no video")
    assert plain_header(video) is None
