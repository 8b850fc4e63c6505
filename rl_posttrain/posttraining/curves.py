"""Curves of a post-training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worldmodel.files import write_atomically

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
    """Rewards above, the guards on held-out episodes below, over updates."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    reward, held = figure.subplots(2, 1, sharex=True)
    label, curves = reward_curves(updates)
    for name, (steps, values) in curves.items():
        width = max(min(SMOOTH, len(values) // 3), 1)
        reward.plot(steps, values, alpha=0.3)
        smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
        reward.plot(steps[width - 1 :], smooth, label=name)
    if curves:
        reward.legend()
    reward.set_ylabel(label)
    first = evaluations[0]
    for name in first:
        drawn = name.startswith(("error.", "reward.")) or name in GUARDS
        if drawn and first[name]:
            points = [(r["step"], r[name] / first[name]) for r in evaluations if r[name] is not None]
            held.plot(*zip(*points, strict=True), marker="o", label=name)
    held.set(xlabel="updates", ylabel="held out, relative to before")
    held.legend(fontsize=8, ncols=3)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))
