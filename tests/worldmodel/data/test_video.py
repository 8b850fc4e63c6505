"""Videos: the same frame for the same index from both decoders, and errors that name the file."""

import os
import signal

import av
import numpy as np
import pytest
from PIL import Image

from worldmodel.data.video.read import (
    MAX_OPEN_READERS,
    DecordDecoder,
    PyAVDecoder,
    VideoReader,
    _open,
    count_frames,
    read_frames,
    release_readers,
    video_info,
)
from worldmodel.data.video.write import write_video


def drawn_frames(length, height, width):
    """A square that moves right, its brightness counting frames."""
    frames = np.full((length, height, width, 3), 200, np.uint8)
    for index in range(length):
        frames[index, 8:16, index : index + 8] = (0, index * 4, 128)
    return frames


def encode(path, frames, encoder, pixel_format="yuv420p", **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.options = options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("encoder", "codec", "options"),
    [
        ("libx264", "h264", {"crf": "10", "bf": "3", "g": "12"}),
        ("libx265", "hevc", {"crf": "10", "x265-params": "log-level=none:keyint=12:open-gop=0"}),
        ("libvpx-vp9", "vp9", {"crf": "10", "g": "12", "cpu-used": "8"}),
    ],
)
def test_both_decoders_give_the_same_frame_for_the_same_index(tmp_path, encoder, codec, options):
    frames = drawn_frames(30, 64, 64)
    path = tmp_path / "video.mp4"
    encode(path, frames, encoder, **options)
    info = video_info(path)
    assert (info.codec, info.size, info.fps, info.num_frames) == (codec, (64, 64), 10.0, 30)
    indices = [0, 29, 5, 6, 7, 5, 28, 13]
    found = []
    for decoder in ("decord", "pyav"):
        with VideoReader(path, decoder=decoder) as reader:
            found.append(reader.read(indices).astype(int))
    assert np.abs(found[0] - found[1]).max() <= 2
    green = [picture[11, index + 4, 1] for picture, index in zip(found[1], indices, strict=True)]
    assert np.abs(np.array(green) - 4 * np.array(indices)).max() <= 5
    assert info.closed
    assert isinstance(VideoReader(path).decoder, DecordDecoder)


def test_av1_is_read_through_pyav(tmp_path):
    path = tmp_path / "video.mp4"
    frames = drawn_frames(20, 64, 64)
    encode(path, frames, "libsvtav1", crf="20", g="2", preset="12")
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # as root this encoder takes real-time priority
    with VideoReader(path) as reader:
        assert (type(reader.decoder), reader.info.codec, len(reader)) == (PyAVDecoder, "av1", 20)
        found = reader.read([19, 3, 3])
        assert reader.read([]).shape == (0, 64, 64, 3)
    assert np.abs(found[:, 11, [23, 7, 7], 1].diagonal().astype(int) - [76, 12, 12]).max() <= 10


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("libx265", {"crf": "10", "x265-params": "log-level=none:keyint=12:open-gop=1"}),
        ("libx264", {"crf": "10", "x264-params": "keyint=12:open-gop=1:bframes=3:scenecut=0"}),
    ],
)
def test_streams_that_decord_seeks_wrongly_are_left_to_pyav(tmp_path, encoder, options):
    path = tmp_path / "video.mp4"
    frames = drawn_frames(40, 64, 64)
    encode(path, frames, encoder, **options)
    assert not video_info(path).closed
    with VideoReader(path) as reader:
        assert isinstance(reader.decoder, PyAVDecoder)
        in_order = reader.read(range(40))
        for index in (0, 39, 11, 13, 12, 24, 23):
            assert (reader.read([index])[0] == in_order[index]).all()
    green = in_order[range(40), 11, np.arange(40) + 4, 1].astype(int)
    assert np.abs(green - 4 * np.arange(40)).max() <= 5


def test_more_than_eight_bits_are_left_to_pyav(tmp_path):
    path = tmp_path / "video.mp4"
    frames = drawn_frames(12, 64, 64)
    encode(path, frames, "libx264", pixel_format="yuv420p10le", crf="5")
    with VideoReader(path) as reader:
        assert isinstance(reader.decoder, PyAVDecoder)
        green = reader.read(range(12))[range(12), 11, np.arange(12) + 4, 1].astype(int)
    assert np.abs(green - 4 * np.arange(12)).max() <= 5


def test_a_stream_that_cannot_be_entered_is_decoded_from_its_beginning(tmp_path):
    path = tmp_path / "video.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
    encode(path, frames, "libx264", crf="20", g="10", **{"x264-params": "intra-refresh=1"})
    with VideoReader(path) as reader:
        in_order = reader.read(range(30))
        for index in (29, 12, 20, 10):
            assert (reader.read([index])[0] == in_order[index]).all()
        assert isinstance(reader.decoder, PyAVDecoder)


