import math

import numpy as np
import pytest
import torch

from worldmodel.envs import ObjectTrack
from worldmodel.fidelity.scores import ScoreTable, object_scores, pixel_scores

NAN = math.nan


def track(positions: list[tuple[float, float]], areas: list[float]) -> ObjectTrack:
    return ObjectTrack(np.array([positions], np.float32), np.array([areas], np.float32))


def test_object_scores_by_hand() -> None:
    # the last context frame is number 1; horizons 1, 2, 3, 4 are the frames 2, 3, 4, 5
    truth = track([(0, 0), (10, 10), (11, 10), (13, 10), (13, 14), (20, 20)], [40, 40, 40, 40, 40, 19])
    prediction = track([(11, 10), (13, 13), (0, 0), (20, 20)], [40, 10, 9, 40])
    scores = object_scores(truth, prediction, 1, [1, 2, 3, 4])
    # horizon 2: three pixels off; 3: 9 < 40 / 4, missing; 4: 19 < 40 / 2, occluded in truth
    np.testing.assert_allclose(scores["error_px"], [[0, 3, 32, NAN]])
    np.testing.assert_allclose(scores["missing"], [[0, 0, 1, NAN]])
    # moved by 1, 3, 5 since the last context frame
    np.testing.assert_allclose(scores["moving_error_px"], [[NAN, 3, 32, NAN]])


def test_motion_is_unknown_when_the_object_was_occluded_at_the_start() -> None:
    truth = track([(0, 0), (9, 9), (9, 9)], [5, 40, 40])
    scores = object_scores(truth, track([(9, 9)], [40]), 0, [1])
    np.testing.assert_allclose(scores["error_px"], [[0]])
    assert scores["moving_error_px"].isnan().all()


def test_an_object_that_is_never_there_is_left_out() -> None:
    truth = track([(NAN, NAN)] * 3, [0, 0, 0])
    scores = object_scores(truth, track([(1, 1), (1, 1)], [40, 40]), 0, [1, 2])
    assert all(values.isnan().all() for values in scores.values())


def test_a_missing_prediction_without_position_counts_as_32() -> None:
    truth = track([(5, 5), (5, 5)], [40, 40])
    scores = object_scores(truth, track([(NAN, NAN)], [0]), 0, [1])
    np.testing.assert_allclose(scores["error_px"], [[32]])


def test_pixel_scores_without_lpips() -> None:
    last = torch.full((1, 16, 16, 3), 100, dtype=torch.uint8)
    truth = torch.stack([last + 51, last], dim=1)
    scores = pixel_scores(truth, {"same": truth, "still": last[:, None].repeat(1, 2, 1, 1, 1)}, last, None)
    np.testing.assert_allclose(scores["same"]["psnr"], [[50, 50]], rtol=1e-6)
    np.testing.assert_allclose(scores["still"]["psnr"], [[-10 * math.log10(0.04), 50]], rtol=1e-5)
    np.testing.assert_allclose(scores["still"]["masked_psnr"], [[13.9794, NAN]], rtol=1e-5)
    assert scores["still"]["lpips"].isnan().all()
    np.testing.assert_allclose(scores["same"]["ssim"], [[1, 1]], atol=5e-4)


def test_summary_is_three_parallel_trees() -> None:
    table = ScoreTable()
    table.add_horizons(("cameras", "top", "psnr"), [1, 5], torch.tensor([[1.0, NAN], [3.0, NAN]]))
    table.add_horizons(("cameras", "top", "psnr"), [1, 5], torch.tensor([[8.0, NAN]] * 4))
    report = table.summary(np.array([0, 0, 1, 2, 3, 4]), seed=0)
    assert report["cameras"]["top"]["psnr"] == {"1": 6.0, "5": None}
    assert report["n"]["cameras"]["top"]["psnr"] == {"1": 6, "5": 0}
    low, high = report["intervals"]["cameras"]["top"]["psnr"]["1"]
    assert 2.0 <= low < 4.0  # episode 0 nearly always
    assert high == pytest.approx(8.0)  # episode 0 never
    assert report["intervals"]["cameras"]["top"]["psnr"]["5"] is None


def test_summary_has_no_interval_with_one_episode() -> None:
    table = ScoreTable()
    table.add(("codec", "top", "psnr"), torch.tensor([1.0, 2.0]))
    report = table.summary(np.array([4, 4]), seed=0)
    assert report["codec"]["top"]["psnr"] == 1.5
    assert report["intervals"]["codec"]["top"]["psnr"] is None
