"""The sentences about a calibration, one for each verdict, and its page."""

import numpy as np
import pytest

from policy_eval.judge.calibration.page import meaning, write_page


def found(difference, threshold=0.7):
    return {
        "rollouts": "data",
        "episodes": 20,
        "real": 0.5,
        "dreamt_before": 0.7,
        "dreamed": 0.5,
        "difference_before": difference,
        "threshold_before": 0.5,
        "threshold": threshold,
    }


@pytest.mark.parametrize(
    ("difference", "threshold", "words", "end"),
    [
        ([0.1, 0.3], 0.7, "The judge was too generous: 70% of the dreams and 50%", "the threshold moved from 0.500"),
        ([-0.3, -0.1], 0.3, "The judge was too strict: 70% of", "the threshold moved from 0.500 to 0.300"),
        ([-0.1, 0.3], 0.5, "It cannot be told whether the judge is too generous or", "the threshold stays as it was."),
        ([-0.1, 0.3], 0.7, "It cannot be told whether the judge is too generous or", "because --always was given."),
        (
            None,
            0.5,
            "It cannot be told whether the judge is too generous: fewer than 5",
            "the threshold stays as it was.",
        ),
    ],
)
def test_the_judge_in_words(difference, threshold, words, end):
    (said,) = meaning(found(difference, threshold))
    assert said.startswith(words) and end in said


def test_the_page(tmp_path):
    write_page(found([0.1, 0.3]), np.linspace(0, 1, 20), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "too generous" in page and page.count("data:image/png") == 2 and "20 rollouts of data" in page