@pytest.mark.parametrize("decoder", ["decord", "pyav", None])
def test_flipped_bits_are_reported_and_spare_the_other_frames(tmp_path, decoder):
    path = tmp_path / "video.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    encode(path, noise, "libx264", crf="10", g="2", bf="0")
    with VideoReader(path, decoder=decoder) as reader:
        whole = reader.read(range(20))
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    for offset in range(0, 60, 7):
        content[middle + offset] ^= 0xA5
    path.write_bytes(content)
    with VideoReader(path, decoder=decoder) as reader:
        with pytest.raises(ValueError, match=r"video\.mp4: frame \d+ of 20 .* cannot be decoded"):
            reader.read(range(20))
        assert (reader.read([0, 1, 19]) == whole[[0, 1, 19]]).all()


def test_videos_for_people_have_even_sizes_and_fractional_rates(tmp_path):
    path = tmp_path / "folder" / "video.mp4"
    frames = drawn_frames(12, 33, 47)
    write_video(path, frames, 2.5)
    info = video_info(path)
    assert (info.size, info.fps, count_frames(path)) == ((34, 48), 2.5, 12)
    difference = read_frames(path, range(12))[:, :33, :47].astype(float) - frames
    assert np.abs(difference).mean() < 4
    with pytest.raises(ValueError, match="0 frames at 10"):
        write_video(path, frames[:0], 10)


def test_a_film_for_a_readme_is_an_endless_webp(tmp_path):
    path = tmp_path / "film.webp"
    frames = drawn_frames(12, 33, 47)
    write_video(path, frames, 2.5)
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (12, (47, 33), 0)
        film.seek(11)
        film.load()
        assert film.info["duration"] == 400
        assert np.abs(np.asarray(film.convert("RGB")).astype(float) - frames[11]).mean() < 6
    with pytest.raises(ValueError, match=r"film\.gif: ends in '\.gif', a video is written as one of \.mp4, \.webp"):
        write_video(tmp_path / "film.gif", frames, 2.5)


def test_open_readers_are_bounded_and_released(tmp_path):
    release_readers()
    frames = drawn_frames(3, 32, 32)
    for index in range(MAX_OPEN_READERS + 2):
        path = tmp_path / f"{index}.mp4"
        write_video(path, frames, 10)
        assert read_frames(path, [2, 1]).shape == (2, 32, 32, 3)
    assert len(_open.readers) == MAX_OPEN_READERS
    release_readers()
    assert not _open.readers


def test_a_replaced_file_is_read_anew(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, np.zeros((4, 32, 32, 3), np.uint8), 10)
    assert read_frames(path, [3]).max() <= 2
    write_video(path, np.full((6, 32, 32, 3), 255, np.uint8), 10)
    assert read_frames(path, [5]).min() >= 253


def test_errors_name_the_file_the_frame_and_both_values(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, drawn_frames(9, 32, 32), 10)
    with pytest.raises(ValueError, match=r"video\.mp4: frame index=9, the video has 9 frames"):
        read_frames(path, [0, 9])
    with pytest.raises(ValueError, match="frame index=-1"):
        read_frames(path, [-1])
    with pytest.raises(ValueError, match=r"missing\.mp4 is not a readable video"):
        read_frames(tmp_path / "missing.mp4", [0])
    text = tmp_path / "text.mp4"
    text.write_bytes(b"not a video at all" * 50)
    with pytest.raises(ValueError, match=r"text\.mp4 is not a readable video"):
        read_frames(text, [0])


def test_a_cut_file_is_reported(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, drawn_frames(40, 64, 64), 10)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ValueError, match=r"video\.mp4 is cut short: \d+ frames, .* says 40"):
        read_frames(path, [0])


def test_a_file_without_video_is_reported(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="no video stream"):
        video_info(path)


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_damaged_bytes_give_frames_or_a_value_error(tmp_path, decoder):
    path = tmp_path / "video.mp4"
    write_video(path, drawn_frames(40, 64, 64), 10)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(20):
        damaged = whole.copy()
        for place in rng.integers(0, len(whole), 30):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            with VideoReader(path, decoder=decoder) as reader:
                assert reader.read(range(len(reader))).shape == (len(reader), *reader.info.size, 3)
        except ValueError as error:
            assert "video.mp4" in str(error)


def test_a_forked_process_leaves_the_videos_of_its_parent_alone(tmp_path):
    """Decoding threads are not forked: to close such a video would end the process, or never return."""
    file = tmp_path / "video.mp4"
    write_video(file, np.zeros((4, 16, 16, 3), np.uint8), 10)
    read_frames(file, [0])
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        release_readers()
        os._exit(0 if read_frames(file, [1]).shape == (1, 16, 16, 3) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert read_frames(file, [2]).shape == (1, 16, 16, 3)
