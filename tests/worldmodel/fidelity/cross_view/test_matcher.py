"""The network that describes pictures of several cameras."""

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from matching import grey_episodes, twin_matcher

from worldmodel.fidelity.cross_view.matcher import CrossViewMatcher, MatcherConfig, shrunk, with_places

SETTINGS = MatcherConfig(("top", "wrist"), (16, 24), ((2, 14, 0, 24), (0, 16, 4, 20)))


def untrained(config: MatcherConfig = SETTINGS) -> CrossViewMatcher:
    torch.manual_seed(0)
    return CrossViewMatcher(config).eval()


def noise(batch: int = 2, frames: int = 3, size=(16, 24)) -> torch.Tensor:
    shape = (batch, frames, 2, *size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_codes_have_length_one_and_a_missing_camera_has_none():
    mask = torch.tensor([[True, True], [True, False]])
    codes = untrained().codes(noise(), mask)
    assert codes.shape == (2, 3, 2, 32)
    torch.testing.assert_close(codes[0].norm(dim=-1), torch.ones(3, 2))
    assert codes[1, :, 0].isfinite().all() and codes[1, :, 1].isnan().all()


def test_many_frames_are_described_piece_by_piece(monkeypatch):
    whole = untrained().codes(noise())
    monkeypatch.setattr("worldmodel.fidelity.cross_view.matcher.PIECE", 4)
    torch.testing.assert_close(untrained().codes(noise()), whole)


def test_letterbox_padding_is_not_looked_at():
    frames, matcher = noise(), untrained()
    padded = frames.clone()
    padded[:, :, 0, :2] = 0
    padded[:, :, 0, 14:] = 255
    padded[:, :, 1, :, :4] = 9
    padded[:, :, 1, :, 20:] = 9
    assert torch.equal(matcher.codes(frames), matcher.codes(padded))
    padded[:, :, 1, :, 19] = 0
    assert not torch.equal(matcher.codes(frames)[:, :, 1], matcher.codes(padded)[:, :, 1])


@pytest.mark.parametrize(("size", "small"), [((16, 24), (16, 24)), ((64, 64), (64, 64)), ((130, 256), (33, 64))])
def test_large_pictures_are_made_smaller(size, small):
    assert shrunk(torch.zeros(1, 3, *size)).shape[2:] == small


def test_every_pixel_knows_its_row_and_column():
    found = with_places(torch.zeros(2, 3, 3, 5))
    assert found.shape == (2, 5, 3, 5)
    assert found[1, 3, :, 0].tolist() == [-1.0, 0.0, 1.0]
    assert found[1, 4, 0].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_a_saved_matcher_is_the_same(tmp_path):
    matcher = twin_matcher()
    matcher.save(tmp_path)
    loaded = CrossViewMatcher.load(tmp_path)
    frames = noise(size=(16, 16))
    assert torch.equal(loaded.codes(frames), matcher.codes(frames))
    assert loaded.config == matcher.config
    assert loaded.train_data == matcher.train_data and loaded.train_data[0]["fingerprint"] == "other"


def test_data_of_another_kind_is_refused():
    mask = torch.ones(2, 16, 16, dtype=torch.bool)
    mask[:, :2] = False
    matcher = twin_matcher()
    matcher.check(grey_episodes())
    for source, words in (
        (DrawnEpisodes([9], views=("top", "side")), r"views is \('top', 'side'\), the cross-view matcher has"),
        (DrawnEpisodes([9], size=(16, 24)), r"size is \(16, 24\)"),
        (DrawnEpisodes([9], pixel_mask=mask), r"regions is \(\(2, 16, 0, 16\)"),
    ):
        with pytest.raises(ValueError, match=words):
            matcher.check(source)
    assert MatcherConfig.of(DrawnEpisodes([9], pixel_mask=mask)).regions[1] == (2, 16, 0, 16)
