"""The scripted behaviours of the environments here: which script serves which class."""

import importlib
from collections.abc import Iterator

import gymnasium
import numpy as np

from worldmodel.envs.behaviour import Behaviour

SCRIPTS = {
    "worldmodel.envs.pusht.env:PushT": "worldmodel.envs.pusht.expert",
    "worldmodel.envs.materials.env:MaterialTable": "worldmodel.envs.materials.expert",
    "worldmodel.envs.metaworld.env:MetaWorld": "worldmodel.envs.metaworld.expert",
    "worldmodel.envs.libero.env:LiberoObject": "worldmodel.envs.libero.expert",
}
"""A class and the module with its scripts; a class derived from it has the same ones."""


def scripts_of(env: gymnasium.Env) -> str | None:
    """The module with the scripts of an environment; `None` where it has none."""
    classes = [f"{kind.__module__}:{kind.__qualname__}" for kind in type(env).__mro__]
    return next((SCRIPTS[name] for name in classes if name in SCRIPTS), None)


def behave(behaviour: Behaviour, env: gymnasium.Env, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless actions; a pure function of the environment's states and the generator."""
    return importlib.import_module(scripts_of(env)).behave(behaviour, env, rng)
