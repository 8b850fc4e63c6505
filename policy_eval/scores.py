"""The result of an evaluation: one row per trial of one policy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True)
class Scores:
    """The trials of one policy in one place, real or dreamed; row `i` is one episode.

    Trials of two places are paired where their seeds are equal.

    Attributes:
        policy: Name of the policy.
        seeds: Seed of each trial's start: its reset seed, or the number of the episode where the data has no
            reset seeds; all different.
        outcomes: 1 for success, 0 for failure, or a graded outcome in between.
        returns: Sum of the rewards.
        steps: Actions until success or the end, at least 1.

    Raises:
        ValueError: The columns have different lengths or are empty, a seed occurs twice, or a number is
            out of range.
    """

    policy: str
    seeds: Int64[np.ndarray, "_"]
    outcomes: Float64[np.ndarray, "_"]
    returns: Float64[np.ndarray, "_"]
    steps: Int64[np.ndarray, "_"]

    def __post_init__(self):
        lengths = {name: len(column) for name, column in self._columns().items()}
        if len(set(lengths.values())) != 1 or not len(self):
            raise ValueError(f"scores of {self.policy!r}: one row per trial expected, got {lengths}")
        values, counts = np.unique(self.seeds, return_counts=True)
        if (counts > 1).any():
            twice = values[counts > 1].tolist()
            raise ValueError(f"scores of {self.policy!r}: seeds {twice} occur more than once")
        if not ((self.outcomes >= 0) & (self.outcomes <= 1)).all():
            raise ValueError(
                f"scores of {self.policy!r}: outcomes are 0 to 1, got {self.outcomes.min()} to {self.outcomes.max()}"
            )
        if not np.isfinite(self.returns).all():
            raise ValueError(f"scores of {self.policy!r}: returns are not all finite")
        if self.steps.min() < 1:
            raise ValueError(f"scores of {self.policy!r}: steps are at least 1, got {self.steps.min()}")

    def __len__(self) -> int:
        """Number of trials."""
        return len(self.seeds)

    @property
    def mean(self) -> float:
        """Mean outcome, the success rate."""
        return float(self.outcomes.mean())

    def rows(self, kept: Bool[np.ndarray, "n"]) -> "Scores":
        """The trials where `kept` is true; at least one."""
        return Scores(self.policy, *(column[kept] for column in self._columns().values()))

    def to_json(self) -> dict:
        """A dictionary that JSON can hold."""
        return {"policy": self.policy} | {k: v.tolist() for k, v in self._columns().items()}

    @classmethod
    def from_json(cls, values: Mapping) -> "Scores":
        """Read what `to_json` wrote.

        Raises:
            ValueError: A field is missing or wrong.
        """
        fields = ("policy", "seeds", "outcomes", "returns", "steps")
        if set(values) != set(fields):
            raise ValueError(f"scores have the fields {list(fields)}, got {list(values)}")
        types = {"seeds": np.int64, "steps": np.int64, "outcomes": float, "returns": float}
        return cls(values["policy"], **{k: np.array(values[k], t) for k, t in types.items()})

    def _columns(self) -> dict[str, np.ndarray]:
        names = ("seeds", "outcomes", "returns", "steps")
        return {name: getattr(self, name) for name in names}
