"""A cloned policy as a self-contained page: words, and its plans beside those that were demonstrated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from worldmodel.display.html import Report
from worldmodel.display.plots import panel, png

DRAWN = 8
"""Most dims that are drawn."""


def explained(planned: Float[np.ndarray, "n a"], demonstrated: Float[np.ndarray, "n a"]) -> Float[np.ndarray, "a"]:
    """Share of the variance of each dim of the demonstrated actions that the planned ones explain; 0 if it has none."""
    left = np.square(planned - demonstrated).mean(0)
    varies = demonstrated.var(0)
    return np.where(varies > 0, 1 - left / np.where(varies > 0, varies, 1), 0.0)


def meaning(shares: Float[np.ndarray, "a"]) -> list[str]:
    """What the plans say about the policy, and what they do not.

    Args:
        shares: What is explained of each dim; see `explained`.
    """
    said = [
        f"At the frames that it learned from, the first action of its plans explains {shares.mean():.0%} of the "
        f"variance of the demonstrated actions, of the worst dim {shares.min():.0%}."
    ]
    if shares.min() < 0.5:
        said.append("A low share means that it has learned little (more --steps), or that people did different things.")
    return [*said, "This does not say how often it succeeds: try it with worldmodel rank."]


def write_page(
    planned: Float[np.ndarray, "n a"], demonstrated: Float[np.ndarray, "n a"], training: Mapping[str, Any], file: Path
) -> None:
    """Write the page.

    Args:
        planned: First actions of plans at frames of the demonstrations, normalised.
        demonstrated: Actions that were demonstrated there.
        training: The contents of `training.json`.
        file: The page.
    """
    shares = explained(planned, demonstrated)
    page = Report("A cloned policy")
    page.text(f"Cloned from {training['demonstrations']} demonstrations of {training['data']}.")
    page.meaning(meaning(shares))
    page.heading("Planned and demonstrated actions")
    page.text("In standard deviations of the demonstrated actions, one point for each frame.")
    page.plots(
        {f"Action dim {dim}": draw_pairs(planned[:, dim], demonstrated[:, dim]) for dim in range(len(shares[:DRAWN]))}
    )
    page.table(("action dim", "variance explained"), [(str(i), f"{share:.0%}") for i, share in enumerate(shares)])
    page.heading("Training")
    page.facts(training)
    page.write(file)


def draw_pairs(planned: Float[np.ndarray, "n"], demonstrated: Float[np.ndarray, "n"]) -> bytes:
    """Planned over demonstrated actions, as a PNG."""
    figure, axes = panel()
    axes.plot(demonstrated, planned, ".", ms=3, alpha=0.5)
    axes.axline((0, 0), slope=1, color="0.4", lw=1, ls="--")
    axes.set(xlabel="demonstrated", ylabel="planned")
    return png(figure)
