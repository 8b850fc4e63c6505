import runpy

import numpy as np
import pytest
from places import BENCHMARKS

from policy_eval.scores import Scores
from policy_eval.statistics.difference import confidence, difference_interval, pair_order
from policy_eval.statistics.resampling import NORMAL


def scores(outcomes, first_seed: int = 0) -> Scores:
    outcomes = np.array(outcomes, float)
    seeds = first_seed + np.arange(len(outcomes))
    return Scores("anonymous", seeds, outcomes, np.zeros(len(outcomes)), np.ones(len(outcomes), np.int64))


def interval(*facts, z: float = 1.959964) -> list[float]:
    return [end.item() for end in difference_interval(*(np.array([each], float) for each in facts), np.array([z]))]


def test_an_interval_by_hand():
    """9 of 9 against 0 of 9: z^2 = 3.8415 * (1 + 2 / 27) = 4.1260, so Wilson's arm is 4.1260 / 13.1260 = 0.31434."""
    assert interval(1, 0, 0, 9, 9) == pytest.approx((1 - 2**0.5 * 0.31434, 1), abs=1e-4)


def test_correlation_narrows_the_interval_by_hand():
    """5 of 10 both, always together: the arm is 0.26956, the covariance 0.25 - 0.05, so phi is 0.8."""
    side = 0.26956 * (2 - 2 * 0.8) ** 0.5
    assert interval(0.5, 0.5, 0.25, 10, 10) == pytest.approx((-side, side), abs=1e-4)
    against = 0.26956 * (2 + 2 * 0.8) ** 0.5
    assert interval(0.5, 0.5, -0.25, 10, 10) == pytest.approx((-against, against), abs=1e-4)


def test_an_interval_ends_further_where_there_is_room():
    """5 of 10 against 0 of 10: the lower end takes the upper arm of 0, 0.29066, the upper end its lower arm, 0."""
    low, high = interval(0.5, 0.0, 0, 10, 10)
    assert low == pytest.approx(0.5 - (0.26956**2 + 0.29066**2) ** 0.5, abs=1e-3)
    assert high == pytest.approx(0.5 + 0.26956, abs=1e-3)


def test_the_numbers_of_unpaired_trials_may_differ():
    wide, narrow = interval(0.5, 0.5, 0, 10, 10), interval(0.5, 0.5, 0, 10, 1000)
    assert narrow[1] == pytest.approx((0.26956**2 + 0.0309**2) ** 0.5, abs=1e-3)
    assert wide[1] == pytest.approx(0.26956 * 2**0.5, abs=1e-3)


def test_the_confidence_is_that_of_the_interval_that_ends_at_zero():
    facts = [np.array([each]) for each in (0.7, 0.4, 0.02, 20.0, 20.0)]
    sure = confidence(*facts).item()
    low, _ = difference_interval(*facts, np.array([NORMAL.inv_cdf(sure)]))
    assert 0.5 < sure < 1 and low.item() == pytest.approx(0, abs=1e-6)
    back = confidence(facts[1], facts[0], *facts[2:]).item()
    assert back == pytest.approx(1 - sure)
    few, many = [np.array([each]) for each in (5.0, 50.0)]
    apart = confidence(*facts[:2], 0 * few, few, many).item()
    assert confidence(facts[1], facts[0], 0 * few, many, few).item() == pytest.approx(1 - apart) != 1 - sure
    low, _ = difference_interval(*facts[:2], 0 * few, few, many, np.array([NORMAL.inv_cdf(apart)]))
    assert low.item() == pytest.approx(0, abs=1e-6)


def test_a_pair_is_compared_start_by_start():
    """The first wins 2 of 10 starts and loses none."""
    first, second = scores([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]), scores([1, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    pair = pair_order(first, second)
    assert pair.difference == pytest.approx(0.2) and pair.n == 10
    assert 0.8 < pair.probability < 0.975 and pair.low < 0 < pair.high
    back = pair_order(second, first)
    assert back.probability == pytest.approx(1 - pair.probability)
    assert (back.low, back.high) == pytest.approx((-pair.high, -pair.low))
    elsewhere = pair_order(first, scores(second.outcomes, first_seed=100))
    assert elsewhere.n == 0 and elsewhere.probability < pair.probability
    assert elsewhere.low < pair.low and elsewhere.high > pair.high
    assert pair_order(first, first).probability == 0.5


def test_three_starts_can_tell_two_policies_apart_but_not_for_sure():
    pair = pair_order(scores([1, 1, 1]), scores([0, 0, 0]))
    assert 0 < pair.low < pair.high == 1 and 0.975 < pair.probability < 0.999
    unclear = pair_order(scores([1, 1, 1]), scores([0, 0, 1]))
    assert unclear.low < 0 and 0.5 < unclear.probability < 0.975
    assert pair_order(scores([1]), scores([0])).n == 0


def test_only_shared_starts_are_paired():
    """Shared are the seeds 7 to 9: the first succeeds in 7, the second in 7 and 9."""
    first = scores([0, 0, 1, 0, 0], first_seed=5)
    second = Scores("x", np.array([12, 9, 8, 7]), np.array([0.0, 1, 0, 1]), np.zeros(4), np.ones(4, np.int64))
    pair = pair_order(first, second)
    assert pair.n == 3 and pair.difference == pytest.approx(1 / 3 - 2 / 3)
    assert pair_order(second, first).difference == pytest.approx(2 / 3 - 1 / 3)
    together = pair_order(scores([1, 0, 0], 7), scores([1, 0, 1], 7))
    assert (pair.low, pair.high) == (together.low, together.high)


def test_graded_outcomes_have_an_interval_too():
    pair = pair_order(scores([0.5, 0.75, 0.25, 0.5]), scores([0.25, 0.5, 0.0, 0.25]))
    assert pair.difference == 0.25 and -1 < pair.low < 0.25 < pair.high < 1


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_the_interval_holds_the_truth_from_three_trials_on(rate):
    """The bars: at least 94.5% in every cell, at most 98% with 50 trials, at most 1.1 of Newcombe's width."""
    row = runpy.run_path(str(BENCHMARKS / "interval_coverage.py"))["cover_few"]((rate, rate), 0.0)
    coverage, newcombe, ratio = np.array(row.cells).T
    assert (coverage >= 0.945).all() and coverage[-1] <= 0.98 and (ratio <= 1.1).all()
    assert rate != 0.5 or newcombe.min() < 0.91


@pytest.mark.slow
def test_the_interval_holds_the_truth_at_other_rates_and_correlations():
    """Newcombe's holds 89.3% at the worst equal rates and 76.4% at the worst others."""
    coverage = runpy.run_path(str(BENCHMARKS / "interval_coverage.py"))
    equal, every = (np.array(coverage["lowest_few"](kind).cells) for kind in (True, False))
    assert equal[:, 0].min() >= 0.945 and equal[:, 1].min() < 0.9
    assert every[:, 0].min() >= 0.905 and every[:, 1].min() < 0.8
