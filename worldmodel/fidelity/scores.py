"""Scores of dreamed frames, window by window, and their summary over episodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from worldmodel.envs import ObjectTrack
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.metrics import Lpips, masked_psnr, ssim
from worldmodel.fidelity.perceptual import VisibleDistance
from worldmodel.model.psnr import psnr

MISSING_ERROR_PX = 32.0
"""Position error of an object that is not there: half of a 64-pixel frame."""

MISSING_AREA = 0.25
"""A predicted object is missing below this fraction of the area it has in truth."""

OCCLUDED_AREA = 0.5
"""A recorded object counts as occluded below this fraction of its median area in the window."""

MOVED_PX = 2.0
"""An object moved when it is at least this far from where the last context frame shows it."""

Path = tuple[str, ...]


class ScoreTable:
    """One number per window under every path of the report; NaN where a window is left out."""

    def __init__(self) -> None:
        self._columns: dict[Path, list[np.ndarray]] = {}

    def add(self, path: Path, values: Float[Tensor, "b"]) -> None:
        """Append the scores of the next `b` windows under `path`."""
        self._columns.setdefault(path, []).append(values.double().numpy())

    def add_horizons(self, path: Path, horizons: Sequence[int], values: Float[Tensor, "b h"]) -> None:
        """Append the scores of the next `b` windows, one path for each horizon."""
        for horizon, column in zip(horizons, rearrange(values, "b h -> h b"), strict=True):
            self.add((*path, str(horizon)), column)

    def summary(self, episodes: Int64[np.ndarray, "n"], *, seed: int) -> dict[str, Any]:
        """Nested means, with `intervals` and `n` as parallel trees.

        Args:
            episodes: The episode of every window; the bootstrap resamples episodes.
            seed: Seed of the bootstrap.

        Returns:
            Numbers, or `None` where no window is left.
        """
        report: dict[str, Any] = {"intervals": {}, "n": {}}
        for path, parts in self._columns.items():
            values = np.concatenate(parts)
            assert len(values) == len(episodes), (path, len(values), len(episodes))
            kept = np.isfinite(values)
            mean = float(values[kept].mean()) if kept.any() else None
            interval = bootstrap_interval(values[kept], episodes[kept], seed=seed)
            _insert(report, path, mean)
            _insert(report["intervals"], path, None if interval is None else list(interval))
            _insert(report["n"], path, int(kept.sum()))
        return report


def _insert(tree: dict[str, Any], path: Path, value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def pixel_scores(
    truth: UInt8[Tensor, "b h H W 3"],
    predictions: Mapping[str, UInt8[Tensor, "b h H W 3"]],
    last_context: UInt8[Tensor, "b H W 3"],
    lpips: Lpips | None,
    perceptual: VisibleDistance | None = None,
) -> dict[str, dict[str, Float32[Tensor, "b h"]]]:
    """The pixel metrics of one camera, for every prediction.

    Args:
        truth: Recorded frames at the horizons.
        predictions: Predicted frames by model name; they share the mask of the masked PSNR.
        last_context: The last frame the models were shown.
        lpips: `None` when LPIPS cannot be measured; its values are then NaN.
        perceptual: Another distance, under its own name; `None` for none.

    Returns:
        `{model: {metric: values}}`; NaN where a metric is not defined.
    """
    reference = repeat(last_context, "b H W c -> b h H W c", h=truth.shape[1])
    masked = masked_psnr(truth, predictions, reference)
    unknown = torch.full(truth.shape[:2], torch.nan)
    return {
        name: {
            "psnr": psnr(prediction, truth),
            "ssim": ssim(prediction, truth),
            "lpips": unknown if lpips is None else lpips(prediction, truth),
            "masked_psnr": masked[name],
            **({} if perceptual is None else {perceptual.name: perceptual(prediction, truth)}),
        }
        for name, prediction in predictions.items()
    }


def object_scores(
    truth: ObjectTrack, prediction: ObjectTrack, last_context: int, horizons: Sequence[int]
) -> dict[str, Float32[Tensor, "b h"]]:
    """Position error and missing rate of one object.

    Args:
        truth: In all the frames of the windows.
        prediction: In the dreamed frames at the horizons.
        last_context: Index of the last context frame in `truth`.
        horizons: Frames after the last context frame.

    Returns:
        `error_px` (a missing object counts as 32), `moving_error_px` (only where the object truly
        moved by 2 or more), `missing` (0 or 1); NaN where the object is occluded in truth.
    """
    (seen_at, seen), (found_at, found) = _tensors(truth), _tensors(prediction)
    visible = (seen >= OCCLUDED_AREA * seen.median(dim=1, keepdim=True).values) & (seen > 0)
    at = [last_context + horizon for horizon in horizons]
    missing = found < MISSING_AREA * seen[:, at]
    distance = (found_at - seen_at[:, at]).norm(dim=-1)
    error = torch.where(missing, MISSING_ERROR_PX, distance)
    travelled = (seen_at[:, at] - seen_at[:, [last_context]]).norm(dim=-1)
    moved = visible[:, [last_context]] & (travelled >= MOVED_PX)
    scores = {"error_px": error, "moving_error_px": torch.where(moved, error, torch.nan), "missing": missing.float()}
    return {key: torch.where(visible[:, at], value, torch.nan) for key, value in scores.items()}


def _tensors(track: ObjectTrack) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(track.position).float(), torch.as_tensor(track.area).float()
