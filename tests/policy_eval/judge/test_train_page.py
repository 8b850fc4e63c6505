"""The page of a trained judge."""

import torch

from policy_eval.judge.scores import JudgedEpisode, judge_report
from policy_eval.judge.train_page import meaning, write_page


def judged(scores):
    """Episodes of two frames; the first two of them are successes."""
    return [
        JudgedEpisode(torch.tensor([False, place < 2]), torch.tensor([0.0, score]))
        for place, score in enumerate(scores)
    ]


def report(dreamed=False):
    learned, pixels = judged([0.9, 0.8, 0.1, 0.2]), judged([0.9, 0.1, 0.8, 0.2])
    places = {"learned": judge_report(learned, 0.5), "goal_image": judge_report(pixels, 0.5)}
    wrong = {"learned": judge_report(judged([0.1, 0.1, 0.9, 0.1]), 0.5), "goal_image": places["goal_image"]}
    return {"data": "play", "test": "held", "real": places, "dreamed": wrong if dreamed else {}}


def test_the_judge_is_compared_with_pixels_and_with_dreams():
    said = " ".join(meaning(report()))
    assert "right about 100% of 4 held-out episodes" in said and "is right about 50%" in said and "not known" in said
    said = " ".join(meaning(report(dreamed=True)))
    assert "dreams these episodes again, it is right about 25% of 4 and calls 25% a success" in said


def test_the_page_has_a_row_for_each_judge_and_place(tmp_path):
    write_page(report(dreamed=True), judged([0.9, 0.8, 0.1, 0.2]), 0.5, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("nearest picture of a success") == 2 and page.count("dreamed frames") == 2
