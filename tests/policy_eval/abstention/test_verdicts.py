"""From which step a dream is unsure, which trials are decided, and where the limit lies."""

import numpy as np
import pytest

from policy_eval.abstention.verdicts import Bounds, decided, find_limit, unsure_from
from policy_eval.scores import Scores


def test_a_dream_is_unsure_from_the_first_step_above_the_limit():
    trace = np.array([0.1, 0.5, 0.6, 0.2, 0.9])
    assert unsure_from(trace, 0.5) == 3
    assert unsure_from(trace, 0.05) == 1
    assert unsure_from(trace, 0.9) is None


def test_only_a_success_before_the_break_counts():
    """A success at step 4: before the break at 5, in the same step as one at 4, after one at 3; a failure; no break."""
    outcomes, steps = np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([4, 4, 4, 9, 9])
    scores = Scores("one", np.arange(10, 15), outcomes, outcomes, steps)
    kept = decided(scores, {10: 5, 11: 4, 12: 3, 13: 9, 14: None})
    assert kept.tolist() == [True, False, False, False, True]
    assert decided(scores, {}).all()
    assert Bounds.of(outcomes, kept) == Bounds(n=5, decided=2, low=1 / 5, high=4 / 5)


def test_at_most_the_share_asked_for_of_each_kind_is_above_the_limit():
    """Of nine values and an error of 0.1 the limit is the largest, of 19 the 18th; the kind that needs more decides."""
    low, high = np.arange(1.0, 10.0), np.arange(1.0, 20.0)
    assert find_limit([low], 0.1, "data") == 9
    assert find_limit([high], 0.1, "data") == 18
    assert find_limit([low, high], 0.1, "data") == find_limit([high, low], 0.1, "data") == 18
    with pytest.raises(ValueError, match=r"data: --abstain-error 0.1 takes at least 9 .* there are 8"):
        find_limit([high, low[:8]], 0.1, "data")
    with pytest.raises(ValueError, match=r"above 0 and below 0.5, got 0.5"):
        find_limit([low], 0.5, "data")
