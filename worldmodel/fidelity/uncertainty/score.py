"""How well disagreement predicts the error: rank correlations, and the error of the most certain dreams."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from worldmodel.data.clip import EpisodeSource
from worldmodel.display.progress import ProgressLine
from worldmodel.fidelity.intervals import statistic_interval
from worldmodel.fidelity.uncertainty.seeds import Predictions, dream_seeds
from worldmodel.fidelity.windows import Window
from worldmodel.world_model import WorldModel

PREDICTORS = ("disagreement", "motion")
"""The score, and the trivial one that it has to beat."""
SHARES = tuple(round(0.05 * step, 2) for step in range(1, 21))
"""Shares of the windows that are kept, for the curve."""
Values = Float64[np.ndarray, "n t"]


def measure_uncertainty(
    world: WorldModel,
    source: EpisodeSource,
    windows: Sequence[Window],
    *,
    dreams: int,
    show_progress: bool = False,
    **options: int,
) -> dict[str, Any]:
    """Dream every window several times, and score the disagreement; the options are those of `dream_seeds`.

    Returns:
        What `uncertainty` returns.

    Raises:
        ValueError: As in `dream_seeds`.
    """
    frames = len(windows) * options["horizon"] * (1 + dreams)
    with ProgressLine("dreaming again", frames, unit="frames", disable=not show_progress) as progress:
        found = dream_seeds(world, source, windows, dreams=dreams, advance=progress.advance, **options)
    return {"dreams": dreams, **uncertainty(found, seed=options["seed"])}


def uncertainty(found: Predictions, *, seed: int = 0) -> dict[str, Any]:
    """Scores of both predictors, with 95% intervals from a bootstrap over episodes.

    Args:
        found: Error, disagreement and motion.
        seed: Of the bootstrap.

    Returns:
        Under `predictors.<disagreement or motion>`: `within` is the mean over frames of the rank correlation over
        windows at that frame (errors and disagreement both grow with the horizon, so a correlation over all frames is
        too high), `episodes` the rank correlation of the means of episodes, `gain` the share of the gain of an ideal
        predictor, see `ideal_share`; each a `[value, low, high]`, where the ends are `None` with too few episodes.
        `ahead` is the difference of both predictors' `within`. `by_frame.<predictor>` has the rank correlation at every
        frame; `curve.<predictor or ideal>` the error (RMS on the scale 0..1) of the share of the windows under
        `shares` for which the predictor is lowest; `by_episode.<error or disagreement>` the means of episodes.
    """

    def scored(statistic: Callable[[Int64[np.ndarray, "k"]], float]) -> list[float | None]:
        interval = statistic_interval(statistic, found.episodes, seed=seed)
        return [statistic(np.arange(len(found.episodes))), *(interval or (None, None))]

    def within(name: str, rows: Int64[np.ndarray, "k"]) -> float:
        return float(rank_correlations(getattr(found, name)[rows], found.error[rows]).mean())

    report: dict[str, Any] = {"windows": len(found.episodes), "episodes": len(set(found.episodes.tolist()))}
    report["predictors"] = {
        name: {
            "within": scored(lambda rows, name=name: within(name, rows)),
            "episodes": scored(lambda rows, name=name: over_episodes(found, name, rows)),
            "gain": scored(lambda rows, name=name: ideal_share(getattr(found, name)[rows], found.error[rows])),
        }
        for name in PREDICTORS
    }
    report["ahead"] = scored(lambda rows: within("disagreement", rows) - within("motion", rows))
    report["by_frame"] = {name: rank_correlations(getattr(found, name), found.error).tolist() for name in PREDICTORS}
    report["shares"] = list(SHARES)
    chosen = [max(1, round(share * len(found.episodes))) - 1 for share in SHARES]
    columns = {name: getattr(found, name) for name in PREDICTORS} | {"ideal": found.error}
    report["curve"] = {name: kept_errors(values, found.error)[chosen].tolist() for name, values in columns.items()}
    report["by_episode"] = {
        name: episode_means(getattr(found, name).mean(1), found.episodes).tolist() for name in ("error", "disagreement")
    }
    return report


def rank_correlations(x: Values, y: Values) -> Float64[np.ndarray, "t"]:
    """Spearman's rank correlation over windows at every frame; 0 where one of them does not vary."""
    from scipy.stats import rankdata  # slow to import

    ranks = [rankdata(values, axis=0) for values in (x, y)]
    first, second = (each - each.mean(0) for each in ranks)
    scale = np.sqrt((first**2).sum(0) * (second**2).sum(0))
    return np.divide((first * second).sum(0), scale, out=np.zeros(x.shape[1]), where=scale > 0)


def over_episodes(found: Predictions, name: str, rows: Int64[np.ndarray, "k"]) -> float:
    """The rank correlation of the means of episodes; an episode that was drawn twice counts twice."""
    predicted, errors = (
        episode_means(values.mean(1), found.episodes) for values in (getattr(found, name), found.error)
    )
    place = np.unique(found.episodes, return_inverse=True)[1][rows]
    windows = np.bincount(np.unique(found.episodes, return_inverse=True)[1])
    drawn = np.repeat(np.arange(len(windows)), np.bincount(place, minlength=len(windows)) // windows)
    return float(rank_correlations(predicted[drawn, None], errors[drawn, None])[0])


def episode_means(values: Float64[np.ndarray, "n"], episodes: Int64[np.ndarray, "n"]) -> Float64[np.ndarray, "e"]:
    """The mean of every episode, in the order of their numbers."""
    _, place, counts = np.unique(episodes, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=values) / counts


def kept_errors(predicted: Values, error: Values) -> Float64[np.ndarray, "n"]:
    """The mean error of the 1, 2, ..., n windows for which the predictor is lowest; they are chosen at each frame anew.

    At a frame where the predictor does not vary, all windows count.
    """
    order = np.argsort(predicted, axis=0, kind="stable")
    counts = np.arange(1, len(error) + 1)[:, None]
    kept = np.cumsum(np.take_along_axis(error, order, axis=0), axis=0) / counts
    return np.where(np.ptp(predicted, axis=0) > 0, kept, error.mean(0)).mean(1)


def ideal_share(predicted: Values, error: Values) -> float:
    """How much the error falls when uncertain dreams are left out, as a share of what the true error would achieve.

    The area between the curve of `kept_errors` and the mean error, divided by that of an ideal predictor (the
    prediction rejection ratio of Malinin and Gales, arXiv 2002.07650). 1 is ideal, 0 is chance; 0 as well where the
    error does not vary.
    """
    mean = error.mean()
    ideal = mean - kept_errors(error, error).mean()
    return float((mean - kept_errors(predicted, error).mean()) / ideal) if ideal > 1e-12 else 0.0
