"""A steered policy's trials as a table in the terminal and as a self-contained page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from policy_eval.steering.fan import draw_fan
from policy_eval.steering.film import SteeringFilm
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals
from worldmodel.display.words import sign_of, span

COLUMNS = ("row", "real success", "95% interval", "trials", "steered minus this", "95% interval of the difference")


def meaning(found: Mapping[str, Any]) -> list[str]:
    """Whether the choice among imagined plans helps, in words.

    Args:
        found: The contents of `steering.json`.
    """
    alone, chance = (found["pairs"][f"steered minus {name}"] for name in ("alone", "random"))
    signs = [sign_of((pair["low"], pair["high"])) for pair in (alone, chance)]
    rates = (
        f"{found['rows']['steered']['score']:.0%} of its trials succeed, {found['rows']['alone']['score']:.0%} alone"
    )
    said = f"{rates} (95% interval of the difference {span((alone['low'], alone['high']))})"
    if signs[0] == 0:
        return [f"It cannot be told whether steering helps this policy: {said}, and the interval includes 0."]
    if signs[0] < 0:
        return [f"Steering does harm to this policy: {said}."]
    return [f"Steering makes this policy better: {said}.", _cause(signs[1], chance)]


def _cause(sign: int, chance: Mapping[str, float]) -> str:
    measured = f"compared with one of the plans at random it is {chance['difference']:+.2f}"
    interval = f"95% interval {span((chance['low'], chance['high']))}"
    if sign > 0:
        return f"It is the choice that helps, and not the noise alone: {measured} ({interval})."
    return f"Whether it is the choice that helps, or the noise alone, cannot be told: {measured} ({interval})."


def table(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One line for each row of the trials."""
    lines = []
    for name, row in found["rows"].items():
        pair = found["pairs"].get(f"steered minus {name}")
        cells = [name, f"{row['score']:.2f}", span((row["low"], row["high"])), str(row["n"])]
        cells += (
            ["-", "-"] if pair is None else [f"{pair['difference']:+.2f}", span((pair["low"], pair["high"]), "{:+.2f}")]
        )
        lines.append(tuple(cells))
    return lines


def print_table(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the rows, and how long a decision takes."""
    console = Console() if console is None else console
    printed = Table(title="real trials from the same starts")
    for column in COLUMNS:
        printed.add_column(column)
    for line in table(found):
        printed.add_row(*line)
    console.print(printed)
    console.print(decision(found), soft_wrap=True)


def decision(found: Mapping[str, Any]) -> str:
    """How long a decision takes, in words."""
    middle, slow = found["decision_ms"]
    return f"A decision takes {middle:.0f} ms (99th percentile {slow:.0f} ms) for one robot on this machine."


def write_page(found: Mapping[str, Any], film: SteeringFilm, file: Path) -> None:
    """Write the page.

    Args:
        found: The contents of `steering.json`.
        film: A trial alone and steered.
        file: The page.
    """
    settings = found["settings"]
    page = Report("A policy steered by imagination")
    page.text(
        f"{settings['policy']} proposes {settings['k']} plans, the world model {settings['world']} imagines each "
        f"{settings['lookahead']} steps ahead, and the best one is carried out. All rows have the same real starts."
    )
    page.meaning(meaning(found))
    page.heading("Success")
    page.table(COLUMNS, table(found))
    rows = [Row(name, row["score"], row["low"], row["high"]) for name, row in found["rows"].items()]
    pairs = [Row(name, pair["difference"], pair["low"], pair["high"]) for name, pair in found["pairs"].items()]
    page.plots(
        {
            "Real success with 95% intervals": draw_intervals({"real": rows}, "share of successful trials"),
            "Differences with 95% intervals": draw_intervals({"real": pairs}, "difference of success", zero=True),
            "The end of each imagined plan at one decision, with its score; the frame is around the best": draw_fan(
                film.choice
            ),
        }
    )
    page.text(decision(found))
    page.heading("Film")
    page.video(film.file, film.caption)
    page.heading("Settings")
    page.facts(settings)
    page.write(file)
