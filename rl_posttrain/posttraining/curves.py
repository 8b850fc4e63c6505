"""Curves of a post-training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldmodel.display.plots import empty_figure
from worldmodel.files import write_atomically

if TYPE_CHECKING:
    import matplotlib.axes

SMOOTH = 10
"""The drawn reward is the mean of this many updates, but at most of a third of all of them."""
GUARDS = ("sharpness", "motion", "response", "cross_view")
"""Measures of the dreams that are drawn beside the errors of objects and the rewards."""

Curve = tuple[Sequence[int], np.ndarray]
"""Steps and values."""


def reward_curves(updates: Sequence[Mapping]) -> tuple[str, dict[str, Curve]]:
    """What is drawn of the rewards, and the label of its axis.

    Of candidates it is their fidelity. Rewards with a gradient have scales of their own, so each is drawn as its change
    since the first updates, relative to its size there.
    """
    rewarded = [row for row in updates if row.get("reward") is not None]
    if rewarded:
        values = np.array([row["reward"] for row in rewarded])
        return "reward", {"fidelity of the candidates": ([row["step"] for row in rewarded], values)}
    curves = {}
    for name in updates[0] if updates else ():
        if name.startswith("reward."):
            rows = [row for row in updates if row.get(name) is not None]
            values = np.array([row[name] for row in rows])
            first = values[:SMOOTH].mean()
            change = (values - first) / max(abs(first), 1e-9)
            curves[name.removeprefix("reward.")] = ([row["step"] for row in rows], change)
    return "change of the rewards, relative", curves


def plot_run(updates: Sequence[Mapping], evaluations: Sequence[Mapping], file: Path) -> None:
    """Rewards above, if there are any, and the guards on held-out episodes below, over updates."""
    label, curves = reward_curves(updates)
    panels = 2 if curves else 1
    figure = empty_figure(9.0, 3.0 * panels)
    *above, held = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for reward in above:
        draw_rewards(reward, label, curves)
    first = evaluations[0]
    for name in first:
        drawn = name.startswith(("error.", "reward.")) or name in GUARDS
        if drawn and first[name]:
            points = [(r["step"], r[name] / first[name]) for r in evaluations if r[name] is not None]
            held.plot(*zip(*points, strict=True), marker="o", label=name)
    held.set(xlabel="updates", ylabel="held out, relative to before")
    held.legend(fontsize=8, ncols=3)
    held.xaxis.get_major_locator().set_params(integer=True)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))


def draw_rewards(axes: "matplotlib.axes.Axes", label: str, curves: Mapping[str, Curve]) -> None:
    """Draw the rewards of all updates faintly, and their running means."""
    for name, (steps, values) in curves.items():
        width = max(min(SMOOTH, len(values) // 3), 1)
        axes.plot(steps, values, alpha=0.3)
        smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
        axes.plot(steps[width - 1 :], smooth, label=name)
    axes.legend()
    axes.set_ylabel(label)
