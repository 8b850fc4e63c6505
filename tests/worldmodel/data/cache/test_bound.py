"""The same frames whatever the bound on the decoded ones, and never more bytes on the disk."""

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from small_sets import V21

from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.data.cache import pieces
from worldmodel.data.sample import sample_clips


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_FRAMES", 4)


def stored(folder: Path) -> int:
    """Bytes of frames in a cache folder."""
    names = (Path(at, name) for at, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_size for file in names if file.suffix not in (".json", ".lock"))


class Counting(DrawnEpisodes):
    """Remembers which frames were decoded."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.reads = []

    def read(self, episode, start, stop, stride=1):
        self.reads.append((episode, start, stop))
        return super().read(episode, start, stop, stride)


def size(source) -> int:
    """Bytes of all its frames."""
    return sum(source.lengths) * len(source.views) * source.size[0] * source.size[1] * 3


@pytest.mark.parametrize("share", [0.1, 0.01, 0.0])
def test_batches_are_the_same_with_a_cache_of_a_tenth_of_the_data(share, tmp_path):
    source = open_episodes(V21)
    bound = share * size(source)
    whole, part = EpisodeCache(source, tmp_path / "whole"), EpisodeCache(source, tmp_path / "part", bound / 1e9)
    for index in range(6):
        how = {"batch": 4, "length": 6, "stride": 2, "seed": 1, "index": index, "episodes": range(5), "gap": 3}
        batches = [sample_clips(each, **how) for each in (source, whole, part)]
        for one, other in pairwise(batches):
            assert torch.equal(one.frames, other.frames) and torch.equal(one.actions, other.actions)
            assert torch.equal(one.states, other.states)
    assert stored(tmp_path / "part") <= bound
    assert (stored(tmp_path / "part") > 0) == (share > 0.05)


def test_every_frame_is_its_own(tmp_path):
    source = DrawnEpisodes([9, 1, 14])
    cache = EpisodeCache(source, tmp_path, size(source) / 2e9)
    for _ in range(2):
        for episode, length in enumerate(source.lengths):
            for start, stop, stride in ((0, length, 1), (length // 2, length, 3), (length - 1, length, 1)):
                mine, other = (each.read(episode, start, stop, stride) for each in (cache, source))
                assert torch.equal(mine.frames, other.frames) and torch.equal(mine.actions, other.actions)


def test_the_least_recently_read_piece_goes(tmp_path, monkeypatch):
    source = Counting([16, 4])
    monkeypatch.setattr(pieces, "WAYS", 2)
    cache = EpisodeCache(source, tmp_path, 2 * size(Counting([4])) / 1e9)
    source.reads.clear()
    for start in (0, 4, 0, 8):
        cache.read(0, start, start + 2)
    assert source.reads == [(0, 0, 4), (0, 4, 8), (0, 8, 12)]
    cache.read(0, 1, 3)
    assert len(source.reads) == 3  # the first piece was read again after the second one, which has gone
    cache.read(0, 4, 5)
    assert source.reads[3:] == [(0, 4, 8)]


def test_a_damaged_piece_is_decoded_again(tmp_path):
    source = DrawnEpisodes([8])
    cache = EpisodeCache(source, tmp_path, size(DrawnEpisodes([4])) / 1e9)
    cache.read(0, 0, 4)
    (piece,) = cache._frames.folder.glob("*/0-0")
    piece.write_bytes(piece.read_bytes()[:-1])
    assert torch.equal(cache.read(0, 0, 4).frames, source.read(0, 0, 4).frames)


def test_pieces_of_other_data_are_removed(tmp_path):
    bound = size(DrawnEpisodes([4])) / 1e9
    EpisodeCache(DrawnEpisodes([8]), tmp_path, bound).read(0, 0, 4)
    changed = DrawnEpisodes([8])
    changed.fingerprint = "another"
    cache = EpisodeCache(changed, tmp_path, bound)
    assert not list(cache._frames.folder.glob("*/0-0"))


def test_caches_that_nobody_uses_make_room(tmp_path):
    first, second, third = (DrawnEpisodes([length]) for length in (5, 6, 7))
    for number, source in enumerate((first, second, third)):
        source.name = f"set-{number}"
    kept = EpisodeCache(first, tmp_path)
    removed = EpisodeCache(second, tmp_path).folder
    bound = (size(first) + size(third)) / 1e9
    EpisodeCache(third, tmp_path, bound)
    assert kept.folder.is_dir() and not removed.is_dir()
    headers = stored(tmp_path) - size(first) - size(third)
    assert 0 < headers <= 256


def test_threads_share_the_pieces(tmp_path):
    source = DrawnEpisodes([40, 40])
    cache = EpisodeCache(source, tmp_path, size(source) / 4e9)

    def same(number: int) -> bool:
        start = number * 7 % 36
        mine, other = (each.read(number % 2, start, start + 4) for each in (cache, source))
        return torch.equal(mine.frames, other.frames)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(same, range(60)))
    assert stored(tmp_path) <= size(source) / 4 and not list(tmp_path.rglob("*.part"))
