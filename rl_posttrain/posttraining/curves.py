"""Curves of a post-training run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worldmodel.files import write_atomically

SMOOTH = 10
"""The drawn reward is the mean of this many updates, but at most of a third of all of them."""


def plot_run(updates: Sequence[Mapping], evaluations: Sequence[Mapping], file: Path) -> None:
    """Reward of the candidates above, the guards on held-out episodes below, over updates."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    reward, held = figure.subplots(2, 1, sharex=True)
    rewarded = [row for row in updates if row.get("reward") is not None]
    if rewarded:
        steps = [row["step"] for row in rewarded]
        values = np.array([row["reward"] for row in rewarded])
        width = max(min(SMOOTH, len(values) // 3), 1)
        reward.plot(steps, values, alpha=0.3)
        smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
        reward.plot(steps[width - 1 :], smooth, label="fidelity of the candidates")
        reward.legend()
    reward.set_ylabel("reward")
    first = evaluations[0]
    for name in first:
        drawn = name.startswith(("error.", "reward.")) or name in ("sharpness", "motion", "response")
        if drawn and first[name]:
            points = [(r["step"], r[name] / first[name]) for r in evaluations if r[name] is not None]
            held.plot(*zip(*points, strict=True), marker="o", label=name)
    held.set(xlabel="updates", ylabel="held out, relative to before")
    held.legend(fontsize=8, ncols=3)
    write_atomically(file, lambda path: figure.savefig(path, format="png", dpi=100))
