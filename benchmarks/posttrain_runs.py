"""Runs of `posttrain.py`: they go on where they stopped, and world models on the way are kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import posttrain

TERMS = ("reward", "spread", "zero_variance", "gap", "regression", "told_apart", "reward.realism", "reward.perceptual")
"""Figures of the updates of which a summary has the means at the beginning and at the end."""


def train(settings: PosttrainConfig) -> None:
    """Train, or continue what a killed benchmark began."""
    state = settings.out / "state" / "state.json"
    if state.exists():
        progress = json.loads(state.read_text())
        over = progress["seconds"] >= 60 * settings.minutes or progress["step"] >= settings.steps
        if over and (settings.out / "world.json").exists():
            return
    print(f"\n== {settings.out} ==", flush=True)
    posttrain(replace(settings, resume=state.exists(), overwrite=not state.exists()))


def kept(folder: Path, name: str) -> Path:
    """A copy of the world model as it is now, which later updates do not change."""
    copy = folder / "kept" / name
    if not copy.exists():
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("state", "kept", "videos", "log"))
    return copy


def kept_after(settings: PosttrainConfig) -> Path | None:
    """The world model after that many updates, if its minutes suffice for them."""
    copy = settings.out / "kept" / f"{settings.steps}-updates"
    if copy.exists():
        return copy
    train(settings)
    return kept(settings.out, copy.name) if run_summary(settings.out)["updates"] == settings.steps else None


def run_summary(folder: Path) -> dict[str, float]:
    """Updates and seconds of a run, and the means of its first and last terms."""
    evaluations, updates = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("evaluations", "updates")
    )
    summary = {"updates": evaluations[-1]["step"], "seconds": evaluations[-1]["seconds"]}
    for name in TERMS:
        values = [row[name] for row in updates if row.get(name) is not None]
        width = max(len(values) // 5, 1)
        if values:
            summary[f"{name}_first"] = float(np.mean(values[:width]))
            summary[f"{name}_last"] = float(np.mean(values[-width:]))
    return summary
