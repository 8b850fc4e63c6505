"""The tables that benchmarks print; `benchmarks/figures.py` keeps them."""

import sys

import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))


def test_the_table_of_abuse_counts_what_was_refused():
    markdown = pytest.importorskip("serve_abuse").markdown
    figures = {
        "messages": {"errors": 190, "answered": 7, "closed": 3},
        "crowd": {"let_in": 63, "refused": 137},
        "huge_frames_ended": 4,
        "wrong_tokens_refused": 200,
        "served_to_others": 0,
        "dreams_unchanged": False,
        "grown_mb": {"crowd": 1.25, "end": 5.04},
    }
    text = markdown(figures)
    assert "| malformed messages answered with an error | 190 of 200 |" in text
    assert "| connections let in, refused | 63, 137 |" in text and "| memory above before: end, MB | 5.0 |" in text
    assert "| honest dreams unchanged in between | NO |" in text


def test_the_table_of_the_demo_has_the_aims():
    pytest.importorskip("playwright")
    from demo import markdown

    soak = {"visitors": 20, "frames": 8730, "errors": [], "growth_second_to_fourth_round": -0.007}
    figures = {
        "first_frame_s": 0.844,
        "shown_frames_per_s": 19.06,
        "key_to_pixel_ms_median": 69.2,
        "key_to_pixel_ms_p90": 84.0,
        "load_average": 0.5,
        "soak": soak,
    }
    rows = markdown(figures).splitlines()
    assert rows[2] == "| first frame, s | 0.84 | at most 1 |"
    assert "| frames/s while a key is held | 19.1 | at least 10 |" in rows
    assert "| memory, second to fourth round | -0.7% | at most +5% |" in rows


def test_the_scores_of_a_ranking_are_in_the_order_of_the_dreams():
    from ranking import scores_table

    policies = [
        {"name": "a", "dream": {"score": 0.2}, "real": {"score": 0.3}},
        {"name": "b", "dream": {"score": 0.5}, "real": None},
    ]
    rows = scores_table({"task": {"dream": {"policies": policies}}}).splitlines()
    assert rows[2:] == ["| task | b | 0.50 | - |", "| task | a | 0.20 | 0.30 |"]


def test_data_of_an_imagination_benchmark_can_lie_elsewhere(tmp_path):
    from imagination import BenchmarkConfig

    task = BenchmarkConfig(tmp_path / "out", data=tmp_path).task
    assert task.demos == tmp_path / "pusht-position-demos-b" and task.held_out == tmp_path / "pusht-position-heldout"
