"""Dreams start from recorded frames, more often from those where the critic's error is large."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rl_posttrain.imagination.estimators import importance_weights, priority_probabilities


@dataclass(frozen=True)
class StartPool:
    """A pool of anchors, each with a priority; training draws from it and refreshes it.

    It is immutable: `update` and `refresh` return a new pool, and `draw` depends on the generator
    alone, so that a resumed run draws what an uninterrupted one does.

    Attributes:
        index: Which anchors are in the pool.
        errors: Their last absolute TD error; for those not visited yet, the largest of the others.
        visited: How often each was drawn since it came into the pool.
    """

    index: Int64[np.ndarray, "n"]
    errors: Float[Tensor, "n"]
    visited: Int64[np.ndarray, "n"]

    @classmethod
    def uniform(cls, num_anchors: int, size: int, rng: np.random.Generator) -> "StartPool":
        """A pool of `size` anchors, or of all if there are fewer; each is drawn with the same probability."""
        size = min(size, num_anchors)
        index = np.sort(rng.choice(num_anchors, size, replace=False))
        return cls(index, torch.ones(size), np.zeros(size, np.int64))

    def draw(
        self, number: int, rng: np.random.Generator, *, alpha: float, beta: float
    ) -> tuple[Int64[np.ndarray, "m"], Float[Tensor, "m"]]:
        """Places in the pool, with replacement, and their importance weights.

        Args:
            number: Number of places.
            rng: Source of randomness.
            alpha: Exponent of the priorities; 0 draws uniformly.
            beta: Exponent of the importance weights.
        """
        probabilities = priority_probabilities(self.errors, alpha)
        chances = probabilities.double().numpy()
        places = rng.choice(len(self.index), number, p=chances / chances.sum())
        return places, importance_weights(probabilities, probabilities[places], beta)

    def update(self, places: Int64[np.ndarray, "m"], errors: Float[Tensor, "m"]) -> "StartPool":
        """Note the TD errors of starts that were just used; if there are several for one, the last counts."""
        noted, visited = self.errors.clone(), self.visited.copy()
        for place, error in zip(places.tolist(), errors.abs().tolist(), strict=True):
            noted[place] = error
            visited[place] += 1
        seen = torch.from_numpy(visited > 0)
        noted[~seen] = noted[seen].max()
        return replace(self, errors=noted, visited=visited)

    def refresh(self, share: float, num_anchors: int, rng: np.random.Generator) -> "StartPool":
        """Exchange the `share` of the pool with the smallest errors for anchors drawn uniformly."""
        outside = np.setdiff1d(np.arange(num_anchors), self.index)
        number = min(round(share * len(self.index)), len(outside))
        if number == 0:
            return self
        places = self.errors.argsort(stable=True)[:number].numpy()
        index, visited, errors = self.index.copy(), self.visited.copy(), self.errors.clone()
        index[places] = rng.choice(outside, number, replace=False)
        visited[places] = 0
        errors[places] = self.errors.max()
        return StartPool(index, errors, visited)

    def to_json(self) -> dict:
        """A dictionary that JSON can hold, without rounding."""
        return {"index": self.index.tolist(), "errors": self.errors.tolist(), "visited": self.visited.tolist()}

    @classmethod
    def from_json(cls, values: dict) -> "StartPool":
        """Read what `to_json` wrote."""
        return cls(
            np.array(values["index"], np.int64), torch.tensor(values["errors"]), np.array(values["visited"], np.int64)
        )
