"""Tables, curves and videos of a post-training run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from einops import rearrange, repeat
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from worldmodel.data.video import write_video
from worldmodel.rollout_video import PICTURE_HEIGHT, label_strip

SMOOTH = 10
"""Updates that the drawn reward is the mean of."""


class Table:
    """Rows with a `step` in a JSON-lines file; a resumed run drops those it will repeat.

    Args:
        file: The table.
        step: Rows from this step on are dropped.
    """

    def __init__(self, file: Path, step: int):
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = [row for row in map(json.loads, lines) if row["step"] < step]
        self.file = file
        file.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: Mapping[str, object]) -> None:
        """Append a row; NaN becomes null."""
        clean = {k: None if v != v else v for k, v in row.items()}  # NaN differs from itself
        self.rows.append(clean)
        with self.file.open("a") as table:
            table.write(json.dumps(clean) + "\n")


def plot_run(updates: Sequence[Mapping], evaluations: Sequence[Mapping], file: Path) -> None:
    """Reward of the candidates above, the guards on held-out episodes below, over updates."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    reward, held = figure.subplots(2, 1, sharex=True)
    rewarded = [row for row in updates if row.get("reward") is not None]
    if rewarded:
        steps = [row["step"] for row in rewarded]
        values = np.array([row["reward"] for row in rewarded])
        width = min(SMOOTH, len(values))
        reward.plot(steps, values, alpha=0.3)
        smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
        reward.plot(steps[width - 1 :], smooth, label="fidelity of the candidates")
        reward.legend()
    reward.set_ylabel("reward")
    first = evaluations[0]
    for name in first:
        drawn = name.startswith(("error.", "reward.")) or name in (
            "sharpness",
            "motion",
            "response",
        )
        if drawn and first[name]:
            points = [
                (r["step"], r[name] / first[name]) for r in evaluations if r[name] is not None
            ]
            held.plot(*zip(*points, strict=True), marker="o", label=name)
    held.set(xlabel="updates", ylabel="held out, relative to before")
    held.legend(fontsize=8, ncols=3)
    figure.savefig(file, dpi=100)


def write_side_by_side(
    rows: Mapping[str, UInt8[Tensor, "t v H W 3"]], views: Sequence[str], file: Path, fps: float
) -> None:
    """One row per label, e.g. truth, before, after; cameras side by side."""
    frames = next(iter(rows.values()))
    scale = max(1, round(PICTURE_HEIGHT / frames.shape[2]))
    parts = []
    for label, pictures in rows.items():
        strip = label_strip([f"{label} - {view}" for view in views], frames.shape[3] * scale)
        parts.append(repeat(strip, "h w c -> t h w c", t=len(pictures)))
        large = repeat(pictures.cpu(), "t v h w c -> t v (h p) (w q) c", p=scale, q=scale)
        parts.append(rearrange(large, "t v h w c -> t h (v w) c").numpy())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_video(file, np.concatenate(parts, axis=1), fps)
