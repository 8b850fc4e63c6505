"""Swaps that are noticed, by hand."""

import pytest
import torch

from worldmodel.fidelity.cross_view.agreement import agreement, auroc

THREE = torch.tensor([0, 1, 2])
NAN = float("nan")


def codes_of(*cameras: list[list[float]]) -> torch.Tensor:
    """Of each camera the vectors of the windows, at one frame."""
    return torch.tensor(cameras).permute(1, 0, 2)[:, None]


AXES = torch.eye(3).tolist()


def test_cameras_that_fit_notice_every_swap():
    codes = codes_of(AXES, AXES)
    assert agreement(codes, THREE).tolist() == [[1.0], [1.0], [1.0]]
    assert auroc(codes, THREE).tolist() == [1.0]


def test_a_swapped_camera_is_worse_than_what_it_is_swapped_for():
    """Each window shows the second camera of the next one: one of two swaps is better, the other is equally bad."""
    codes = codes_of(AXES, AXES[1:] + AXES[:1])
    assert agreement(codes, THREE).tolist() == [[0.25], [0.25], [0.25]]
    assert auroc(codes, THREE).tolist() == [0.25]


def test_cameras_that_always_look_alike_are_at_chance():
    codes = codes_of([[1.0, 0.0]] * 3, [[1.0, 0.0]] * 3)
    assert agreement(codes, THREE).tolist() == [[0.5], [0.5], [0.5]]
    assert auroc(codes, THREE).tolist() == [0.5]


def test_windows_of_the_same_episode_are_no_swaps():
    """Windows 0 and 1 show each other's second camera."""
    codes = codes_of(AXES, [AXES[1], AXES[0], AXES[2]])
    together = torch.tensor([0, 0, 1])
    assert agreement(codes, together).tolist() == [[0.5], [0.5], [1.0]]
    assert agreement(codes, THREE).tolist() == [[0.25], [0.25], [1.0]]
    assert agreement(codes, torch.tensor([7, 7, 7])).isnan().all()
    assert auroc(codes, torch.tensor([7, 7, 7])).isnan().all()


def test_similarities_are_averaged_over_the_frames_so_far():
    """After a good and a bad frame the own similarity is 0.5, as that of one of two swaps; then a bad one follows."""
    good, bad = codes_of(AXES, AXES), codes_of(AXES, AXES[1:] + AXES[:1])
    found = agreement(torch.cat([good, bad, bad], dim=1), THREE)
    assert found.tolist() == [[1.0, 0.75, 0.5]] * 3
    assert auroc(torch.cat([good, bad], dim=1), THREE).tolist() == [1.0, 0.75]


def test_a_missing_camera_is_left_out():
    """Window 2 lacks its second camera: it has no score, and is no swap for the others."""
    codes = codes_of(AXES, [AXES[1], AXES[0], [NAN] * 3])
    # a held first camera has one foreign second one, which is better; a held second one has two: better, and equal
    assert agreement(codes, THREE)[:2].tolist() == [[0.125], [0.125]]
    assert agreement(codes, THREE)[2].isnan().all()
    assert auroc(codes, THREE).tolist() == [0.25]


def test_every_pair_of_cameras_counts():
    """A third camera that always looks alike is at chance with both others."""
    codes = codes_of(AXES, AXES, [[1.0, 1.0, 1.0]] * 3)
    assert agreement(codes, THREE).tolist() == [[pytest.approx((1 + 0.5 + 0.5) / 3)]] * 3


def test_one_threshold_for_all_is_stricter():
    """Every window fits better than its own swaps, but window 2 (0.1) fits worse than a swap of window 0 (0.5)."""
    codes = codes_of([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.1]], AXES)
    assert agreement(codes, THREE).tolist() == [[1.0], [1.0], [1.0]]
    assert auroc(codes, THREE).item() == pytest.approx(17 / 18)
