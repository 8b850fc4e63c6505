"""The per-feature statistics that LeRobot stores in `meta/stats.json` and `meta/episodes`."""

import numpy as np
from einops import reduce
from jaxtyping import Int64, Shaped, UInt8

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def column_statistics(values: Shaped[np.ndarray, "rows dim"]) -> dict[str, list]:
    """Statistics of a table column over its rows, one number per dim.

    Args:
        values: Numbers or booleans.

    Returns:
        min, max, mean, std, count and quantiles, each a list; min and max keep the column's type.
    """
    numbers = values.astype(np.float64)
    statistics = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([len(values)]),
    }
    quantiles = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    statistics |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in statistics.items()}


def colour_histogram(frames: UInt8[np.ndarray, "t H W 3"]) -> Int64[np.ndarray, "3 256"]:
    """How often each value 0..255 occurs per colour channel."""
    channels = np.moveaxis(frames, -1, 0)
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in channels])


def image_statistics(histogram: Int64[np.ndarray, "3 256"], num_frames: int) -> dict[str, list]:
    """Statistics of pictures per colour channel, scaled to 0..1, in LeRobot's shape `3 1 1`.

    Args:
        histogram: Sum of `colour_histogram` over the pictures.
        num_frames: Number of pictures, stored as `count`.
    """
    values = np.arange(256) / 255
    total = reduce(histogram, "c value -> c", "sum")
    mean = histogram @ values / total
    variance = histogram @ values**2 / total - mean**2
    statistics = {
        "min": values[(histogram > 0).argmax(axis=1)],
        "max": values[255 - (histogram[:, ::-1] > 0).argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance.clip(min=0)),
    }
    cumulative = histogram.cumsum(axis=1) / total[:, None]
    for name, quantile in QUANTILES.items():
        statistics[name] = values[(cumulative >= quantile).argmax(axis=1)]
    nested = {name: value[:, None, None].tolist() for name, value in statistics.items()}
    return nested | {"count": [num_frames]}
