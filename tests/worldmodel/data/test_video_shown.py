"""Videos as a player shows them: trimmed, turned, with odd sizes and odd times; the same from every decoder."""

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from patched_mp4 import MATRICES, set_edits, set_matrix

from worldmodel.data.video.decoders import DecordDecoder, PyAVDecoder, indexed, video_header, video_info
from worldmodel.data.video.read import VideoReader, read_frames
from worldmodel.data.video.write import write_video

LENGTH = 30
H264 = {"g": "12", "bf": "3", "crf": "5"}
H264_IN_ORDER = H264 | {"bf": "0"}
VP9 = {"g": "12", "crf": "8", "cpu-used": "8"}


def encode(path, *, size=(64, 96), encoder="libx264", options=H264, times=None, aspect=None, rotate=None):
    """A grey that counts frames by fives, with a red upper left and a blue lower left corner."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=10)
        stream.height, stream.width = size
        odd_h264 = encoder == "libx264" and (size[0] % 2 or size[1] % 2)
        stream.pix_fmt = "yuv444p" if odd_h264 else "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        stream.options = options
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotate:
            stream.metadata["rotate"] = str(rotate)
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(LENGTH):
            picture = np.full((*size, 3), 5 * index + 20, np.uint8)
            picture[:20, :20], picture[-20:, :20] = (250, 0, 0), (0, 0, 250)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def greys(frames):
    """The numbers of the frames, read from their greys."""
    height, width = frames.shape[1:3]
    return np.round((frames[:, height // 2, width // 2, 1].astype(int) - 20) / 5).astype(int).tolist()


def from_each_decoder(path, decoders=("pyav", "decord", None)):
    """Frames read forwards and in an unordered fashion; all decoders must agree."""
    info, found = video_info(path), []
    assert video_header(path).num_frames in (None, info.num_frames)
    assert video_header(path).size == info.size
    order = [*range(info.num_frames), *np.random.default_rng(0).permutation(info.num_frames).tolist()]
    for decoder in decoders:
        with VideoReader(path, decoder=decoder) as reader:
            frames = reader.read(order)
            assert (frames[: len(reader)][order[len(reader) :]] == frames[len(reader) :]).all()
        found.append(frames[: len(reader)])
    for other in found[1:]:
        assert np.abs(found[0].astype(int) - other).mean() < 1.5
    return found[0]


CORNERS = {  # red, blue, as row and column of a corner of the picture that is shown
    0: ((0, 0), (-1, 0)),
    90: ((0, -1), (0, 0)),
    180: ((-1, -1), (0, -1)),
    270: ((-1, 0), (-1, -1)),
    "mirrored": ((0, -1), (-1, -1)),
    "flipped": ((-1, 0), (0, 0)),
    "transposed": ((0, 0), (0, -1)),
    "anti-transposed": ((-1, -1), (-1, 0)),
}


def assert_corners(frame, turn):
    (red, blue), size = CORNERS[turn], frame.shape[:2]
    assert size == ((64, 96) if turn in (0, 180, "mirrored", "flipped") else (96, 64))
    assert frame[red].tolist() == pytest.approx([250, 0, 0], abs=12)
    assert frame[blue].tolist() == pytest.approx([0, 0, 250], abs=12)


@pytest.mark.parametrize("turn", CORNERS)
def test_a_display_matrix_turns_the_picture(tmp_path, turn):
    path = set_matrix(encode(tmp_path / "video.mp4"), turn)
    decoders = ("pyav", "decord", None) if turn in (0, 90, 180, 270) else ("pyav", None)
    frames = from_each_decoder(path, decoders)
    assert_corners(frames[0], turn)
    assert greys(frames) == list(range(LENGTH))


@pytest.mark.parametrize("turn", [90, 180, 270])
@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_rotate_tag_turns_the_picture(tmp_path, turn, suffix):
    encoder, options = ("libvpx-vp9", VP9) if suffix == "webm" else ("libx264", H264)
    path = encode(tmp_path / f"video.{suffix}", encoder=encoder, options=options, rotate=turn)
    assert_corners(from_each_decoder(path)[0], turn)


def test_the_matrix_of_other_containers_is_read_from_the_first_frame(tmp_path):
    path = tmp_path / "video.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.set_display_rotation(-90)  # counter-clockwise
        picture = np.full((64, 96, 3), 20, np.uint8)
        picture[:20, :20], picture[-20:, :20] = (250, 0, 0), (0, 0, 250)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert_corners(from_each_decoder(path)[0], 90)


def test_an_odd_angle_is_refused(tmp_path):
    path = set_matrix(encode(tmp_path / "video.mp4"), 45)
    with pytest.raises(ValueError, match=r"video\.mp4: display matrix is \(0\.707.*multiple of 90"):
        video_header(path)
    with pytest.raises(ValueError, match=r"rotate tag is '30', expected a multiple of 90"):
        video_info(encode(tmp_path / "tagged.mkv", rotate=30))


EDITS = {
    "start": [(8, 22)],
    "start at a keyframe": [(12, 18)],
    "end": [(0, 20)],
    "both ends": [(5, 20)],
    "pause": [(-1, 3), (0, 30)],
    "pause and start": [(-1, 3), (4, 20)],
    "two stretches": [(2, 10), (15, 10)],
    "the same twice": [(0, 10), (0, 10)],
}


@pytest.mark.parametrize("options", [H264, H264_IN_ORDER], ids=["B-frames", "in order"])
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_list_trims_the_video(tmp_path, name, options):
    path = set_edits(encode(tmp_path / "video.mp4", options=options), EDITS[name], 10)
    shown = [first + index for first, length in EDITS[name] if first >= 0 for index in range(length)]
    assert greys(from_each_decoder(path)) == shown
    info = video_info(path)
    assert info.trimmed == (shown != list(range(LENGTH)))
    assert info.seconds.tolist() == pytest.approx([index / 10 for index in range(len(shown))], abs=0.11)


def test_a_trimmed_video_may_be_turned(tmp_path):
    path = set_matrix(set_edits(encode(tmp_path / "video.mp4"), [(8, 22)], 10), 270)
    frames = from_each_decoder(path)
    assert_corners(frames[0], 270)
    assert greys(frames) == list(range(8, LENGTH))


@pytest.mark.parametrize("size", [(63, 95), (64, 95), (63, 96)])
@pytest.mark.parametrize("encoder", ["libx264", "libvpx-vp9", "mpeg4"])
def test_odd_sizes(tmp_path, size, encoder):
    options = {"libx264": H264, "libvpx-vp9": VP9}.get(encoder, {"b": "2000000"})
    frames = from_each_decoder(encode(tmp_path / "video.mp4", size=size, encoder=encoder, options=options))
    assert frames.shape == (LENGTH, *size, 3)
    assert greys(frames) == list(range(LENGTH))


UNEVEN = np.cumsum([20, 50, 150, 100, 30, 400] * 5).tolist()
LATE = [2500 + 100 * index for index in range(LENGTH)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "MOV"])
@pytest.mark.parametrize("times", [UNEVEN, LATE], ids=["variable frame rate", "late"])
def test_the_times_do_not_matter(tmp_path, suffix, times):
    path = encode(tmp_path / f"video.{suffix}", times=times)
    assert greys(from_each_decoder(path)) == list(range(LENGTH))
    assert video_info(path).seconds.tolist() == pytest.approx([(time - times[0]) / 1000 for time in times], abs=5e-3)


@pytest.mark.parametrize(("encoder", "options"), [("libx264", H264), ("libx264", H264_IN_ORDER), ("mjpeg", {})])
def test_avi_has_no_presentation_times(tmp_path, encoder, options):
    path = encode(tmp_path / "video.avi", encoder=encoder, options=options)
    assert greys(from_each_decoder(path)) == list(range(LENGTH))
    assert video_info(path).counted == (encoder != "mjpeg")


def test_pixels_that_are_no_squares_are_named_but_not_stretched(tmp_path):
    path = encode(tmp_path / "video.mp4", aspect=Fraction(2, 1))
    assert video_header(path).pixel_aspect == 2
    assert from_each_decoder(path).shape == (LENGTH, 64, 96, 3)


def test_decord_is_used_only_where_it_shows_what_a_player_shows(tmp_path):
    plain = encode(tmp_path / "plain.mp4")
    turned = set_matrix(encode(tmp_path / "turned.mp4"), 90)
    trimmed = set_edits(encode(tmp_path / "trimmed.mp4"), [(8, 22)], 10)
    kinds = [type(VideoReader(path).decoder) for path in (plain, turned, trimmed)]
    assert kinds == [DecordDecoder, PyAVDecoder, PyAVDecoder]
    mirrored = set_matrix(encode(tmp_path / "mirrored.mp4"), "mirrored")
    with pytest.raises(ValueError, match=r"mirrored\.mp4: decord does not show the first frame as a player"):
        VideoReader(mirrored, decoder="decord")
    assert_corners(read_frames(mirrored, [0])[0], "mirrored")


def test_a_header_tells_what_the_packets_tell(tmp_path):
    path = encode(tmp_path / "video.mp4")
    header, info = video_header(path), video_info(path)
    assert (header.codec, header.size, header.fps, header.num_frames) == ("h264", (64, 96), 10.0, LENGTH)
    assert (info.codec, info.size, info.fps, info.num_frames) == ("h264", (64, 96), 10.0, LENGTH)
    assert set(MATRICES) >= set(CORNERS)
    (tmp_path / "text.mp4").write_bytes(b"no video" * 99)
    with pytest.raises(ValueError, match=r"text\.mp4 is not a readable video"):
        video_header(tmp_path / "text.mp4")


def test_a_header_tells_that_the_file_is_cut_short(tmp_path):
    path = tmp_path / "video.mp4"
    write_video(path, np.zeros((40, 64, 64, 3), np.uint8), 10)  # its header comes first
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"video\.mp4 is cut short: .*its header says 40"):
        video_header(path)


def test_a_pyav_without_the_index_of_a_video_reads_its_packets(tmp_path):
    """As PyAV did before its version 17: what a stream is asked for is only the number of frames."""
    path, old = tmp_path / "video.mp4", SimpleNamespace(frames=40)
    write_video(path, np.zeros((40, 64, 64, 3), np.uint8), 10)
    with av.open(str(path)) as container:
        index = container.streams.video[0].index_entries
        known = [(entry.pos, entry.size, entry.is_discard) for entry in index]
    assert [(packet.pos, packet.size, packet.is_discard) for packet in indexed(path, old)] == known
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        ValueError, match=r"video\.mp4 is cut short: 3\d frames, its header says 40, or shows only a part"
    ):
        indexed(path, old)
