"""Show a plan of trials: a table in the terminal, `plan.json` and a self-contained page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from policy_eval.ranking.plan import (
    COLUMNS,
    POWER,
    PairPlan,
    places,
    plan_rows,
    plan_trials,
    print_plan,
    remarks,
    to_json,
)
from policy_eval.scores import Scores
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals
from worldmodel.display.words import sign_of
from worldmodel.files import write_json


def show_plan(dream: Mapping[str, Scores], real: Mapping[str, Scores] | None, out: Path) -> None:
    """Print the plan, and write `plan.json` and `plan.html` to the folder of the ranking."""
    plans = plan_trials(dream, real)
    write_json(out / "plan.json", to_json(plans, POWER))
    write_plan(plans, POWER, out / "plan.html")
    print_plan(plans, POWER)
    print(f"{out / 'plan.json'} and {out / 'plan.html'}")


def write_plan(plans: Sequence[PairPlan], power: float, file: Path) -> None:
    """Write the page.

    Args:
        plans: What `plan_trials` returns.
        power: Chance to tell two policies apart that the plan aims at.
        file: The page.
    """
    page = Report("How many trials tell the policies apart")
    page.text(f"For each pair of policies: the trials of each that tell the two apart with a power of {power:.0%}.")
    page.meaning([meaning(plans)])
    page.heading("Differences so far")
    caption = "Score of the first policy minus score of the second, with 95% intervals; 0 is no difference"
    page.plots({caption: draw_differences(plans)})
    page.heading("Plan")
    page.table(COLUMNS, plan_rows(plans))
    for line in remarks(plans):
        page.text(line)
    page.write(file)


def meaning(plans: Sequence[PairPlan]) -> str:
    """Which pairs are told apart already and what the others need, in real trials where there are some."""
    place = "dreams" if any(plan.real is None for plan in plans) else "real"
    needs = [places(plan)[place] for plan in plans]
    kind = "dreams" if place == "dreams" else "real trials"
    open_ = [need for need in needs if sign_of((need.low, need.high)) == 0]
    lines = [f"The {kind} made so far tell {len(needs) - len(open_)} of {len(needs)} pairs of policies apart."]
    known = [need.trials for need in open_ if need.trials is not None]
    if known:
        lines.append(
            f"To tell {len(known)} more apart you need up to {max(known)} {kind} of each policy, if the true "
            "differences are those seen."
        )
    if len(known) < len(open_):
        lines.append(f"For {len(open_) - len(known)} no number can be told; the reasons are below the table.")
    return " ".join(lines)


def draw_differences(plans: Sequence[PairPlan]) -> bytes:
    """The differences of all pairs in every place, as a PNG."""
    shared = [place for place in places(plans[0]) if all(place in places(plan) for plan in plans)]
    rows = {}
    for place in shared:
        needs = [(plan, places(plan)[place]) for plan in plans]
        rows[place] = [Row(f"{p.first} - {p.second}", need.difference, need.low, need.high) for p, need in needs]
    return draw_intervals(rows, "difference of the scores", zero=True)
