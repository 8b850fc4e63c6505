"""What intervals tell, and how names are listed."""

import pytest

from worldmodel.display.words import listed, order_of, sign_of, span


@pytest.mark.parametrize(
    ("interval", "sign"), [((0.1, 0.2), 1), ((-0.2, -0.1), -1), ((-0.1, 0.2), 0), ((0.0, 1.0), 0), ((-1.0, 0.0), 0)]
)
def test_an_interval_that_includes_0_has_no_sign(interval, sign):
    assert sign_of(interval) == sign


@pytest.mark.parametrize(("first", "order"), [((3.0, 4.0), 1), ((0.0, 0.5), -1), ((0.0, 1.5), 0), ((2.0, 3.0), 0)])
def test_overlapping_intervals_have_no_order(first, order):
    assert order_of(first, (1.0, 2.0)) == order


def test_names_are_listed():
    assert [listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert span((-0.5, 1.0)) == "-0.50 to 1.00"
