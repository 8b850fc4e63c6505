"""Who acts while data are recorded: an expert, a noisy one, or play."""

from typing import Literal

import numpy as np

Behaviour = Literal["expert", "noisy", "play"]
MIXTURE: dict[Behaviour, float] = {"play": 0.5, "noisy": 0.3, "expert": 0.2}


def choose_behaviour(wanted: Literal["mixture", "expert", "noisy", "play"], rng: np.random.Generator) -> Behaviour:
    """The wanted behaviour; of a mixture half play, 30 % noisy expert, 20 % expert."""
    if wanted != "mixture":
        return wanted
    names = list(MIXTURE)
    return names[int(rng.choice(len(names), p=list(MIXTURE.values())))]
