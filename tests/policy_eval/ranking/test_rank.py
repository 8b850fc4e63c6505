import json
import runpy

import numpy as np
import pytest
from places import BENCHMARKS

from policy_eval.ranking.rank import Score, pooled_pearson, rank
from policy_eval.ranking.report import draw_scatter
from policy_eval.scores import Scores
from policy_eval.statistics.agreement import STATISTICS, chance_of, mean_ranks
from policy_eval.statistics.noise_ceiling import noise_ceiling, percentile, smoothed_rates, standing
from policy_eval.statistics.prediction_powered import prediction_powered
from policy_eval.statistics.resampling import bca_interval, policy_intervals, wilson_interval

DREAM, REAL = np.array([[0.1, 0.5, 0.5, 0.9]]), np.array([[0.2, 0.4, 0.6, 0.8]])


def scores(outcomes, first_seed: int = 0) -> Scores:
    outcomes = np.array(outcomes, float)
    seeds = first_seed + np.arange(len(outcomes))
    ones = np.ones(len(outcomes), np.int64)
    return Scores("anonymous", seeds, outcomes, np.zeros(len(outcomes)), ones)


def rates(successes, trials: int = 20) -> dict[str, Scores]:
    """Policies a, b, ... of which each succeeds on its first starts."""
    return {chr(97 + i): scores([1.0] * k + [0.0] * (trials - k)) for i, k in enumerate(successes)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pearson", 0.24 / np.sqrt(0.32 * 0.2)),
        ("spearman", 4.5 / np.sqrt(4.5 * 5)),
        ("kendall", 5 / np.sqrt(5 * 6)),
        ("mmrv", 0.2 / 4),
        ("mmrv_tie_safe", 0.4 / 4),
        ("bias", 0.0),
        ("rmse", 0.1),
        ("calibration_slope", 0.75),
        ("calibration_intercept", 0.125),
        ("top1_regret", 0.0),
    ],
)
def test_statistics_by_hand(name, expected):
    assert STATISTICS[name](DREAM, REAL)[0] == pytest.approx(expected)
    both = np.concatenate([DREAM, REAL]), np.concatenate([REAL, REAL])
    perfect = {"mmrv": 0, "mmrv_tie_safe": 0, "rmse": 0, "bias": 0, "top1_regret": 0}
    perfect["calibration_intercept"] = 0
    assert STATISTICS[name](*both)[1] == pytest.approx(perfect.get(name, 1), abs=1e-12)


def test_a_dream_that_ties_everything_is_caught_by_the_tie_safe_mmrv_only():
    """SIMPLER's definition charges a tie to the better policy alone: .30 in place of .50."""
    same, real = np.full((1, 3), 0.4), np.array([[0.2, 0.5, 0.8]])
    assert STATISTICS["mmrv"](same, real)[0] == pytest.approx(0.3)
    assert STATISTICS["mmrv_tie_safe"](same, real)[0] == pytest.approx(0.5)
    for name in ("pearson", "spearman", "kendall", "calibration_slope"):
        assert STATISTICS[name](same, real)[0] == 0
    assert STATISTICS["top1_regret"](same, real)[0] == pytest.approx(0.3)


def test_ties_share_their_rank():
    assert mean_ranks(np.array([[5.0, 2.0, 5.0, 1.0]])).tolist() == [[3.5, 2, 3.5, 1]]


def test_chance_alone_correlates_few_policies():
    """For three policies r is uniform in its angle, for four in itself."""
    assert chance_of(0.8, 3) == pytest.approx(np.arccos(0.8) / np.pi, abs=1e-4)
    assert chance_of(0.8, 4) == pytest.approx(0.1, abs=1e-4)
    rng = np.random.default_rng(0)
    drawn = STATISTICS["pearson"](*rng.standard_normal((2, 20_000, 8)))
    assert chance_of(0.5, 8) == pytest.approx((drawn > 0.5).mean(), abs=0.01)


def test_wilson_interval():
    assert wilson_interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_wilson_interval_holds_the_rate_to_the_last_bit():
    """A rounding error at a rate of 0 made an arm of the plot negative, and one quickstart in three end in an error."""
    for n in range(1, 101):
        for successes in range(n + 1):
            low, high = wilson_interval(successes / n, n)
            assert 0 <= low <= successes / n <= high <= 1


def test_a_policy_without_a_success_is_drawn(tmp_path):
    dream = {name: scores(x) for name, x in {"a": [0] * 10, "b": [1] * 10, "c": [1, 0] * 5}.items()}
    report = {**rank(dream, dream, resamples=50).to_json(), "optimism": None, "abstention": None}
    draw_scatter(report, tmp_path / "scatter.png")
    report["policies"][-1]["dream"]["low"] = 2.8e-17  # as rankings hold it that were stored before
    draw_scatter(report, tmp_path / "scatter.png")


