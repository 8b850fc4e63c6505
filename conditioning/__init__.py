"""The inputs of the transformer besides pixels: actions, states, cameras, noise level.

Everything in `__all__` is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conditioning.action import ActionEmbedding
    from conditioning.camera import CameraEmbedding
    from conditioning.conditioner import Conditioner, ConditionerConfig, Conditioning
    from conditioning.latent_action import LatentActionEncoder, LatentController
    from conditioning.noise import NoiseLevelEmbedding

__all__ = [
    "ActionEmbedding",
    "CameraEmbedding",
    "Conditioner",
    "ConditionerConfig",
    "Conditioning",
    "LatentActionEncoder",
    "LatentController",
    "NoiseLevelEmbedding",
]

_HOMES = {
    "ActionEmbedding": "conditioning.action",
    "CameraEmbedding": "conditioning.camera",
    "Conditioner": "conditioning.conditioner",
    "ConditionerConfig": "conditioning.conditioner",
    "Conditioning": "conditioning.conditioner",
    "LatentActionEncoder": "conditioning.latent_action",
    "LatentController": "conditioning.latent_action",
    "NoiseLevelEmbedding": "conditioning.noise",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """Public names, for editors and notebooks, whether they are imported yet or not."""
    return sorted({*globals(), *_HOMES})
