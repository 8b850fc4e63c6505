import numpy as np
import pytest

from policy_eval.scores import Scores
from policy_eval.statistics.power import MOST_TRIALS, DreamedRates, PairRates, trials_needed
from policy_eval.statistics.powered_difference import Moments, powered_difference
from policy_eval.statistics.resampling import NORMAL

Z = NORMAL.inv_cdf(0.975)


def scores(outcomes, first_seed: int = 0) -> Scores:
    outcomes = np.array(outcomes, float)
    seeds = first_seed + np.arange(len(outcomes))
    return Scores("anonymous", seeds, outcomes, np.zeros(len(outcomes)), np.ones(len(outcomes), np.int64))


def found(moments: Moments) -> list[float]:
    return [each.item() for each in powered_difference(moments, Z)]


def test_rates_with_a_correlation_by_hand():
    """The covariance is 0.5 * sqrt(0.25 * 0.25) = 0.125."""
    rates = PairRates.of_rates(0.5, 0.5, 0.5)
    assert rates.chances.tolist() == [0.375, 0.125, 0.125, 0.375] and rates.difference == 0
    assert PairRates.of_rates(0.7, 0.4).difference == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"success rates of 0\.95 and 0\.05 cannot have the correlation 0\.5"):
        PairRates.of_rates(0.95, 0.05, 0.5)
    with pytest.raises(ValueError, match=r"0 to 1, got 1\.2 and 0\.5"):
        PairRates.of_rates(1.2, 0.5)


def test_rates_of_a_pilot_are_those_of_shared_starts():
    rates = PairRates.of_trials(scores([1, 1, 0, 0], 2), scores([1, 0, 0, 1], 3))
    assert rates.paired and (rates.first.tolist(), rates.second.tolist()) == ([0, 1], [0, 1])
    assert rates.chances == pytest.approx([2 / 3, 1 / 3])
    apart = PairRates.of_trials(scores([1, 1, 0, 0]), scores([1, 0, 0, 0], 10))
    assert not apart.paired and apart.difference == pytest.approx(0.25) and len(apart.chances) == 4


def test_power_of_a_certain_difference_and_of_none():
    assert PairRates.of_rates(1.0, 0.0).power(3, simulations=10) == 1
    assert PairRates.of_rates(0.0, 1.0).power(3, simulations=10) == 1
    assert PairRates.of_rates(0.5, 0.5).power(50, simulations=2000) == pytest.approx(0.025, abs=0.012)


def test_power_grows_with_trials_difference_and_correlation():
    rates = PairRates.of_rates(0.6, 0.4)
    assert rates.power(40) < rates.power(80) < PairRates.of_rates(0.7, 0.4).power(80)
    assert rates.power(80) < PairRates.of_rates(0.6, 0.4, 0.5).power(80)
    assert rates.power(80, level=0.9) > rates.power(80)


@pytest.mark.parametrize(("rates", "expected"), [((0.6, 0.3, 0.0), 39), ((0.5, 0.4, 0.5), 194), ((0.9, 0.7, 0.3), 45)])
def test_the_planned_number_of_trials_has_the_power_asked_for(rates, expected):
    """Expected is the number of a paired z-test: (1.96 + 0.84)^2 times the variance over the squared difference."""
    known = PairRates.of_rates(*rates)
    n = trials_needed(known.power)
    assert n == pytest.approx(expected, rel=0.15)
    assert 0.77 < known.power(n, simulations=4000, seed=1) < 0.83


def test_the_smallest_number_is_found_and_none_where_nothing_suffices():
    assert trials_needed(lambda n: float(n >= 137)) == 137
    assert trials_needed(lambda n: float(n >= 3)) == 3
    assert trials_needed(lambda n: 1.0) == 2
    assert trials_needed(lambda n: float(n >= MOST_TRIALS)) == MOST_TRIALS
    assert trials_needed(lambda n: 0.5) is None


def test_without_dreams_the_difference_is_that_of_the_real_trials():
    """Bonett and Price: with 2 wins, 0 losses of 8 and one more of each, 3 / 10 and 1 / 10."""
    real = np.array([1.0, 1, 0, 0, 0, 0, 0, 0])
    estimate, low, high, weight = found(Moments.of(real, real, np.zeros(0)))
    half = Z * ((0.4 - 0.2**2) / 10) ** 0.5
    assert weight == 0 and estimate == pytest.approx(0.25)
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half))


def test_a_dream_that_repeats_reality_narrows_the_difference():
    rng = np.random.default_rng(0)
    real = rng.choice([-1.0, 0, 1], 1020, p=[0.1, 0.5, 0.4])
    estimate, low, high, weight = found(Moments.of(real[:20], real[:20], real[20:]))
    assert weight == pytest.approx(1000 / 1020, abs=0.2)
    alone = found(Moments.of(real[:20], np.zeros(20), real[20:]))
    assert high - low < 0.6 * (alone[2] - alone[1]) and alone[3] == 0
    assert low < real.mean() < high and estimate == pytest.approx(real[20:].mean(), abs=0.1)
    wrong = found(Moments.of(real[:20], -real[:20], -real[20:]))
    assert wrong[3] == 0 and wrong[0] == pytest.approx(real[:20].mean())


def test_the_weight_of_dreams_by_hand():
    """The covariance is 2/3, the variance of all 8 dreams 4/7: 4 real starts and 4 more give 2/3 / (2 * 4/7) = 7/12."""
    real, dream = np.array([1.0, 1, -1, 1]), np.array([1.0, 0, -1, 0])
    extra = np.array([1.0, 0, -1, 0])
    *_, weight = found(Moments.of(real, dream, extra))
    assert weight == pytest.approx(7 / 12)
    *_, more = found(Moments.of(real, dream, np.tile(extra, 2)))
    assert more == pytest.approx(2 / 3 / (6 / 11 * 1.5))


def test_differences_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="at least 2 starts tried both ways, got 1"):
        Moments.of(np.zeros(1), np.zeros(1), np.zeros(5))


def test_good_dreams_save_real_trials():
    outcomes = np.array([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]]).T
    good = DreamedRates(*outcomes, np.array([0.3, 0.55, 0.1, 0.025, 0.025]))
    bad = DreamedRates(good.real, -good.dream, good.chances)
    assert good.difference == pytest.approx(0.225)
    few, many = (trials_needed(lambda n, each=each: each.power(n, 10 * n, simulations=1000)) for each in (good, bad))
    assert few < 0.6 * many
    assert 0.75 < good.power(few, 10 * few, seed=1) < 0.85
    turned = DreamedRates(-good.real, -good.dream, good.chances)
    assert turned.power(few, 10 * few) == pytest.approx(good.power(few, 10 * few), abs=0.03)