def test_bca_without_bias_or_skew_is_the_percentile_interval():
    samples = np.linspace(-1, 1, 2001)
    found = bca_interval(0.0, samples, np.array([-1.0, 0.0, 1.0]))
    assert found == pytest.approx((-0.95, 0.95), abs=1e-3)
    shifted = bca_interval(0.5, samples, np.array([-1.0, 0.0, 1.0]))
    assert shifted[0] > -0.5 and shifted[1] > 0.95


def test_intervals_of_agreement_are_the_same_every_time():
    rng = np.random.default_rng(0)
    real = rng.uniform(0.1, 0.9, 12)
    dream = real + 0.1 * rng.standard_normal(12)
    found = policy_intervals(STATISTICS, dream, real)
    assert found == policy_intervals(STATISTICS, dream, real)
    low, high = found["pearson"]
    assert low < STATISTICS["pearson"](dream[None], real[None])[0] < high < 1
    assert found["bias"][0] < (dream - real).mean() < found["bias"][1]


def test_the_noise_ceiling_of_the_usual_evaluation():
    """Five policies, 20 real and 50 imagined trials: a perfect simulator averages r = .865."""
    rng = np.random.default_rng(0)
    means = []
    for seed in range(100):
        p = rng.uniform(0.1, 0.9, 5)
        trials = np.full(5, 50), np.full(5, 20)
        means.append(noise_ceiling(p, *trials, resamples=200, seed=seed)["pearson"].mean())
    assert np.mean(means) == pytest.approx(0.865, abs=0.02)


def test_percentiles_count_from_the_bad_end():
    many = np.full(6, 100), np.full(6, 100)
    ceiling = noise_ceiling(np.linspace(0.2, 0.8, 6), *many, resamples=2000)
    assert percentile(ceiling["pearson"], 0.01) < percentile(ceiling["pearson"], 0.5)
    assert percentile(ceiling["mmrv"], 0.01) > percentile(ceiling["mmrv"], 0.5)
    worst, median = (abs(percentile(ceiling["bias"], share)) for share in (0.01, 0.5))
    assert worst > median
    assert standing("mmrv", 1.0, ceiling["mmrv"]) == 0
    assert standing("mmrv", 0.0, ceiling["mmrv"]) == 1
    assert standing("bias", -0.5, ceiling["bias"]) == 0
    smooth = smoothed_rates(np.array([0.0, 1.0]), np.array([9, 9]))
    assert smooth.tolist() == [0.05, 0.95]


def test_prediction_powered_by_hand():
    real, dream = np.array([1.0, 0, 1, 1]), np.array([1.0, 0, 1, 0])
    extra = np.array([1.0, 0, 0, 0, 1, 0, 0, 0])
    # cov(real, dream) = 1/6, var of all dreams = 8/33, so w = (1/6) / (8/33 * 1.5) = 11/24.
    found = prediction_powered(real, dream, extra)
    w = 11 / 24
    assert found.weight == pytest.approx(w)
    assert found.score == pytest.approx(0.75 - w * 0.5 + w * 0.25)
    variance = np.var(real - w * dream, ddof=1) / 4 + w**2 * np.var(extra, ddof=1) / 8
    assert found.low == pytest.approx(found.score - 1.959964 * variance**0.5)
    alone = prediction_powered(real, dream, np.array([]))
    assert (alone.score, alone.weight, alone.extra) == (0.75, 0.0, 0)
    assert (alone.low, alone.high) == wilson_interval(0.75, 4)
    with pytest.raises(ValueError, match=r"at least 2 real trials.* 1 real and 1 dreamed"):
        prediction_powered(real[:1], dream[:1], extra)


def test_a_ranking_without_real_trials():
    ranking = rank(rates([5, 19, 5, 12]))
    assert ranking.order == ("b", "d", "a", "c")
    assert ranking.real is None and ranking.agreement is None
    assert [(p.first, p.second) for p in ranking.pairs[:3]] == [("b", "d"), ("b", "a"), ("b", "c")]
    assert ranking.pairs[-1].dream.probability == 0.5
    assert ranking.dream["b"] == Score(0.95, *wilson_interval(0.95, 20), 20)
    json.dumps(ranking.to_json(), allow_nan=False)


def test_a_ranking_with_real_trials():
    dream, real = rates([2, 6, 10, 10, 18]), rates([4, 8, 12, 13, 16])
    agreement = rank(dream, real).agreement
    assert agreement.refusal is None
    assert set(agreement.statistics) == set(STATISTICS) == set(agreement.ceiling)
    s, r = np.array([[2, 6, 10, 10, 18]]) / 20, np.array([[4, 8, 12, 13, 16]]) / 20
    for name, function in STATISTICS.items():
        row = agreement.statistics[name]
        assert row.value == pytest.approx(function(s, r)[0])
        assert row.low <= row.high and 0 <= row.standing <= 1
    assert any("ties policies (c, d)" in line for line in agreement.warnings)
    assert any("Fewer than 50 trials" in line for line in agreement.warnings)
    assert set(agreement.ceiling["pearson"]) == {"p1", "p10", "median"}


