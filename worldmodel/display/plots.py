"""Small plots for pages: one panel each, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # half a second of every command that draws at its end only
    import matplotlib.axes
    import matplotlib.figure


@dataclass(frozen=True)
class Row:
    """A value with its 95% interval, for `draw_intervals`.

    Attributes:
        name: What is measured.
        value: The estimate.
        low: Lower end.
        high: Upper end.
    """

    name: str
    value: float
    low: float
    high: float


def empty_figure(width: float, height: float) -> "matplotlib.figure.Figure":
    """A figure without panels, which needs no display; the size is in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel(width: float = 4.6, height: float = 3.2) -> tuple["matplotlib.figure.Figure", "matplotlib.axes.Axes"]:
    """An empty figure of one panel; the size is in inches."""
    figure = empty_figure(width, height)
    return figure, figure.subplots()


def png(figure: "matplotlib.figure.Figure") -> bytes:
    """A figure as the contents of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def draw_intervals(places: Mapping[str, Sequence[Row]], label: str, *, zero: bool = False) -> bytes:
    """Values with their intervals, one line for each name; returns a PNG.

    Args:
        places: Rows by the name of where they were measured; every place has the same names.
        label: What the axis shows.
        zero: Mark 0, for differences.
    """
    names = [row.name for row in next(iter(places.values()))]
    figure, axes = panel(height=1.2 + 0.22 * len(names) * len(places) + 0.2)
    for number, (place, rows) in enumerate(places.items()):
        heights = [index + 0.25 * (number - (len(places) - 1) / 2) for index in range(len(rows))]
        # Stored intervals may end beyond the value by a rounding error, and matplotlib refuses arms below 0.
        arms = [max(row.value - row.low, 0.0) for row in rows], [max(row.high - row.value, 0.0) for row in rows]
        axes.errorbar([row.value for row in rows], heights, xerr=arms, fmt="o", ms=4, capsize=3, label=place)
    if zero:
        axes.axvline(0, color="0.5", lw=1, ls="--")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    if len(places) > 1:
        figure.legend(fontsize=8, loc="outside upper center", ncols=len(places))
    return png(figure)
