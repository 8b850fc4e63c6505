"""The sentences about a ranking and about a plan, one for each verdict."""

import pytest

from policy_eval.ranking.meaning import meaning
from policy_eval.ranking.plan import Need, PairPlan
from policy_eval.ranking.plan_page import meaning as plan_meaning
from policy_eval.ranking.plan_page import write_plan


def report(ahead=(0.1, 0.3), pearson=(0.7, 0.95), bias=(0.05, 0.2)):
    """A ranking of `a` before `b`."""

    def row(interval):
        return dict(zip(("value", "low", "high"), (sum(interval) / 2, *interval), strict=True))

    dream = {"difference": sum(ahead) / 2, "low": ahead[0], "high": ahead[1]}
    refused = {"value": None, "low": None, "high": None}
    agreement = {"pearson": row(pearson) if pearson else refused, "bias": row(bias)}
    return {
        "policies": [{"name": name, "dream": {"score": 0.5, "low": 0.4, "high": 0.6}} for name in "ab"],
        "pairs": [{"first": "a", "second": "b", "dream": dream}],
        "agreement": agreement,
    }


def test_the_best_policy_needs_an_interval_above_0():
    best, _ = meaning(report())
    assert best == (
        "In the dreams a is the best policy: it is ahead of b, the second, by 0.20 (95% interval 0.10 to 0.30)."
    )
    unsure, _ = meaning(report(ahead=(-0.1, 0.3)))
    assert unsure.startswith("It cannot be told which policy is best in the dreams: the first two, a and b, differ by")
    assert unsure.endswith("0.10 (95% interval -0.10 to 0.30), and the interval includes 0.")


@pytest.mark.parametrize(
    ("pearson", "words"),
    [
        ((0.7, 0.9), "Reality has a similar order: Pearson r is 0.80 (95% interval 0.70 to 0.90)."),
        ((-0.9, -0.7), "Reality has the opposite order: Pearson r is -0.80"),
        ((-0.1, 0.9), "It cannot be told whether reality has the same order: Pearson r is 0.40"),
        (None, "There are too few policies to tell whether reality has the same order."),
    ],
)
def test_the_order_of_reality(pearson, words):
    assert meaning(report(pearson=pearson))[1].startswith(words)


@pytest.mark.parametrize(
    ("bias", "words"),
    [
        ((0.05, 0.25), "The dreams are too optimistic, by 0.15 (95% interval of dream minus real 0.05 to 0.25)."),
        ((-0.25, -0.05), "The dreams are too pessimistic, by 0.15"),
        ((-0.05, 0.15), "It cannot be told whether the dreams are too optimistic: they are off by 0.05"),
    ],
)
def test_the_optimism_of_the_dreams(bias, words):
    assert words in meaning(report(bias=bias))[1]


def test_what_is_missing_is_said():
    alone = report()
    alone["policies"].pop()
    alone["pairs"], alone["agreement"] = [], None
    assert meaning(alone) == [
        "Only one policy was tried, so there is no order: a succeeds in 50% of its dreams (95% interval 40% to 60%).",
        "There are no real trials, so nothing here says whether reality has the same order.",
    ]


def need(low, high, trials=40, reason=""):
    return Need(20, (low + high) / 2, low, high, trials, trials, None, reason)


SURE, UNSURE, NEVER = need(0.1, 0.3), need(-0.1, 0.3, 70), need(-0.2, 0.2, None, "the pilot shows no difference")


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ([SURE, SURE], "The dreams made so far tell 2 of 2 pairs of policies apart."),
        (
            [SURE, UNSURE, NEVER],
            "The dreams made so far tell 1 of 3 pairs of policies apart. To tell 1 more apart you need up to 70 "
            "dreams of each policy, if the true differences are those seen. For 1 no number can be told",
        ),
        ([NEVER], "The dreams made so far tell 0 of 1 pairs of policies apart. For 1 no number can be told;"),
    ],
)
def test_a_plan_in_words(needs, words):
    plans = [PairPlan("a", f"b{number}", each, None, None) for number, each in enumerate(needs)]
    assert plan_meaning(plans).startswith(words), plan_meaning(plans)


def test_real_trials_decide_where_there_are_some(tmp_path):
    plans = [PairPlan("a", "b", SURE, UNSURE, None)]
    assert "The real trials made so far tell 0 of 1 pairs" in plan_meaning(plans)
    write_plan(plans, 0.8, tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text()
    assert plan_meaning(plans) in page and "data:image/png" in page and "a power of 80%" in page
