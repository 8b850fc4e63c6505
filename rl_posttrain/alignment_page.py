"""An alignment as a self-contained page: words, a film, and the agreement after each number of rollouts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policy_eval.ranking.report import WORDS
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals
from worldmodel.display.words import order_of, span

Table = Mapping[str, Mapping[str, Any]]
"""Number of rollouts -> agreement, as in `align.json`; 0 is before."""


def meaning(table: Table) -> list[str]:
    """Whether the dreams agree better with the real trials than before: their correlation and their bias.

    Two 95% intervals that overlap tell no difference.
    """
    before, (number, after) = table["0"], list(table.items())[-1]
    said = []
    if before["pearson"]["value"] is None:
        said.append("There are too few policies to tell whether the order of the policies agrees better than before.")
    else:
        order = order_of(*(_interval(rows["pearson"]) for rows in (after, before)))
        said.append(_sentence("the order of the policies", "Pearson r", before, after, "pearson", order, number))
    order = order_of(*(_interval_of_size(rows["bias"]) for rows in (before, after)))
    said.append(_sentence("the success rates", "dream minus real", before, after, "bias", order, number))
    return said


def _sentence(
    what: str, name: str, before: Mapping[str, Any], after: Mapping[str, Any], key: str, order: int, number: str
) -> str:
    old, new = (f"{rows[key]['value']:.2f} ({span(_interval(rows[key]))})" for rows in (before, after))
    measured = f"{name} was {old} before and is {new} after {number} rollouts"
    verb = "agrees" if "order" in what else "agree"
    if order == 0:
        return f"It cannot be told whether {what} {verb} better with reality: {measured}, and the intervals overlap."
    return f"After {number} rollouts {what} {verb} {'better' if order > 0 else 'worse'} with reality: {measured}."


def _interval(row: Mapping[str, float]) -> tuple[float, float]:
    return row["low"], row["high"]


def _interval_of_size(row: Mapping[str, float]) -> tuple[float, float]:
    """The interval of the absolute value."""
    low, high = _interval(row)
    ends = sorted((abs(low), abs(high)))
    return (0.0 if low < 0 < high else ends[0]), ends[1]


def write_page(table: Table, shown: Sequence[str], videos: Sequence[Path], file: Path) -> None:
    """Write the page.

    Args:
        table: The agreement after each number of rollouts.
        shown: The statistics to show.
        videos: Films of the last ranking.
        file: The page.
    """
    page = Report("Dreams aligned with real rollouts")
    page.meaning(meaning(table))
    if videos:
        page.heading("Film")
        page.video(videos[0], f"In the aligned world: {videos[0].stem}; with two rows, reality above, the dream below")
    page.heading("Agreement with real trials")
    page.plots({f"{WORDS[name]}, with 95% intervals": draw(table, name) for name in shown if _known(table, name)})
    columns = ("rollouts", *(WORDS[name] for name in shown))
    page.table(columns, [(number, *(_cell(rows[name]) for name in shown)) for number, rows in table.items()])
    page.write(file)


def draw(table: Table, name: str) -> bytes:
    """A statistic after each number of rollouts, as a PNG."""
    fields = ("value", "low", "high")
    rows = [Row(f"{number} rollouts", *(each[name][key] for key in fields)) for number, each in table.items()]
    return draw_intervals({"agreement": rows}, WORDS[name], zero=True)


def _known(table: Table, name: str) -> bool:
    return all(rows[name]["value"] is not None for rows in table.values())


def _cell(row: Mapping[str, float | None]) -> str:
    return "-" if row["value"] is None else f"{row['value']:.2f} ({span(_interval(row))})"
