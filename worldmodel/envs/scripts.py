"""The scripted behaviours of the embedded environments: which script serves which environment."""

from collections.abc import Iterator

import gymnasium
import numpy as np

from worldmodel.envs.behaviour import Behaviour


def behave(behaviour: Behaviour, env: gymnasium.Env, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Actions without end; a pure function of the environment's states and the generator."""
    if env.name.startswith("metaworld:"):
        from worldmodel.envs.metaworld import expert as scripts
    else:
        from worldmodel.envs.pusht import expert as scripts
    return scripts.behave(behaviour, env, rng)
