"""The tables and the picture of `benchmarks/rivals.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange, repeat
from PIL import Image

from worldmodel.dreams.film import label_strip
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.model.card import table

HORIZONS = (1, 10, 25)
"""Frames after the context at which a dream is compared with the recording."""
SHOWN = (1, 5, 10, 25)
"""Frames of the picture."""


def quality_tables(quality: Mapping[str, Mapping[str, Any]], reference: str | None, *, seed: int) -> str:
    """Means with intervals over episodes, then how far each world is from the reference, window by window."""
    metrics = list(next(iter(quality.values()))["scores"])
    sections = []
    for metric in metrics:
        rows = [[name, *cells(found, metric, seed)] for name, found in quality.items()]
        sections.append(f"## {metric}\n\n{table(['world', *columns('at')], rows)}\n")
    if reference is None:
        return "\n".join(sections)
    for metric in metrics:
        rows = []
        for name, found in quality.items():
            if name != reference:
                rows.append([name, *cells(found, metric, seed, minus=quality[reference])])
        sections.append(f"## {metric}: the world minus {reference}\n\n{table(['world', *columns('at')], rows)}\n")
    return "\n".join(sections)


def columns(word: str) -> list[str]:
    """Heads of the columns of the horizons."""
    return [f"{word} {horizon}" for horizon in HORIZONS]


def cells(found: Mapping[str, Any], metric: str, seed: int, minus: Mapping[str, Any] | None = None) -> list[str]:
    """A mean with its 95% interval at each horizon; with `minus`, of the differences of the same windows."""
    values = np.array(found["scores"][metric], dtype=float)
    if minus is not None:
        values = values - np.array(minus["scores"][metric], dtype=float)
    episodes, sign = np.array(found["episodes"]), "+" if minus is not None else ""
    out = []
    for column in values.T:
        kept = np.isfinite(column)
        if not kept.any():
            out.append("-")
            continue
        ends = bootstrap_interval(column[kept], episodes[kept], seed=seed)
        between = "" if ends is None else f" [{ends[0]:{sign}.1f}, {ends[1]:{sign}.1f}]"
        out.append(f"{column[kept].mean():{sign}.1f}{between}")
    return out


def speed_table(
    speed: Mapping[str, Mapping[str, Sequence[float]]],
    about: Mapping[str, Mapping[str, int]],
    reference: str | None,
    *,
    seed: int,
) -> str:
    """Medians of the frames per CPU second, and how many times as fast the reference is as each world with weights."""
    batches = list(next(iter(speed.values())))
    head = ["world", "weights", "training steps"]
    for batch in batches:
        head += [f"frames/s, batch {batch}"] + ([f"{reference} is"] if reference else [])
    rows = []
    for name, found in speed.items():
        weights, steps = about[name]["weights"], about[name]["steps"]
        row = [name, f"{weights / 1e6:.2f}M" if weights else "-", f"{steps}" if steps else "-"]
        for batch in batches:
            row.append(f"{np.median(found[batch]):.1f}")
            if reference:
                compared = name != reference and weights
                row.append(faster(speed[reference][batch], found[batch], seed) if compared else "-")
        rows.append(row)
    return f"## Frames per CPU second of one thread\n\n{table(head, rows)}\n"


def faster(ours: Sequence[float], theirs: Sequence[float], seed: int) -> str:
    """How many times as fast the first one is, with an interval over the rounds, in which they took turns."""
    ratios = np.log(np.array(ours) / np.array(theirs))
    ends = bootstrap_interval(ratios, np.arange(len(ratios)), seed=seed)
    between = "" if ends is None else f" [{np.exp(ends[0]):.2f}, {np.exp(ends[1]):.2f}]"
    return f"{np.exp(ratios.mean()):.2f} times as fast{between}"


def file_of(name: str) -> str:
    """The name of a world as a name of files."""
    return name.replace(", ", "-").replace(" ", "-")


def film_strip(out: Path, names: Sequence[str]) -> None:
    """Write `rivals.png`: the recording and the dream of each world, some frames of the first window."""
    rows: dict[str, np.ndarray] = {}
    for name in names:
        stored = np.load(out / "quality" / f"{file_of(name)}.npz")
        rows["recording"] = stored["truth"]
        rows[name] = stored["dream"]
    strips = []
    for name, frames in rows.items():
        large = repeat(frames[[at - 1 for at in SHOWN]], "t H W c -> t (H p) (W q) c", p=3, q=3)
        large = np.pad(large, ((0, 0), (0, 4), (0, 4), (0, 0)), constant_values=255)
        row = rearrange(large, "t H W c -> H (t W) c")
        label = label_strip([name], row.shape[1])
        strips += [label, row]
    at = label_strip([f"frame {frame}" for frame in SHOWN], strips[1].shape[1] // len(SHOWN))
    Image.fromarray(np.concatenate([at, *strips])).save(out / "rivals.png")
