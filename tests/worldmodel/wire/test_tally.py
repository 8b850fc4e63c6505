"""Limits that hold for several processes together."""

import pytest
from served import small_world, starts

from worldmodel.wire.limits import Limits
from worldmodel.wire.served import ServedWorld
from worldmodel.wire.tally import Tally


def test_the_limit_is_one_of_the_sum():
    counts = [0, 0]
    first, second = Tally(counts, 0), Tally(counts, 1)
    assert first.take(2, 3) and second.take(1, 3)
    assert not first.take(1, 3) and not second.take(1, 3)
    assert counts == [2, 1] and first.total == second.total == 3
    first.give_back(1)
    assert second.take(1, 3) and counts == [1, 2]


def test_a_process_alone_counts_for_itself():
    tally = Tally()
    assert tally.take(1, 1) and not tally.take(1, 1) and tally.total == 1
    assert Tally().total == 0


def test_rows_of_other_processes_are_taken():
    counts = [0, 5]
    served = ServedWorld(small_world(), starts(), None, limits=Limits(rows=8), rows=Tally(counts, 0))
    pool, rows = served.room(2, 1, 2)
    assert counts == [2, 5] and served.rows == 7
    with pytest.raises(ValueError, match="the server has 8 rows, 7 are taken, and a batch of 2 takes as many"):
        served.room(2, 1, 1)
    served.leave(pool, rows)
    assert counts == [0, 5]
