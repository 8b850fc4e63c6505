"""What post-training changed on held-out episodes: window by window, with intervals, and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from worldmodel.display.words import listed, sign_of, span
from worldmodel.fidelity.intervals import TOO_FEW, bootstrap_interval

LABELS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "state_error": "state error",
    "action_error": "action error",
    "cross_view": "agreement of the cameras",
    "sharpness": "sharpness, of the truth",
    "motion": "motion, of the truth",
    "response": "response to other actions",
}
RATIOS = ("sharpness", "motion")
"""Measures that are best at 1."""


@dataclass(frozen=True)
class Change:
    """One measure on the same windows before and after.

    Attributes:
        name: As in `evaluations.jsonl`.
        before: Mean over the windows that both could be measured on.
        after: The same after post-training.
        interval: 95% interval of the mean change, from a bootstrap over episodes; `None` with too few.
        verdict: 1 if it got better, -1 if it got worse, 0 if it cannot be told.
    """

    name: str
    before: float
    after: float
    interval: tuple[float, float] | None
    verdict: int

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> "Change":
        """A row of `changes.json`."""
        interval = row["interval"]
        return cls(**{**row, "interval": None if interval is None else tuple(interval)})

    @property
    def label(self) -> str:
        """The name for people."""
        kind, _, name = self.name.partition(".")
        return {"error": f"{name} error, px", "reward": f"reward {name}"}.get(kind, LABELS.get(self.name, self.name))


def changes(
    before: Mapping[str, Float[Tensor, "b"]],
    after: Mapping[str, Float[Tensor, "b"]],
    episodes: Sequence[int],
    *,
    seed: int = 0,
) -> list[Change]:
    """The change of every measure that has a value somewhere, in the order of `before`.

    Args:
        before: One number per window, as `guards.score` gives them.
        after: The same windows after post-training.
        episodes: The episode of each window.
        seed: Seed of the bootstrap.
    """
    groups = np.asarray(episodes)
    found = []
    for name in before:
        old, new = (scores[name].double().cpu().numpy() for scores in (before, after))
        known = np.isfinite(old) & np.isfinite(new)
        if not known.any():
            continue
        old, new, mine = old[known], new[known], groups[known]
        interval = bootstrap_interval(new - old, mine, seed=seed)
        gain = bootstrap_interval(quality(name, new) - quality(name, old), mine, seed=seed)
        verdict = 0 if gain is None else sign_of(gain)
        found.append(Change(name, float(old.mean()), float(new.mean()), interval, verdict))
    return found


def quality(name: str, values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """A measure as a number that is higher where it is better."""
    if name in RATIOS:
        return -np.abs(values - 1)
    return -values if name.startswith("error.") or name.endswith("_error") else values


def meaning(found: Sequence[Change], rewarded: Sequence[str], kept: int) -> list[str]:
    """Whether the dreams came closer to the truth, and what happened to measures that are not rewarded.

    Args:
        found: What `changes` returns.
        rewarded: Names of the rewards of the run.
        kept: The update of the world model that was kept.
    """
    if kept == 0:
        return ["Every update made an unrewarded measure of the dreams worse, so the world model is kept as it was."]
    psnr = next(change for change in found if change.name == "psnr")
    named = (*RATIOS, "state_error", "action_error", "cross_view")
    guards = [c for c in found if c.name.startswith("error.") or c.name in named]
    guards = [c for c in guards if not (c.name == "state_error" and "state" in rewarded)]
    return [_closeness(psnr), _guards(guards)]


def _closeness(psnr: Change) -> str:
    measured = f"PSNR went from {psnr.before:.2f} dB to {psnr.after:.2f} dB"
    if psnr.interval is None:
        return (
            f"It cannot be told whether dreams of held-out episodes came closer to the truth: {measured}, but "
            f"{TOO_FEW}."
        )
    measured += f" (95% interval of the change {span(psnr.interval)} dB)"
    if psnr.verdict == 0:
        return (
            f"It cannot be told whether dreams of held-out episodes came closer to the truth: {measured}, and the "
            "interval includes 0."
        )
    verdict = "are closer to the truth than before" if psnr.verdict > 0 else "are worse than before"
    return f"Dreams of held-out episodes {verdict}: {measured}."


def _guards(guards: Sequence[Change]) -> str:
    """Which measures that are not rewarded got better and worse."""
    if all(change.interval is None for change in guards):
        return "Nor can it be told for the measures that are not rewarded."
    said = []
    for verdict, words in ((1, "got better"), (-1, "got worse")):
        names = [change.label.split(",")[0] for change in guards if change.verdict == verdict]
        if names:
            said.append(f"{listed(names)} {words}")
    if not said:
        return "Of the measures that are not rewarded, none changed by more than chance can explain."
    rest = "; for the others it cannot be told" if any(change.verdict == 0 for change in guards) else ""
    return f"Of the measures that are not rewarded, {' and '.join(said)}{rest}."
