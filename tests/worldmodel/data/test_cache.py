"""The decoded cache against its source, statistics by hand, and clips drawn evenly."""

import errno
import json
import os
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from small_sets import V21, V30, two_episodes_v30

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data import source as source_module
from worldmodel.data.cache import episodes as dataset
from worldmodel.data.cache import piece_frames
from worldmodel.data.clip import Clip
from worldmodel.data.sample import sample_clips
from worldmodel.data.source import fingerprint
from worldmodel.files import default_cache_folder
from worldmodel.training.statistics import action_state_statistics

FIELDS = ("frames", "actions", "states", "rewards", "successes", "pixel_mask")


def assert_equal(one: Clip, other: Clip):
    for name in FIELDS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None), name
        assert mine is None or torch.equal(mine, theirs), name


class CountingEpisodes(DrawnEpisodes):
    """Remembers what was read, and by which thread."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.reads = []

    def read(self, episode, start, stop, stride=1):
        self.reads.append((episode, start, stop))
        return super().read(episode, start, stop, stride)

    def columns(self, episode, stride=1):
        reads, self.reads = self.reads, []
        columns, self.reads = super().columns(episode, stride), reads
        return columns


@pytest.mark.parametrize("folder", [V21, V30])
@pytest.mark.parametrize("size", [None, (32, 48)])
def test_cache_gives_what_the_source_gives(folder, size, tmp_path):
    source = open_episodes(folder, size)
    cache = EpisodeCache(source, tmp_path)
    assert isinstance(cache, EpisodeSource)
    for name in ("name", "views", "fps", "lengths", "action_dim", "state_dim", "size"):
        assert getattr(cache, name) == getattr(source, name)
    assert (cache.robot_type, cache.fingerprint) == (source.robot_type, source.fingerprint)
    assert torch.equal(cache.pixel_mask, source.pixel_mask)
    assert (len(cache), cache.task(1)) == (len(source), source.task(1))
    assert cache.reset_seed(0) == source.reset_seed(0)
    last = len(source) - 1
    for episode, start, stop, stride in [(0, 0, 42, 1), (last, 3, 40, 4), (1, 66, 67, 1)]:
        assert_equal(cache.read(episode, start, stop, stride), source.read(episode, start, stop, stride))


def test_long_episodes_are_decoded_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "PIECE_FRAMES", 4)
    source = CountingEpisodes([9, 1, 4])
    cache = EpisodeCache(source, tmp_path)
    expected = [(0, 0, 4), (0, 4, 8), (0, 8, 9), (1, 0, 1), (2, 0, 4)]
    assert sorted(source.reads) == expected
    plain = DrawnEpisodes([9, 1, 4])
    for episode, length in enumerate(source.lengths):
        assert_equal(cache.read(episode, 0, length), plain.read(episode, 0, length))
    assert_equal(cache.read(0, 1, 9, 3), plain.read(0, 1, 9, 3))


def test_cache_is_built_once_and_again_when_the_source_or_the_size_changes(tmp_path):
    def open_cache(**options):
        source = CountingEpisodes([5, 6], **options)
        source.fingerprint = options.get("robot_type", "")
        cache = EpisodeCache(source, tmp_path)
        assert_equal(cache.read(1, 0, 6), source.read(1, 0, 6))
        return len(source.reads) - 1  # the comparison reads as well

    assert [open_cache(), open_cache()] == [2, 0]
    assert open_cache(size=(8, 8)) == 2
    assert open_cache() == 0
    assert open_cache(robot_type="other", grey=lambda episode, frame: 7 + frame) == 2
    assert open_cache(robot_type="other", grey=lambda episode, frame: 7 + frame) == 0
    assert len(list(tmp_path.glob("*/frames.npy"))) == 2


@pytest.mark.parametrize("size", [None, (32, 48)])
def test_some_cameras_in_another_order(size, tmp_path):
    whole = open_episodes(V30, size)
    first, second = whole.views
    swapped = EpisodeCache(open_episodes(V30, size, (second, first)), tmp_path)
    expected, got = whole.read(1, 3, 9, 2), swapped.read(1, 3, 9, 2)
    assert torch.equal(got.frames, expected.frames[:, [1, 0]])
    assert torch.equal(got.actions, expected.actions)
    assert torch.equal(swapped.pixel_mask, whole.pixel_mask[[1, 0]])
    alone = EpisodeCache(open_episodes(V30, size, (second,)), tmp_path)
    assert alone.views == (second,)
    native = whole.boxes[1].source
    assert alone.size == (size or native)
    frames = whole.boxes[1].fit  # what the whole set pads, the camera alone does not need
    if size is None:
        assert whole.size != native
        assert bool(alone.pixel_mask.all())
        assert torch.equal(frames(alone.read(0, 0, 4).frames[:, 0]), whole.read(0, 0, 4).frames[:, 1])
    assert len(list(tmp_path.glob("*/frames.npy"))) == 2


@pytest.mark.parametrize("views", [("side",), ("top", "top"), ()])
def test_cameras_that_are_not_there_or_named_twice_are_refused(views):
    with pytest.raises(ValueError, match=r"cameras .* were asked for.* has \['top', 'wrist'\]"):
        open_episodes(V30, None, views)


def test_a_change_in_one_file_rebuilds(tmp_path):
    folder = two_episodes_v30(tmp_path / "data")
    before = EpisodeCache(open_episodes(folder), tmp_path / "cache")
    info = json.loads((folder / "meta" / "info.json").read_text()) | {"robot_type": "other"}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    after = EpisodeCache(open_episodes(folder), tmp_path / "cache")
    assert before.folder == after.folder
    index = json.loads((after.folder / "index.json").read_text())
    assert index["fingerprint"] == after.fingerprint != before.fingerprint


def test_a_read_is_a_copy(tmp_path):
    cache = EpisodeCache(DrawnEpisodes([6]), tmp_path)
    expected = DrawnEpisodes([6]).read(0, 0, 6)
    clip = cache.read(0, 0, 6)
    for name in ("frames", "actions", "states"):
        getattr(clip, name).zero_()
    assert_equal(cache.read(0, 0, 6), expected)


def test_a_failed_or_killed_build_leaves_no_cache(tmp_path):
    class Broken(CountingEpisodes):
        def read(self, episode, start, stop, stride=1):
            if episode == 1:
                raise ValueError("broken.mp4: frame 3 cannot be decoded")
            return super().read(episode, start, stop, stride)

    with pytest.raises(ValueError, match=r"broken\.mp4"):
        EpisodeCache(Broken([3, 4] + [5] * 20), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix != ".lock"]
    source = DrawnEpisodes([3, 4])
    cache = EpisodeCache(source, tmp_path)
    leftover = cache.folder.with_name(f"{cache.folder.name}.building")
    cache.folder.rename(leftover)
    assert_equal(EpisodeCache(source, tmp_path).read(1, 0, 4), source.read(1, 0, 4))
    assert not leftover.exists()


def test_only_one_of_several_builds(tmp_path):
    class Slow(CountingEpisodes):
        def read(self, episode, start, stop, stride=1):
            time.sleep(0.02)
            return super().read(episode, start, stop, stride)

    sources = [Slow([4, 4]) for _ in range(3)]
    threads = [threading.Thread(target=EpisodeCache, args=(each, tmp_path)) for each in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(each.reads) for each in sources) == [0, 0, 2]


def test_default_folder_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDMODEL_CACHE", str(tmp_path / "here"))
    cache = EpisodeCache(DrawnEpisodes([2]))
    assert cache.folder.parent == tmp_path / "here"
    monkeypatch.delenv("WORLDMODEL_CACHE")
    assert default_cache_folder().parts[-2:] == (".cache", "worldmodel")


def test_cache_refuses_ranges_outside_an_episode(tmp_path):
    cache = EpisodeCache(DrawnEpisodes([5, 3]), tmp_path)
    for episode, start, stop, stride in [(1, 0, 4, 1), (0, 3, 3, 1), (0, -1, 2, 1), (0, 0, 5, 0)]:
        with pytest.raises(ValueError, match=f"drawn: episode {episode}, frames {start}:{stop}"):
            cache.read(episode, start, stop, stride)
    for episode in (-1, 2):
        for call in (cache.task, cache.reset_seed, lambda e: cache.read(e, 0, 1)):
            with pytest.raises(ValueError, match=f"episode {episode} is not within 0..1"):
                call(episode)


def test_reads_are_quick(tmp_path):
    """A batch of eight clips takes at most 24 ms; a training step on a CPU takes a second."""
    cache = EpisodeCache(DrawnEpisodes([120] * 4, size=(64, 64)), tmp_path)
    times = []
    for start in range(60):
        before = time.thread_time()  # not the neighbours' time
        cache.read(start % 4, start, start + 16)
        times.append(time.thread_time() - before)
    assert np.median(times) < 3e-3


def test_statistics_of_chunks_relative_to_the_state():
    # States are (frame, episode), actions frame / 10 + episode in both dims.
    source = DrawnEpisodes([5, 7])
    found = action_state_statistics(source, relative_to={1: 0}, stride=2)
    absolute = np.array([0, 0.2, 1.0, 1.2, 1.4])  # first of each chunk, dim 0
    relative = absolute - [0, 2, 0, 2, 4]
    chunks = np.stack([absolute, relative, absolute + 0.1, relative + 0.1], axis=1)
    for name, value in {
        "low": chunks.min(0),
        "high": chunks.max(0),
        "mean": chunks.mean(0),
        "std": chunks.std(0),
        "q01": np.quantile(chunks, 0.01, axis=0),
        "q99": np.quantile(chunks, 0.99, axis=0),
    }.items():
        np.testing.assert_allclose(getattr(found.action, name), value, atol=1e-6)
    states = np.array([[0, 0], [2, 0], [4, 0], [0, 1], [2, 1], [4, 1], [6, 1]])
    np.testing.assert_allclose(found.state.mean, states.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.displacement.mean, [2, 0])
    np.testing.assert_allclose(found.displacement.std, [0, 0], atol=1e-6)


def test_statistics_of_chosen_episodes_of_a_real_set(tmp_path):
    source = open_episodes(V21)
    found = action_state_statistics(source, episodes=[1, 3])
    actions = torch.cat([source.read(e, 0, source.lengths[e]).actions for e in (1, 3)]).double()
    torch.testing.assert_close(found.action.mean.double(), actions.mean(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.action.high.double(), actions.amax(0))
    with pytest.raises(ValueError, match="no episode has 101 frames"):
        action_state_statistics(source, stride=100)


def test_windows_are_drawn_evenly_over_all_episodes():
    # Spans of 3 frames: 1 window in the first episode, none in the second, 4 in the last.
    source = DrawnEpisodes([3, 2, 9, 6])
    drawn = Counter()
    for index in range(100):
        clip = sample_clips(source, batch=20, length=2, stride=2, seed=3, index=index, episodes=[0, 1, 3])
        assert clip.frames.shape == (20, 2, 2, 16, 16, 3)
        assert clip.actions.shape == (20, 1, 4)
        drawn.update((int(e), int(f)) for f, e in clip.states[:, 0].tolist())
        assert (clip.states[:, 1, 0] == clip.states[:, 0, 0] + 2).all()
    assert set(drawn) == {(0, 0), (3, 0), (3, 1), (3, 2), (3, 3)}
    assert all(abs(count - 400) < 80 for count in drawn.values())


def test_the_first_frame_of_a_clip_with_a_gap_lies_far_before_the_others():
    source = DrawnEpisodes([20])
    clip = sample_clips(source, batch=9, length=3, stride=2, gap=4, seed=0, index=0, episodes=[0])
    frames = clip.states[..., 0]
    assert torch.equal(frames - frames[:, :1], torch.tensor([[0.0, 8.0, 10.0]]).expand(9, 3))
    assert clip.frames.shape[:2] == (9, 3)
    assert clip.actions.shape == (9, 2, 4)


def test_a_batch_is_a_function_of_seed_and_index():
    source = DrawnEpisodes([30, 40])
    options = {"batch": 6, "length": 3, "stride": 1, "episodes": [0, 1]}
    batches = {key: sample_clips(source, seed=key[0], index=key[1], **options) for key in [(0, 0), (0, 1), (1, 0)]}
    for key, batch in batches.items():
        assert_equal(batch, sample_clips(source, seed=key[0], index=key[1], **options))
    for one, other in pairwise(batches.values()):
        assert not torch.equal(one.states, other.states)


def test_clips_of_the_cache_are_those_of_the_source(tmp_path):
    source = open_episodes(V30, (24, 24))
    options = {"batch": 3, "length": 4, "stride": 2, "seed": 5, "index": 7, "episodes": [2, 6]}
    assert_equal(sample_clips(EpisodeCache(source, tmp_path), **options), sample_clips(source, **options))


def test_too_short_episodes_are_refused():
    options = {"batch": 2, "stride": 2, "seed": 0, "index": 0}
    with pytest.raises(ValueError, match="the longest episode has 8 frames, need 9"):
        sample_clips(DrawnEpisodes([5, 8]), length=5, episodes=[0, 1], **options)
    with pytest.raises(ValueError, match="the longest episode has 0 frames, need 9"):
        sample_clips(DrawnEpisodes([5, 8]), length=5, episodes=[], **options)


def test_a_file_is_hashed_again_only_when_its_size_or_time_of_change_differs(tmp_path, monkeypatch):
    hashed = []
    monkeypatch.setenv("WORLDMODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(source_module, "_content_hash", lambda path: hashed.append(path.name) or path.read_text())
    folder = tmp_path / "set"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(name)
    first = fingerprint(folder, folder.iterdir())
    assert (hashed, fingerprint(folder, folder.iterdir())) == (["a", "b"], first)
    assert hashed == ["a", "b"]
    (folder / "a").write_text("longer")
    assert fingerprint(folder, folder.iterdir()) != first
    os.utime(folder / "b", (1, 1))
    fingerprint(folder, folder.iterdir())
    assert hashed == ["a", "b", "a", "b"]
    next((tmp_path / "cache" / "digests").iterdir()).write_text("{damaged")
    fingerprint(folder, folder.iterdir())
    assert hashed == ["a", "b"] * 3


def test_a_cache_that_does_not_fit_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * 2 * 16 * 16 * 3 - 1))
    source = CountingEpisodes([5])
    with pytest.raises(ValueError, match=r"frames\.npy.*MB are free.*WORLDMODEL_CACHE"):
        EpisodeCache(source, tmp_path)
    assert source.reads == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_disk_that_fills_up_is_an_error_and_leaves_no_half_cache(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    source = CountingEpisodes([5])
    for function in ("posix_fallocate", "pwrite"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(ValueError, match="No space left"):
                EpisodeCache(source, tmp_path)
        assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert_equal(EpisodeCache(source, tmp_path).read(0, 0, 5), source.read(0, 0, 5))


def test_large_pictures_are_decoded_in_smaller_pieces():
    assert piece_frames(DrawnEpisodes([5])) == 128
    assert piece_frames(DrawnEpisodes([5], size=(480, 640))) == 36
    assert piece_frames(DrawnEpisodes([5], size=(9000, 9000))) == 1


def test_columns_are_what_read_gives_without_pictures(tmp_path):
    source = open_episodes(V30)
    cache = EpisodeCache(source, tmp_path)
    for stride in (1, 4):
        whole = source.read(1, 0, source.lengths[1], stride)
        for found in (source.columns(1, stride), cache.columns(1, stride)):
            assert found.frames.shape == (len(whole.frames), 0, 0, 0, 3)
            assert_equal(replace(found, frames=whole.frames, pixel_mask=whole.pixel_mask), whole)


def test_other_columns_of_the_same_frames_are_not_those_of_before(tmp_path):
    """The same files may be opened with other actions; the frames are decoded once."""
    EpisodeCache(DrawnEpisodes([5, 6]), tmp_path)
    other = CountingEpisodes([5, 6], action=lambda episode, frame: 7.0 + frame)
    cache = EpisodeCache(other, tmp_path)
    assert other.reads == []
    assert_equal(cache.read(1, 1, 5), other.read(1, 1, 5))


def test_a_cache_of_an_older_kind_is_made_again(tmp_path, monkeypatch):
    source = CountingEpisodes([5])
    EpisodeCache(source, tmp_path)
    monkeypatch.setattr(dataset, "FORMAT", dataset.FORMAT + 1)
    EpisodeCache(source, tmp_path)
    assert source.reads == [(0, 0, 5)] * 2
