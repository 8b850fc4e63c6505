"""Compare the arms of `posttrain.py` episode by episode, and print and plot what was found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worldmodel.fidelity.intervals import bootstrap_interval

Rows = Sequence[Mapping[str, Any]]

KEYS = ("arm", "run", "episode", "window")
"""What a row is; all its other entries are measures."""
HIGHER_IS_BETTER = ("overlap", "psnr", "ssim", "masked_psnr")
NEARER_TO_ONE_IS_BETTER = ("sharpness", "sharpness_moved", "motion")
LABELS = {
    "missing": "missing rate",
    "error_px": "position error, px of 64",
    "overlap": "overlap of the shape",
    "spread_error_px": "error of the spreads, px",
    "state_error": "error of the robot's state",
    "action_error": "decoded against commanded actions",
    "distance": "perceptual distance, lite2, of what can be seen",
    "distance_raw": "perceptual distance, lite2, also of what cannot be seen",
    "sharpness": "sharpness, truth 1",
    "sharpness_moved": "sharpness where something moved, truth 1",
    "psnr": "PSNR, dB",
    "masked_psnr": "masked PSNR, dB",
}
"""Measures that are printed; the others are in the JSON file only."""
RELATIVE = ("action_error", "distance", "distance_raw")
"""Measures whose changes are also printed as a share of the reference."""


def better(name: str, value: np.ndarray, before: np.ndarray) -> np.ndarray:
    """How much better `value` is than `before`; negative where it is worse."""
    kind = name.split(".")[0]
    if kind in NEARER_TO_ONE_IS_BETTER:
        return np.abs(before - 1) - np.abs(value - 1)
    return value - before if kind in HIGHER_IS_BETTER else before - value


def compare(rows: Rows, reference: str) -> dict[str, dict[str, Any]]:
    """Every measure of every arm: its mean, and the paired difference to the arm `reference` with its interval.

    Differences are paired by window, and by run where the reference has as many runs as the arm; with a single run of
    the reference, every run is held against that one. The bootstrap draws episodes, with all their windows and runs.

    Returns:
        `{arm: {measure: ...}}` with `mean`, `change`, `interval` (95%, `None` with fewer than two episodes),
        `share` (the change as a share of the reference's mean), `better` (share of the episodes whose mean is better)
        and `n` (pairs). The reference has changes of 0.
    """
    runs = {row["run"] for row in rows if row["arm"] == reference}
    known = {(row["run"], row["episode"], row["window"]): row for row in rows if row["arm"] == reference}
    only = next(iter(runs)) if len(runs) == 1 else None
    found: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        pairs = [(r, known.get((r["run"] if only is None else only, r["episode"], r["window"]))) for r in mine]
        pairs = [(row, other) for row, other in pairs if other is not None]
        names = [name for name in mine[0] if name not in KEYS]
        entries = {name: _compared(name, pairs) for name in names}
        found[arm] = {name: entry for name, entry in entries.items() if entry is not None}
    return found


def _compared(name: str, pairs: Sequence[tuple[Mapping, Mapping]]) -> dict[str, Any] | None:
    """One measure of one arm against the reference; `None` where no pair has it."""
    both = [(a[name], b[name], a["episode"]) for a, b in pairs if a[name] is not None and b.get(name) is not None]
    if not both:
        return None
    values, before, episodes = (np.array(column) for column in zip(*both, strict=True))
    change, gain = values - before, better(name, values, before)
    interval = bootstrap_interval(change.astype(float), episodes)
    means = [gain[episodes == episode].mean() for episode in np.unique(episodes)]
    return {
        "mean": float(values.mean()),
        "change": float(change.mean()),
        "interval": None if interval is None else list(interval),
        "share": float(change.mean() / before.mean()) if before.mean() else None,
        "better": float(np.mean(np.array(means) > 0)),
        "n": len(both),
    }


def table(comparison: Mapping[str, Mapping[str, Any]], reference: str) -> str:
    """Markdown: a row for each measure, a column for each arm; changes against the reference, and intervals."""
    arms = [reference, *(arm for arm in comparison if arm != reference)]
    lines = [f"| measure | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    kinds = list(LABELS)
    names = [name for name in comparison[reference] if name.split(".")[0] in kinds]
    for name in sorted(names, key=lambda each: kinds.index(each.split(".")[0])):
        kind, *where = name.split(".")
        cells = [cell(kind, comparison[arm].get(name), is_reference=arm == reference) for arm in arms]
        lines.append(f"| {LABELS[kind]}: {' '.join(where)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(kind: str, entry: Mapping[str, Any] | None, *, is_reference: bool) -> str:
    """The mean of the reference, or the change against it, its interval, and its share where that says more."""
    digits = 4 if kind.startswith("distance") else 2 if "psnr" in kind or kind.endswith("px") else 3
    if entry is None:
        return "-"
    if is_reference:
        return f"{entry['mean']:.{digits}f}"
    text = f"{entry['change']:+.{digits}f}"
    if entry["interval"] is not None:
        low, high = entry["interval"]
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{text} ({entry['share']:+.0%})" if kind in RELATIVE and entry["share"] is not None else text


def plot(rows: Rows, horizons: Sequence[int], file: Path) -> None:
    """Every measure that is taken at the horizons, over the horizon, a line for each arm."""
    names = list(dict.fromkeys(n.rsplit(".", 1)[0] for n in rows[0] if n.rsplit(".", 1)[-1].isdigit()))
    height = -(-len(names) // 4)
    figure = Figure(figsize=(12, 2.6 * height + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(height, 4, squeeze=False).flat
    for axes in list(grid)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(figure.axes, names, strict=False):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            values = [
                [r[f"{name}.{h}"] for r in rows if r["arm"] == arm and r[f"{name}.{h}"] is not None] for h in horizons
            ]
            axes.plot(horizons, [np.mean(v) if v else np.nan for v in values], "o-", label=arm)
        axes.set(title=name, xlabel="horizon, frames")
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(file, dpi=90)
