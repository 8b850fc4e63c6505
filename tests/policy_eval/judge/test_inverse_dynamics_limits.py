"""What frames can show: limits of the predicted error, and what is measured where."""

import math

import pytest
import torch

from policy_eval.judge.inverse_dynamics_limits import Decoded, find_limits, measure
from policy_eval.judge.inverse_dynamics_page import lines, meaning, write_page


def episode(errors: list, commands: list, *, deviations: list | None = None, seen: list | None = None) -> Decoded:
    """One action dim."""
    wrong, commanded = torch.tensor(errors)[:, None], torch.tensor(commands)[:, None]
    certain = torch.ones_like(wrong) if deviations is None else torch.tensor(deviations)[:, None]
    mask = torch.ones_like(wrong, dtype=torch.bool) if seen is None else torch.tensor(seen)[:, None]
    return Decoded(commanded + wrong, commanded, certain, mask)


def alternating(errors: list, deviations: list) -> Decoded:
    """Commands of 1 and -1 by turns."""
    return episode(errors, [1.0, -1.0] * (len(errors) // 2), deviations=deviations)


def test_a_limit_lets_pass_as_many_moments_as_are_explained():
    """Four moments without an error, then two that are off by 1, least certain last; the variance of each is 1."""
    right = alternating([0.0] * 4, [0.1, 0.2, 0.4, 0.3])
    wrong = alternating([1.0, 1.0], [0.9, 0.8])
    assert find_limits([right, wrong], 0.9).tolist() == [pytest.approx(0.4)]
    # of five moments the spread is 5 - 1 / 5 = 4.8, so 1 - 1 / 4.8 = .79 is explained; of six 1 - 2 / 6 = .67
    assert find_limits([right, wrong], 0.78).tolist() == [pytest.approx(0.8)]
    assert find_limits([right, wrong], 0.66).tolist() == [math.inf]


def test_a_dim_that_is_hardly_ever_explained_is_never_visible():
    """Of 30 moments two can be read, which is less than a tenth; of 20 it is a tenth."""
    deviations = [0.1, 0.2, *[1.0] * 28]
    errors = [0.0, 0.0, *[3.0] * 28]
    assert find_limits([alternating(errors, deviations)], 0.9).tolist() == [0.0]
    assert find_limits([alternating(errors[:20], deviations[:20])], 0.9).tolist() == [pytest.approx(0.2)]


def test_a_command_that_never_changes_is_never_visible():
    still = episode([0.0] * 4, [1.0] * 4, deviations=[0.1] * 4)
    assert find_limits([still], 0.9).tolist() == [0.0]


def test_what_is_measured_by_hand():
    """Two dims: errors .1, .1 and .2, 3 where commands are 1, -1 and 0, 2; then the large error is not seen."""
    decoded, commanded = torch.tensor([[1.1, 0.2], [-0.9, 5.0]]), torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
    every = torch.ones(2, 2, dtype=torch.bool)
    found = measure([Decoded(decoded, commanded, torch.ones(2, 2), every)])
    squares = 0.1**2 + 0.1**2, 0.2**2 + 3.0**2
    assert (found["within"], found["n"]) == (0.5, 2)
    assert found["error"] == pytest.approx(sum(squares) / 4)
    assert found["explained"] == pytest.approx(1 - sum(squares) / 4)  # both dims have a spread of 2
    assert found["dims"][0]["explained"] == pytest.approx(1 - squares[0] / 2)
    seen = torch.tensor([[True, True], [True, False]])
    found = measure([Decoded(decoded, commanded, torch.ones(2, 2), seen)])
    assert found["within"] == 1.0
    assert found["error"] == pytest.approx((squares[0] + 0.2**2) / 3)
    second = found["dims"][1]
    assert second["explained"] is None and second["visible"] == 0.5
    assert second["explained_everywhere"] == pytest.approx(1 - squares[1] / 2)
    nothing = measure([Decoded(decoded, commanded, torch.ones(2, 2), ~every)])
    assert nothing["within"] is nothing["explained"] is nothing["error"] is None


def test_intervals_draw_whole_episodes():
    same = [episode([0.1, 0.1], [1.0, -1.0])] * 3
    assert measure(same)["dims"][0]["interval"] == pytest.approx([0.99, 0.99])
    other = episode([1.0, 1.0], [1.0, -1.0])
    low, high = measure([*same, other])["dims"][0]["interval"]
    assert low < 0.6 and high == pytest.approx(0.99)
    assert measure(same[:1])["dims"][0]["interval"] is None


def report(dims: list[dict], **more) -> dict:
    shape = {"data": "push", "train_episodes": 3, "calibration_episodes": 1, "test_episodes": 1, "wanted": 0.9}
    return {**shape, "stride": 1, "real": {"dims": dims}, **more}


def dim(explained: float | None, visible: float) -> dict:
    return {"explained": explained, "interval": None, "explained_everywhere": 0.5, "visible": visible}


def test_words_tell_what_is_left_out():
    good, partly, poor, never = dim(0.95, 1.0), dim(0.92, 0.39), dim(0.8, 1.0), dim(None, 0.0)
    said = meaning(report([good, partly, poor, never]))
    assert said[0] == (
        "Where they are visible, at least 90% of the variance of action dim 0 and action dim 1 is explained."
    )
    assert said[1].startswith("Of action dim 2 only 80% of the variance is explained")
    assert said[2] == "The frames do not show action dim 1 in 61% of the moments, which are left out."
    assert said[3].startswith("From these frames the network cannot read action dim 3 well enough")
    assert len(said) == 4
    dreams = {"generated": {"explained": 0.7, "dims": []}, "recorded": {"explained": 0.9, "dims": []}}
    assert meaning(report([good], **dreams))[-1] == (
        "Of dreamed frames 70% of the variance is explained, of the recorded frames there 90%."
    )


def test_actions_of_a_stride_are_named():
    strided = report([dim(0.95, 1.0)] * 4) | {"stride": 2}
    assert [line.split(":")[0] for line in lines(strided)] == [
        f"real      action dim {d} of step {step}" for step in (0, 1) for d in (0, 1)
    ]


def test_the_page_stands_alone(tmp_path):
    found = [episode([0.1, 0.1], [1.0, -1.0]), episode([0.1, 0.3, 0.2], [1.0, -1.0, 1.0], seen=[True, True, False])]
    write_page(report(measure(found)["dims"]), found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "action dim 0" in page and "in 20% of the moments" in page and "Decoded over commanded" in page
