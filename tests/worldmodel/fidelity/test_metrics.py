import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import alexnet

from worldmodel.fidelity.intervals import bootstrap_interval, expanded_tail
from worldmodel.fidelity.metrics import Lpips, change_mask, masked_psnr, ssim, valid_region
from worldmodel.model.psnr import psnr


def grey(value: int, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.full((height, width, 3), value, dtype=torch.uint8)


def test_psnr_of_a_constant_offset() -> None:
    # (51 / 255)^2 = 0.04 -> 13.979 dB; identical frames end at the floor of 1e-5 -> 50 dB
    truth = torch.stack([grey(100), grey(100)])
    prediction = torch.stack([grey(151), grey(100)])
    np.testing.assert_allclose(psnr(prediction, truth), [-10 * math.log10(0.04), 50.0], rtol=1e-6)


def test_psnr_keeps_the_leading_axes() -> None:
    frames = torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8)
    assert psnr(frames, frames).shape == (2, 3)
    assert psnr(frames[0, 0], frames[0, 0]).shape == ()


def test_ssim_of_constant_pictures_is_the_luminance_term() -> None:
    # without structure only (2 m n + C1) / (m^2 + n^2 + C1) is left, C1 = 0.01^2
    m, n = 51 / 255, 102 / 255
    expected = (2 * m * n + 1e-4) / (m * m + n * n + 1e-4)
    prediction = torch.stack([grey(51), grey(102)])[None]
    truth = torch.stack([grey(102), grey(102)])[None]
    np.testing.assert_allclose(ssim(prediction, truth), [[expected, 1.0]], atol=5e-4)


def test_valid_region_is_the_rectangle_without_padding() -> None:
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[1:5, :] = True
    assert valid_region(mask) == (slice(1, 5), slice(0, 8))
    mask[2, 3] = False
    with pytest.raises(ValueError, match="31 valid pixels in 4 rows and 8 columns"):
        valid_region(mask)
    with pytest.raises(ValueError, match="0 valid pixels"):
        valid_region(torch.zeros(2, 2, dtype=torch.bool))


def test_change_mask_is_the_dilated_union_of_truth_and_predictions() -> None:
    context, truth, first, second = (grey(100, 9, 9) for _ in range(4))
    truth[1, 1, 0] = 126  # 26 / 255 > 0.1
    first[7, 7, 2] = 74
    second[4, 4] = 125  # 25 / 255 < 0.1: no change
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[0:3, 0:3] = True
    expected[6:9, 6:9] = True
    mask = change_mask(truth, {"first": first, "second": second}, context)
    assert torch.equal(mask, expected)


def test_masked_psnr_charges_both_models_on_the_same_pixels() -> None:
    context = grey(100, 9, 9)
    truth, still, wrong = context.clone(), context.clone(), context.clone()
    truth[1, 1] = 151
    wrong[1, 1] = 151
    wrong[7, 7] = 151
    values = masked_psnr(truth, {"still": still, "wrong": wrong}, context)
    # 18 pixels in the mask, one of them off by 0.2 in each prediction
    expected = -10 * math.log10(0.04 / 18)
    assert float(values["still"]) == pytest.approx(expected, rel=1e-5)
    assert float(values["wrong"]) == pytest.approx(expected, rel=1e-5)
    alone = masked_psnr(truth, {"still": still}, context)["still"]
    assert float(alone) == pytest.approx(-10 * math.log10(0.04 / 9), rel=1e-5)


def test_masked_psnr_is_nan_where_nothing_changed() -> None:
    frames = torch.stack([grey(100), grey(100)])
    changed = torch.stack([grey(100), grey(151)])
    values = masked_psnr(changed, {"still": frames}, frames)["still"]
    assert math.isnan(values[0])
    assert float(values[1]) == pytest.approx(13.9794, rel=1e-4)


def test_lpips_is_refused_with_the_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    reason = Lpips.missing_reason()
    assert str(tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth") in reason
    assert "download https://" in reason
    with pytest.raises(ValueError, match="trunk is missing"):
        Lpips()


def test_lpips_with_a_trunk_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    Lpips.trunk_path().parent.mkdir(parents=True)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet(weights=None).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    weights = {  # the classifier is never used: one number, seen from everywhere
        name: torch.randn(shape, generator=generator) * 0.05
        if name.startswith("features")
        else torch.zeros(()).expand(shape)
        for name, shape in shapes.items()
    }
    torch.save(weights, Lpips.trunk_path())
    assert Lpips.missing_reason() is None
    lpips = Lpips()
    noise = torch.randint(0, 256, (2, 1, 31, 40, 3), generator=generator, dtype=torch.uint8)
    np.testing.assert_array_equal(lpips(noise, noise), np.zeros((2, 1)))
    assert (lpips(noise, noise.flip(0)) > 0).all()
    with pytest.raises(ValueError, match="31 pixels a side, the frames are 16x16"):
        lpips(grey(0), grey(0))


def test_bootstrap_interval_resamples_groups() -> None:
    # windows of a group are alike: by themselves they would seem twice as sure
    values = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0], 2)
    low, high = bootstrap_interval(values, np.arange(5).repeat(2))
    assert low == pytest.approx(0.4, abs=0.21) and high == pytest.approx(3.6, abs=0.21)
    assert bootstrap_interval(values, np.arange(10))[0] > low + 0.2
    assert bootstrap_interval(values, np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 3])) is None


def test_tails_are_moved_out_where_groups_are_few() -> None:
    # Student's t of 4 degrees of freedom is 2.776, times sqrt(5 / 4) 3.104 standard deviations
    assert expanded_tail(5, 0.95) == pytest.approx(0.000955, rel=1e-2)
    assert expanded_tail(1000, 0.95) == pytest.approx(0.025, rel=0.02)
    assert expanded_tail(5, 0.8) > expanded_tail(5, 0.95)


def test_bootstrap_interval_narrows_like_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(values, np.arange(400))
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
