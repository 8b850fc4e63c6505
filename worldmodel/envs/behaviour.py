"""Names of the behaviours that data are recorded with, and random actions, the behaviour of any environment."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from gymnasium import spaces
from jaxtyping import Float

from worldmodel.resolve import is_spec, nearest

Behaviour = Literal["expert", "noisy", "play"]
"""The scripts that an environment of this package has."""
MIXTURE: dict[Behaviour, float] = {"play": 0.5, "noisy": 0.3, "expert": 0.2}
RANDOM = "random"
KNOWN = ("mixture", *MIXTURE, RANDOM)
PERSISTENCE = 0.9
"""Share of a random action that is kept in the next one."""
SPREAD = 0.6
"""Standard deviation of a random action, where 1 is half of the action's range."""


def check_behaviour(name: str) -> None:
    """Raise a `ValueError` if `name` is neither a known behaviour nor `module:name`."""
    if name not in KNOWN and not is_spec(name):
        near = nearest(name, KNOWN)
        raise ValueError(
            f"there is no behaviour {name!r}; known are {', '.join(KNOWN)}, and module:name for one of yours"
            f"{f'; {near}' if near.startswith('did') else ''}"
        )


def choose_behaviour(wanted: str, rng: np.random.Generator) -> str:
    """The wanted behaviour; a mixture is 50% play, 30% noisy expert and 20% expert."""
    if wanted != "mixture":
        return wanted
    names = list(MIXTURE)
    return names[int(rng.choice(len(names), p=list(MIXTURE.values())))]


def random_actions(space: spaces.Box, rng: np.random.Generator) -> Iterator[Float[np.ndarray, "a"]]:
    """Endless smooth random actions: each is close to the one before, and they reach the whole range.

    Each dim is an autoregressive process, `x <- 0.9 x + sqrt(1 - 0.9^2) 0.6 noise`, clipped to
    -1..1 and stretched to the range of the action space.

    Raises:
        ValueError: The action space has no bounds.
    """
    if not space.is_bounded():
        raise ValueError(
            f"the behaviour random needs an action space with bounds, got {space}; pass --behaviour module:name"
        )
    centre, half = (space.high + space.low) / 2, (space.high - space.low) / 2
    fresh = SPREAD * np.sqrt(1 - PERSISTENCE**2)
    place = SPREAD * rng.standard_normal(space.shape)
    while True:
        yield centre + half * place.clip(-1, 1)
        place = PERSISTENCE * place + fresh * rng.standard_normal(space.shape)
