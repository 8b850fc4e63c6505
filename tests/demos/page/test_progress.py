"""Steps of long work on the page, with the time left."""

from demos.page.progress import Steps


def test_every_step_is_shown_with_the_time_left():
    shown, times = [], iter([0.0, 0.0, 3.0, 6.0, 9.0])
    steps = Steps(lambda share, desc: shown.append((share, desc)), 2, "acting", clock=lambda: next(times))
    for _ in range(3):
        steps.advance()
    assert shown == [
        (0.0, "acting: 0 of 2 steps"),
        (0.5, "acting: 1 of 2 steps, about 0:00:03 left"),
        (1.0, "acting: 2 of 2 steps"),
        (1.0, "acting: 2 of 2 steps"),
    ]
