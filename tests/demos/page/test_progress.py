"""Steps of long work on the page, with the time left."""

from demos.page.progress import Steps


def test_every_step_is_shown_with_the_time_left():
    shown, times = [], iter([0.0, 0.0, 3.0, 6.0, 9.0, 9.0])
    steps = Steps(lambda share, desc: shown.append((share, desc)), 3, "acting", clock=lambda: next(times))
    for _ in range(4):
        steps.advance()
    assert shown == [
        (0 / 3, "acting: 0 of 3 steps"),
        (1 / 3, "acting: 1 of 3 steps, about 0:00:06 left"),
        (2 / 3, "acting: 2 of 3 steps, about 0:00:03 left"),
        (3 / 3, "acting: 3 of 3 steps"),
        (3 / 3, "acting: 3 of 3 steps"),
    ]
