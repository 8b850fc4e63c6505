"""Where a run stands."""

from itertools import count

from worldmodel.training.log import RunClock


def test_time_stands_still_within_a_step():
    ticks = count(step=30.0)  # half a minute passes whenever somebody asks
    clock = RunClock(total_steps=100, minutes=2.0, clock=lambda: next(ticks))
    clock.start()
    assert clock.done == clock.done == 0.25
    clock.count()
    assert (clock.step, clock.done, clock.done) == (1, 0.5, 0.5)


def test_the_nearer_end_counts_and_earlier_sessions_do():
    clock = RunClock(total_steps=4, minutes=10.0, clock=lambda: 0.0)
    clock.resume({"step": 1, "seconds": 60.0})
    clock.start()
    assert clock.done == 0.25
    clock.resume({"step": 1, "seconds": 300.0})
    clock.start()
    assert clock.done == 0.5
