"""What changed on held-out windows: verdicts by hand, and a sentence for each."""

import pytest
import torch

from rl_posttrain.posttraining.changes import Change, changes, meaning

EPISODES = (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)


def values(*numbers):
    """Two windows of each of five episodes; the last number is that of the last three."""
    return torch.tensor([number for number in (*numbers, numbers[-1], numbers[-1]) for _ in range(2)])


@pytest.mark.parametrize(
    ("name", "after", "verdict"),
    [
        ("psnr", values(2.0, 2.1, 2.2), 1),
        ("psnr", values(0.5, 0.6, 0.7), -1),
        ("psnr", values(0.5, 2.0, 1.05), 0),
        ("error.block", values(2.0, 2.1, 2.2), -1),
        ("error.block", values(0.5, 0.6, 0.7), 1),
        ("state_error", values(0.5, 0.6, 0.7), 1),
        ("cross_view", values(0.5, 0.6, 0.7), -1),
        ("sharpness", values(2.0, 2.1, 2.2), -1),  # 1 is best
        ("sharpness", values(0.5, 0.6, 0.7), -1),
    ],
)
def test_better_is_what_the_measure_means(name, after, verdict):
    (found,) = changes({name: values(1.0, 1.0, 1.0)}, {name: after}, EPISODES)
    assert found.verdict == verdict and found.before == 1.0
    assert found.after == pytest.approx(float(after.mean()))
    low, high = found.interval
    assert low <= found.after - 1 <= high


def test_windows_that_one_cannot_measure_are_left_out():
    before, after = values(9.0, 1.0, 1.0), values(float("nan"), 2.0, 2.0)
    (found,) = changes({"psnr": before}, {"psnr": after}, EPISODES)
    assert (found.before, found.after, found.interval, found.verdict) == (1.0, 2.0, None, 0)  # of four episodes
    assert changes({"psnr": before}, {"psnr": after * float("nan")}, EPISODES) == []


def psnr(interval, verdict):
    return Change("psnr", 20.0, 20.5, interval, verdict)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            psnr((0.25, 0.75), 1),
            "Dreams of held-out episodes are closer to the truth than before: PSNR went from 20.00",
        ),
        (psnr((-0.75, -0.25), -1), "Dreams of held-out episodes are worse than before: PSNR went"),
        (
            psnr((-0.25, 0.75), 0),
            "It cannot be told whether dreams of held-out episodes came closer to the truth: PSNR",
        ),
        (psnr(None, 0), "It cannot be told whether dreams of held-out episodes came closer to the truth: PSNR"),
    ],
)
def test_closeness_in_words(change, words):
    sentence = meaning([change], (), 5)[0]
    assert sentence.startswith(words)
    assert ("too few for an interval" in sentence) == (change.interval is None)
    assert ("includes 0" in sentence) == (change.verdict == 0 and change.interval is not None)


def test_measures_that_are_not_rewarded():
    def guard(name, verdict):
        return Change(name, 1.0, 1.0, (0.0, 0.0), verdict)

    first = psnr((0.25, 0.75), 1)
    some = [first, guard("error.block", 1), guard("sharpness", -1), guard("motion", 0), guard("state_error", 1)]
    assert "agreement of the cameras got worse" in meaning([first, guard("cross_view", -1)], (), 5)[1]
    assert meaning(some, (), 5)[1] == (
        "Of the measures that are not rewarded, block error and state error got better and sharpness got worse; for "
        "the others it cannot be told."
    )
    assert "state error" not in meaning(some, ("state",), 5)[1]
    alone = Change("motion", 1.0, 1.2, None, 0)
    assert meaning([first, alone], (), 5)[1] == "Nor can it be told for the measures that are not rewarded."
    assert meaning([first, guard("motion", 0)], (), 5)[1] == (
        "Of the measures that are not rewarded, none changed by more than chance can explain."
    )


def test_a_run_that_found_nothing_says_so():
    assert meaning([psnr((0.0, 0.0), 0)], (), 0) == [
        "Every update made an unrewarded measure of the dreams worse, so the world model is kept as it was."
    ]
