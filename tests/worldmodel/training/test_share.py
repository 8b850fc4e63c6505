"""Shares of a batch, and what processes that accelerate has joined tell each other."""

import pytest
import torch
from in_processes import in_processes

from worldmodel.training.share import (
    Share,
    agreed,
    average_gradients,
    collected,
    every_row,
    figures_over_processes,
    from_first,
    mean_over_all,
    not_none,
    share,
)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_shares_make_up_the_whole_in_its_order(number):
    rows = [list(range(10))[Share(index, number).rows(10)] for index in range(number)]
    assert [row for each in rows for row in each] == list(range(10))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    weights = [Share(index, number).weight(len(rows[index]), 10) for index in range(number)]
    means = [sum(each) / len(each) for each in rows]
    assert sum(w * m for w, m in zip(weights, means, strict=True)) / number == pytest.approx(4.5)


def test_equal_and_padded_shares():
    assert Share(1, 2).equal_rows(8, "--batch") == slice(4, 8)
    with pytest.raises(ValueError, match="--batch 7 does not divide by 2 processes"):
        Share(1, 2).equal_rows(7, "--batch")
    with pytest.raises(ValueError, match="a batch of 2 cannot be divided among 3 processes"):
        Share(0, 3).rows(2)
    assert [Share(index, 3).padded_rows(5) for index in range(3)] == [[0, 1], [2, 3], [4, 4]]
    assert [Share(index, 4).padded_rows(5) for index in range(4)] == [[0, 1], [2, 3], [4, 4], [4, 4]]


def test_alone_all_is_as_it_was():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert share() == Share() and share().first
    assert agreed(3.0, True) == (3.0, True)
    assert every_row(values) is values and collected(values, 3) is values
    assert figures_over_processes({"a": 2.0}) == {"a": 2.0}
    assert mean_over_all(values) == 3 and from_first(lambda: 5) == 5


def told() -> dict:
    """What each of two processes gets to know."""
    own = share()
    parameter = torch.nn.Parameter(torch.zeros(2))
    unused = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, 2.0]) * (1 + 2 * own.index)
    average_gradients([parameter, unused])
    average_gradients([unused])
    weight = torch.ones((), requires_grad=True)
    mean_over_all(weight * torch.arange(3.0)[: 1 + own.index]).backward()
    average_gradients([weight])
    other = torch.ones((), requires_grad=True)
    every_row(other * torch.tensor([1.0 + own.index])).prod().backward()
    average_gradients([other])
    rows = torch.tensor(own.padded_rows(3))
    return {
        "share": (own.index, own.number),
        "gradient": parameter.grad.tolist(),
        "mean": weight.grad.item(),
        "product": other.grad.item(),
        "agreed": agreed(10.0 + own.index, own.index == 1),
        "figures": figures_over_processes({"a": float(own.index), "b": 3.0}),
        "rows": collected(torch.stack([rows, 10 + rows]).flatten(), 3, repeats=2).tolist(),
        "flags": collected(rows > 0, 3).tolist(),
        "rows to compute": not_none(torch.tensor([False, False, own.index == 0])).tolist(),
        "first": from_first(lambda: f"of {own.index}"),
    }


def test_two_processes_agree():
    first, second = in_processes(told)
    assert first.pop("share") == (0, 2) and second.pop("share") == (1, 2)
    assert first.pop("rows to compute") == [False, False, True]
    assert second.pop("rows to compute") == [True, False, False]  # none, but the network is called as often
    assert first == second
    assert first["gradient"] == [2, 4]  # the mean of one and three times
    assert first["mean"] == pytest.approx((0 + 0 + 1) / 3)  # of all three values, not of two means
    assert first["product"] == pytest.approx(2 * 2)  # of the product of both rows, 2 weight^2
    assert first["agreed"] == (10, True)  # the first one's clock; any of them was asked to stop
    assert first["figures"] == {"a": 0.5, "b": 3}
    assert first["rows"] == [0, 1, 2, 10, 11, 12] and first["flags"] == [False, True, True]
    assert first["first"] == "of 0"
