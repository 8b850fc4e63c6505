"""Words for figures: what an interval tells, and lists of names."""

from collections.abc import Sequence

Interval = Sequence[float]
"""Lower and upper end."""


def sign_of(interval: Interval) -> int:
    """1 if a 95% interval lies above 0, -1 if it lies below, 0 if it includes 0: then the sign cannot be told."""
    low, high = interval
    return 1 if low > 0 else -1 if high < 0 else 0


def order_of(first: Interval, second: Interval) -> int:
    """1 if the first interval lies above the second, -1 if it lies below, 0 if they overlap."""
    return sign_of((first[0] - second[1], first[1] - second[0]))


def listed(names: Sequence[str]) -> str:
    """Names as one reads them: `a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def span(interval: Interval, pattern: str = "{:.2f}") -> str:
    """An interval in words: `0.12 to 0.34`."""
    low, high = interval
    return f"{pattern.format(low)} to {pattern.format(high)}"
