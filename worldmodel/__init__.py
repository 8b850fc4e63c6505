"""A learned simulator for robots: train it from video, measure it, act in its dreams.

Everything in `__all__` is imported when it is first used, so `import worldmodel` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worldmodel.data.clip import Clip, EpisodeSource, stack_clips
    from worldmodel.data.formats import open_episodes
    from worldmodel.data.video.write import write_video
    from worldmodel.dreams.context import context_of
    from worldmodel.dreams.env import DreamEnv
    from worldmodel.dreams.sb3 import StableBaselinesEnv
    from worldmodel.dreams.starts import Starts
    from worldmodel.dreams.verdict import Judge, Verdict
    from worldmodel.envs import make_env
    from worldmodel.envs.record import RecordConfig, record
    from worldmodel.fidelity.measure import measure_fidelity
    from worldmodel.model.card import CardFacts
    from worldmodel.model.hub import PushConfig, push
    from worldmodel.model.pretrained.config import PretrainedConfig
    from worldmodel.streaming.state import Observation
    from worldmodel.streaming.stream import Stream
    from worldmodel.training.config import PretrainConfig
    from worldmodel.training.pretrain import pretrain
    from worldmodel.wire.remote_env import connect
    from worldmodel.world_model import WorldModel, WorldModelConfig

__version__ = "0.2.0"

__all__ = [
    "CardFacts",
    "Clip",
    "DreamEnv",
    "EpisodeSource",
    "Judge",
    "Observation",
    "PretrainConfig",
    "PretrainedConfig",
    "PushConfig",
    "RecordConfig",
    "StableBaselinesEnv",
    "Starts",
    "Stream",
    "Verdict",
    "WorldModel",
    "WorldModelConfig",
    "__version__",
    "connect",
    "context_of",
    "make_env",
    "measure_fidelity",
    "open_episodes",
    "pretrain",
    "push",
    "record",
    "stack_clips",
    "write_video",
]

_HOMES = {
    "CardFacts": "worldmodel.model.card",
    "Clip": "worldmodel.data.clip",
    "DreamEnv": "worldmodel.dreams.env",
    "EpisodeSource": "worldmodel.data.clip",
    "Judge": "worldmodel.dreams.verdict",
    "Observation": "worldmodel.streaming.state",
    "PretrainConfig": "worldmodel.training.config",
    "PretrainedConfig": "worldmodel.model.pretrained.config",
    "PushConfig": "worldmodel.model.hub",
    "RecordConfig": "worldmodel.envs.record",
    "StableBaselinesEnv": "worldmodel.dreams.sb3",
    "Starts": "worldmodel.dreams.starts",
    "Stream": "worldmodel.streaming.stream",
    "Verdict": "worldmodel.dreams.verdict",
    "WorldModel": "worldmodel.world_model",
    "WorldModelConfig": "worldmodel.world_model",
    "connect": "worldmodel.wire.remote_env",
    "context_of": "worldmodel.dreams.context",
    "make_env": "worldmodel.envs",
    "measure_fidelity": "worldmodel.fidelity.measure",
    "open_episodes": "worldmodel.data.formats",
    "pretrain": "worldmodel.training.pretrain",
    "push": "worldmodel.model.hub",
    "record": "worldmodel.envs.record",
    "stack_clips": "worldmodel.data.clip",
    "write_video": "worldmodel.data.video.write",
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