def test_every_pair_is_compared_in_both_places():
    """The dream says b > a; in reality a > b, by a quarter of the trials."""
    ranking = rank(rates([5, 15]), rates([12, 7]))
    (pair,) = ranking.pairs
    assert (pair.first, pair.second) == ("b", "a")
    assert pair.dream.difference == pytest.approx(0.5) and pair.real.difference == pytest.approx(-0.25)
    assert pair.dream.probability > 0.9 and pair.real.probability < 0.1


def test_few_real_trials_are_warned_of_however_many_were_dreamt():
    warned = rank(rates([10, 60], 100), rates([5, 12], 20)).agreement.warnings
    assert any("Fewer than 50 trials of b, a" in line for line in warned)
    assert not any(
        "Fewer than 50" in line for line in rank(rates([10, 60], 100), rates([10, 60], 60)).agreement.warnings
    )


def test_the_ceiling_has_the_trials_of_either_place():
    """Dreamed are 100 trials of each policy, real are 10; policies are in the order of the dream, best first."""
    dream, real = rates([20, 40, 50, 60, 80], 100), rates([2, 4, 5, 6, 8], 10)
    hundred, ten = np.full(5, 100), np.full(5, 10)
    expected = noise_ceiling(smoothed_rates(np.array([0.8, 0.6, 0.5, 0.4, 0.2]), ten), hundred, ten)
    found = rank(dream, real, resamples=50).agreement.ceiling
    for name in ("calibration_slope", "mmrv", "rmse"):
        assert found[name]["median"] == percentile(expected[name], 0.5)
        assert found[name]["p10"] == percentile(expected[name], 0.1)


def test_fewer_than_five_policies_are_refused_a_correlation():
    written = rank(rates([2, 10, 18]), rates([4, 12, 16])).to_json()["agreement"]
    assert written["pearson"] == {"value": None, "low": None, "high": None, "standing": None}
    assert "3 policies" in written["refusal"] and "in 20% of the cases" in written["refusal"]
    assert set(written["noise_ceiling"]) == {"bias", "rmse", "top1_regret"}
    assert written["bias"]["value"] == pytest.approx(-2 / 60)
    assert written["bias"]["low"] <= written["bias"]["value"] <= written["bias"]["high"]
    assert "1 policy" in rank(rates([2]), rates([4])).agreement.refusal


def test_extra_dreams_sharpen_the_real_score():
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.6).astype(float)
    dream = {"a": scores(np.where(rng.random(400) < 0.9, truth, 1 - truth))}
    predicted = rank(dream, {"a": scores(truth[:40])}).predicted["a"]
    assert (predicted.paired, predicted.extra) == (40, 360)
    low, high = wilson_interval(truth[:40].mean(), 40)
    assert predicted.high - predicted.low < 0.8 * (high - low)
    assert abs(predicted.score - truth.mean()) < 0.1


def test_dreams_of_other_starts_are_extra():
    """Starts 3, 4 and 5 were tried for real; dreamed were 0 to 5."""
    dream = scores([1, 1, 1, 0, 1, 1])
    real = scores([0, 1, 1], first_seed=3)
    found = rank({"a": dream}, {"a": real}).predicted["a"]
    assert found == prediction_powered(real.outcomes, dream.outcomes[3:], dream.outcomes[:3])
    assert (found.paired, found.extra) == (3, 3) and found.weight > 0


def test_pooling_removes_the_means_of_the_tasks():
    """Within each task the order is reversed, so the tasks' means must not make up for it."""
    easy, hard = rates([16, 17, 18, 19]), rates([1, 2, 3, 4])
    reversed_easy, reversed_hard = rates([19, 18, 17, 16]), rates([4, 3, 2, 1])
    pooled = pooled_pearson([(easy, reversed_easy), (hard, reversed_hard)])
    assert pooled["value"] == pytest.approx(-1) and pooled["n"] == 8
    assert pooled["low"] == pytest.approx(-1)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="there is no policy"):
        rank({})
    with pytest.raises(ValueError, match=r"the dreams are of the policies \['a', 'b'\].*\['a'\]"):
        rank(rates([1, 2]), rates([1]))


def test_nominal_intervals_hold_the_truth_as_often_as_they_say():
    """A small version of `benchmarks/interval_coverage.py`, whose table is in `docs/figures/statistics.md`."""
    file = BENCHMARKS / "interval_coverage.py"
    coverage = runpy.run_path(str(file))
    config = coverage["CoverageConfig"](simulations=100, resamples=300)
    rows = [coverage["cover_scores"](config, 0.3, 100), coverage["cover_prediction"](config, 50, 200, 0.9)]
    rows += [coverage["cover_pairs"](config, (0.6, 0.4), 100)]
    rows += coverage["cover_agreement"](config, 8, 100, 0.95, ("pearson",))
    for row in rows:
        assert 0.88 <= row.coverage <= 1.0, row
    sure = coverage["cover_claims"](config, 0.95, 1.0)
    assert sure.coverage > 0.95 and sure.simulations > 100
