"""Ways to leave dreams undecided, and what is left of a ranking: by hand."""

import sys

import numpy as np
import pytest
from places import BENCHMARKS

sys.path.insert(0, str(BENCHMARKS))
tables = pytest.importorskip("abstention_tables")

NEVER = np.nan
DREAMS = tables.Dreams(
    seeds=np.array([7, 8, 9]),
    outcomes=np.array([[1.0, 1.0, 0.0]]),
    steps=np.array([[2.0, 4.0, 6.0]]),
    judge=np.array([[1.0, np.nan, 0.0]]),
    breaks={
        "inverse-dynamics": np.array([[3.0, 4.0, NEVER]]),
        "seeds": np.array([[NEVER, NEVER, 1.0]]),
        "recordings": np.array([[1.0, 1.0, 1.0]]),
    },
)


def test_a_success_before_the_break_is_decided():
    found = {name: values[0].tolist() for name, values in DREAMS.decided().items()}
    unsure = pytest.approx(np.nan, nan_ok=True)
    assert found["all dreams"] == [1, 1, 0]
    assert found["inverse-dynamics"] == [1, unsure, 0] and found["seeds"] == [1, 1, unsure]
    assert found["recordings"] == [unsure] * 3 and found["any of the three"] == [1, unsure, unsure]


def test_a_censored_dream_counts_until_it_becomes_unsure():
    """Success at step 2 (one of four that get there) and at 4 (one of two; one was left at 3, the other fails at 6)."""
    outcomes, steps = np.array([1.0, 1.0, 0.0, 0.0]), np.array([2.0, 4.0, 6.0, 6.0])
    begins = np.array([NEVER, NEVER, 4.0, NEVER])
    assert tables.survival(outcomes, steps, begins) == pytest.approx(1 - 3 / 4 * 1 / 2)
    assert tables.survival(outcomes, steps, np.full(4, NEVER)) == pytest.approx(0.5)
    assert tables.survival(outcomes, steps, np.ones(4)) == 0


def test_changes_are_those_of_the_same_draws():
    """Three policies: all dreams rank them wrongly, the trusted ones as reality does."""
    fails, ends = np.zeros((3, 40)), np.full((3, 40), 60.0)
    outcomes = fails.copy()
    for row, (first, number) in enumerate(((0, 12), (8, 16), (16, 20))):
        outcomes[row, :number] = 1  # 0.3, 0.4, 0.5
        outcomes[row, 20 : 20 + 20 - first] = 1
    begins = np.where(np.arange(40) >= 20, 1.0, NEVER) * np.ones((3, 1))
    real = np.array([np.arange(40) < number for number in (12, 16, 20)], float)
    breaks = {"inverse-dynamics": begins, "seeds": np.full((3, 40), NEVER)}
    dreams = tables.Dreams(np.arange(40), outcomes, ends, outcomes, breaks)
    found = tables.summary(dreams, np.arange(40), real, resamples=50)["ways"]
    assert found["inverse-dynamics"]["r"]["value"] == pytest.approx(1)
    assert found["inverse-dynamics"]["coverage"] == {"all": 0.5, "policies": [0.5] * 3}
    assert found["inverse-dynamics"]["r"]["change"] == pytest.approx(1 - found["all dreams"]["r"]["value"])
    assert found["seeds"]["r"]["change_interval"] == [0, 0] and found["seeds"]["coverage"]["all"] == 1
    assert found["all dreams"]["r"]["value"] < 0


def test_a_signal_that_is_higher_in_wrong_dreams_has_a_large_area():
    """Dreams 2 and 3 end otherwise than the recordings; of the four pairs of wrong and right 3.5 are in order."""
    known = {"real": [1.0, 0.0, 1.0, 0.0], "dreamed": [1.0, 0.0, 0.0, 1.0]}
    known |= {"inverse-dynamics": [0.1, 0.4, 0.4, 0.9], "seeds": [0.9, 0.8, 0.1, 0.2]}
    found = tables.detection(known, resamples=20)
    assert found["n"] == 4 and found["wrong"] == 0.5
    assert found["signals"]["inverse-dynamics"]["auroc"] == 3.5 / 4 and found["signals"]["seeds"]["auroc"] == 0
    assert tables.auroc(np.array([1.0]), np.array([True])) is None
