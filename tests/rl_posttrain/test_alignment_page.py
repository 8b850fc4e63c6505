"""The sentences about an alignment, one for each verdict, and its page."""

import pytest

from rl_posttrain.alignment_page import meaning, write_page

NONE = {"value": None, "low": None, "high": None}


def row(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high}


def table(pearson, bias):
    before = {"pearson": row(0.2, 0.6), "bias": row(0.2, 0.4)}
    return {
        "0": before,
        "25": {"pearson": row(0.0, 0.1), "bias": row(0.0, 0.1)},
        "100": {"pearson": pearson, "bias": bias},
    }


@pytest.mark.parametrize(
    ("pearson", "words"),
    [
        (row(0.7, 0.9), "After 100 rollouts the order of the policies agrees better with reality: Pearson r was 0.40"),
        (row(-0.2, 0.1), "After 100 rollouts the order of the policies agrees worse with reality"),
        (row(0.5, 0.9), "It cannot be told whether the order of the policies agrees better with reality"),
    ],
)
def test_the_order(pearson, words):
    said = meaning(table(pearson, row(0.0, 0.1)))[0]
    assert said.startswith(words) and ("overlap" in said) == ("cannot be told" in said)


@pytest.mark.parametrize(
    ("bias", "words"),
    [
        (row(-0.1, 0.1), "After 100 rollouts the success rates agree better with reality: dream minus real was 0.30"),
        (row(-0.9, -0.6), "After 100 rollouts the success rates agree worse with reality"),
        (row(-0.3, -0.1), "It cannot be told whether the success rates agree better with reality"),
    ],
)
def test_the_bias_may_have_either_sign(bias, words):
    assert meaning(table(row(0.7, 0.9), bias))[1].startswith(words)


def test_the_page(tmp_path):
    few = table(NONE, row(-0.1, 0.1))
    few["0"]["pearson"] = few["25"]["pearson"] = NONE
    write_page(few, ("pearson", "bias"), [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "too few policies" in page and page.count("data:image/png") == 1
    assert '<th scope="row">100</th><td>-</td><td>0.00 (-0.10 to 0.10)</td>' in page
