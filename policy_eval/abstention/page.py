"""What the page of a ranking says of the dreams that are not to be trusted."""

from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from worldmodel.display.html import Report
from worldmodel.display.plots import empty_figure, png

COLUMNS = ("policy", "decided", "success of the decided", "success of all lies between", "unsure from step (median)")
SIGNALS = {
    "inverse-dynamics": "decoded minus commanded actions, in deviations of the commands",
    "seeds": "difference of two dreams of the same actions, 0 to 1",
}


def show_abstention(page: Report, found: Mapping[str, Any]) -> None:
    """Add a table and a picture.

    Args:
        page: The page.
        found: `abstention` in `ranking.json`.
    """
    page.heading("Where the dreams are not trusted")
    page.table(COLUMNS, rows(found))
    page.plots({"How much the dreams are trusted, by step; policies as in the table": draw(found)})


def sentences(found: Mapping[str, Any]) -> list[str]:
    """How the limit was set, and what to think of the signal."""
    limit = found["limit"]
    others = limit["recordings"] - limit["faithful"]
    lines = [
        f"Signal: {found['signal']} ({SIGNALS[found['signal']]}). A dream is unsure from the first step at which it is "
        f"above {limit['value']:.3g}. {limit['recordings']} recorded episodes set this limit: of the "
        f"{limit['faithful']} that end in the dream as they did for real at most {limit['error']:.0%} are above it."
    ]
    if others:
        lines.append(f"Of the {others} dreams of recordings that end otherwise {limit['exceeded']:.0%} are above it.")
    return lines


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per policy."""
    lines = []
    for each in found["policies"]:
        steps = list(each["unsure_from"].values())
        rate = each["low"] * each["n"] / each["decided"] if each["decided"] else None
        lines.append(
            (
                each["name"],
                f"{each['decided']} of {each['n']} ({each['decided'] / each['n']:.0%})",
                "-" if rate is None else f"{rate:.2f}",
                f"{each['low']:.2f} and {each['high']:.2f}",
                f"{median(steps):g}" if steps else "-",
            )
        )
    return lines


def draw(found: Mapping[str, Any]) -> bytes:
    """The signal that one dream in ten exceeds, with the limit, above the share of dreams that are unsure; a PNG."""
    figure = empty_figure(6.4, 5.2)
    above, below = figure.subplots(2, 1, sharex=True)
    for number, each in enumerate(found["policies"]):
        style = {"color": f"C{number % 10}", "lw": 1.4, "ls": "-" if number < 10 else "--"}
        steps = np.arange(1, len(each["upper"]) + 1)
        above.plot(steps, each["upper"], label=each["name"], **style)
        begins = np.sort(list(each["unsure_from"].values()))
        below.step(steps, np.searchsorted(begins, steps, side="right") / each["n"], where="post", **style)
    above.axhline(found["limit"]["value"], color="0.4", lw=1, ls=":", label="limit")
    above.set_ylabel("signal of one in ten", fontsize=9)
    below.set(xlabel="step", ylim=(-0.02, 1.02))
    below.set_ylabel("share unsure", fontsize=9)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    figure.legend(fontsize=8, loc="outside right upper")
    return png(figure)
