"""The shape of an object: neither its place nor its angle counts, and a blob, a mirror image or nothing is no match."""

import pytest
import torch

from worldmodel.fidelity.shapes import principal_spreads, shape_overlap, shape_scores


def letter(*bars: tuple[int, int, int, int], size: int = 64) -> torch.Tensor:
    """A mask of bars, each from row and column to row and column."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    for top, left, bottom, right in bars:
        mask[top:bottom, left:right] = True
    return mask


HOOK = letter((20, 20, 36, 24), (32, 24, 36, 32))  # an L, which is not its own mirror image
DISC = (torch.cartesian_prod(*[torch.arange(64.0)] * 2) - 31.5).norm(dim=1).view(64, 64) < 5.3


def test_place_and_angle_do_not_count():
    moved = HOOK.roll((11, -7), dims=(0, 1)).rot90()
    assert shape_overlap(HOOK[None], moved[None]).item() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(principal_spreads(HOOK[None]), principal_spreads(moved[None]), atol=1e-4)


def test_a_blob_and_a_mirror_image_overlap_less():
    overlap = shape_overlap(HOOK.expand(3, 64, 64), torch.stack([DISC, HOOK.flip(1), letter()]))
    assert 0.3 < overlap[0] < 0.7 and 0.4 < overlap[1] < 0.9 and overlap[2] == 0


def test_spreads_are_standard_deviations_in_px_of_64():
    bar = letter((30, 20, 32, 32))  # 2 x 12 px: variances 1 / 4 and 143 / 12
    assert principal_spreads(bar[None])[0].tolist() == pytest.approx([0.5, (143 / 12) ** 0.5], abs=1e-4)
    large = bar.repeat_interleave(2, 0).repeat_interleave(2, 1)  # the same bar in a picture of 128 px
    assert principal_spreads(large[None])[0, 1].item() == pytest.approx(12 / 12**0.5, abs=0.02)
    assert principal_spreads(letter()[None])[0].tolist() == [0, 0]


def test_a_missing_object_has_no_shape_and_an_occluded_one_is_not_measured():
    truth = torch.stack([HOOK, HOOK, letter((20, 20, 24, 24))])[None]
    dreamed = torch.stack([HOOK, letter((20, 20, 23, 23)), HOOK])[None]
    scores = shape_scores(truth, dreamed, usual_area=torch.tensor([96.0]))
    assert scores["overlap"][0, :2].tolist() == pytest.approx([1, 0], abs=1e-3)
    assert scores["spread_error_px"][0, 0] == 0 and scores["spread_error_px"][0, 1] > 1
    assert all(values[0, 2].isnan() for values in scores.values())
