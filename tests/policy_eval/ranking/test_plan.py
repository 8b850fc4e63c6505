import io
import json

import numpy as np
import pytest
from rank_set import write_rank_set
from rich.console import Console

from policy_eval.ranking.plan import need, plan_trials, print_plan, to_json
from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.statistics.power import PairRates
from policy_eval.statistics.powered_difference import Moments, powered_difference
from policy_eval.statistics.resampling import NORMAL
from worldmodel.cli import main


def scores(outcomes, first_seed: int = 0) -> Scores:
    outcomes = np.array(outcomes, float)
    seeds = first_seed + np.arange(len(outcomes))
    return Scores("anonymous", seeds, outcomes, np.zeros(len(outcomes)), np.ones(len(outcomes), np.int64))


def shares(*numbers: int) -> tuple[Scores, Scores]:
    """Two policies: so many starts where both succeed, only the first, only the second, none."""
    first = np.repeat([1, 1, 0, 0], numbers)
    return scores(first), scores(np.repeat([1, 0, 1, 0], numbers))


def printed(plans) -> str:
    file = io.StringIO()
    print_plan(plans, 0.8, Console(file=file, width=140))
    return file.getvalue()


def test_the_number_is_that_of_the_rates_seen():
    pilot = shares(8, 12, 2, 18)
    found = need(*pilot)
    seen = pair_order(*pilot)
    assert (found.made, found.difference, found.low, found.high) == (40, 0.25, seen.low, seen.high)
    assert 0.77 < PairRates.of_trials(*pilot).power(found.trials, seed=1) < 0.83
    back = need(*pilot[::-1])
    assert back.difference == -0.25 and back.trials == pytest.approx(found.trials, rel=0.05)
    assert need(*pilot, power=0.95).trials > 1.3 * found.trials


def test_the_range_is_that_of_the_interval():
    found = need(*shares(16, 24, 4, 36))
    assert found.low > 0
    assert found.fewest == pytest.approx(found.trials * (0.25 / found.high) ** 2, abs=1)
    assert found.most == pytest.approx(found.trials * (0.25 / found.low) ** 2, abs=1)
    unsure = need(*shares(4, 6, 4, 6))
    assert unsure.low < 0 and unsure.most is None and unsure.fewest < unsure.trials


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((3, 3, 0, 3), "the pilot has 9 trials, and at least 10 are needed"),
        ((5, 5, 5, 5), "the pilot shows no difference"),
        ((7000, 1401, 1400, 9000), "more than 100000 trials would be needed"),
    ],
)
def test_what_cannot_be_told_is_said_plainly(numbers, reason):
    plans = plan_trials(dict(zip("ab", shares(*numbers), strict=True)))
    assert plans[0].dream.trials is None and plans[0].dream.reason == reason
    assert "cannot be told" in printed(plans) and f"a, b, dreams: cannot be told, because {reason}." in printed(plans)


def test_every_pair_is_planned_in_every_place():
    """Dreams repeat reality on 40 starts, and there are 200 more of them, so that fewer real trials are needed."""
    rng = np.random.default_rng(0)
    dream = {name: scores(rng.random(240) < rate) for name, rate in {"a": 0.2, "b": 0.5, "c": 0.8}.items()}
    real = {name: scores(each.outcomes[100:140], 100) for name, each in dream.items()}
    plans = plan_trials(dream, real)
    assert [(plan.first, plan.second) for plan in plans] == [("c", "b"), ("c", "a"), ("b", "a")]
    for plan in plans:
        assert plan.dream == need(dream[plan.first], dream[plan.second]) and plan.dream.made == 240
        assert plan.real == need(real[plan.first], real[plan.second]) and plan.real.made == 40
        assert plan.real_with_dreams.made == 40 and plan.real_with_dreams.trials < 0.75 * plan.real.trials
    gap = dream["c"].outcomes - dream["b"].outcomes
    tried, extra = gap[100:140], np.delete(gap, np.arange(100, 140))
    _, low, high, _ = powered_difference(Moments.of(tried, tried, extra), NORMAL.inv_cdf(0.975))
    assert (plans[0].real_with_dreams.low, plans[0].real_with_dreams.high) == (low.item(), high.item())
    fewer = plan_trials(dream, real, dreams_per_trial=1)
    assert fewer[0].real_with_dreams.trials > 1.2 * plans[0].real_with_dreams.trials
    table = printed(plans)
    assert table.count("real, with dreams") == 3 and "needs as many as the dream" not in table
    assert "needs as many as the dream" in printed(plan_trials(dream))
    assert json.loads(json.dumps(to_json(plans, 0.8)))["pairs"][0]["first"] == "c"


def test_real_trials_from_other_starts_are_planned_without_dreams():
    dream = dict(zip("ab", shares(8, 12, 2, 18), strict=True))
    real = {name: scores(each.outcomes, 100 * (1 + index)) for index, (name, each) in enumerate(dream.items())}
    (plan,) = plan_trials(dream, real)
    assert plan.real_with_dreams is None and plan.real.trials > plan.dream.trials and plan.real.made == 40


def test_a_plan_that_makes_no_sense_is_refused():
    one = {"a": scores([1, 0])}
    with pytest.raises(ValueError, match=r"at least two policies, got \['a'\]"):
        plan_trials(one)
    two = one | {"b": scores([1, 0])}
    with pytest.raises(ValueError, match=r"\['a', 'b'\], the real trials of \['a'\]"):
        plan_trials(two, one)
    with pytest.raises(ValueError, match=r"between 0 and 1, dreams per trial at least 1, got 1\.5 and 10"):
        plan_trials(two, power=1.5)


@pytest.mark.slow
def test_the_command_runs_the_pilot_first(tmp_path, capsys):
    made = write_rank_set(tmp_path / "set", policies=2, episodes=2)
    flags = made.flags(tmp_path / "out", "--episodes", "2", "--horizon", "2", "--workers", "1", "--plan")
    assert main(["rank", *flags, "--real", "pusht-position"]) == 0
    assert "real: cannot be told, because the pilot has 2 trials" in capsys.readouterr().out
    assert (tmp_path / "out" / "ranking.json").exists() and (tmp_path / "out" / "plan.json").exists()
