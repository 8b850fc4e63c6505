"""Everything that updates weights from a reward: the world model itself, or a policy in its dreams.

Everything in `__all__` is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rl_posttrain.adaptation.adapt import adapt
    from rl_posttrain.adaptation.config import AdaptConfig
    from rl_posttrain.alignment import AlignConfig, align
    from rl_posttrain.imagination.config import ImagineConfig
    from rl_posttrain.imagination.gate import check_ranking
    from rl_posttrain.imagination.train import imagine
    from rl_posttrain.posttraining.config import PosttrainConfig
    from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
    from rl_posttrain.posttraining.train import posttrain
    from rl_posttrain.rewards.advantages import group_advantages
    from rl_posttrain.rewards.agreement import Agreement, StateAgreement
    from rl_posttrain.rewards.executability import Executability
    from rl_posttrain.rewards.fidelity import Fidelity
    from rl_posttrain.rewards.mix import RewardWeights
    from rl_posttrain.rewards.on_track import OnTrack
    from rl_posttrain.rewards.outcome import OutcomeAgreement
    from rl_posttrain.rewards.perceptual import Perceptual
    from rl_posttrain.rewards.predictions import PictureReward, Predictions
    from rl_posttrain.rewards.realism import Realism
    from rl_posttrain.rewards.reward import Reward, Rollout

__all__ = [
    "AdaptConfig",
    "Agreement",
    "AlignConfig",
    "Executability",
    "Fidelity",
    "ImagineConfig",
    "OnTrack",
    "OutcomeAgreement",
    "PathwiseConfig",
    "Perceptual",
    "PictureReward",
    "PosttrainConfig",
    "Predictions",
    "Realism",
    "Reward",
    "RewardWeights",
    "Rollout",
    "StateAgreement",
    "adapt",
    "align",
    "check_ranking",
    "group_advantages",
    "imagine",
    "posttrain",
]

_HOMES = {
    "AdaptConfig": "rl_posttrain.adaptation.config",
    "Agreement": "rl_posttrain.rewards.agreement",
    "AlignConfig": "rl_posttrain.alignment",
    "Executability": "rl_posttrain.rewards.executability",
    "Fidelity": "rl_posttrain.rewards.fidelity",
    "ImagineConfig": "rl_posttrain.imagination.config",
    "OnTrack": "rl_posttrain.rewards.on_track",
    "OutcomeAgreement": "rl_posttrain.rewards.outcome",
    "PathwiseConfig": "rl_posttrain.posttraining.pathwise.config",
    "Perceptual": "rl_posttrain.rewards.perceptual",
    "PictureReward": "rl_posttrain.rewards.predictions",
    "PosttrainConfig": "rl_posttrain.posttraining.config",
    "Predictions": "rl_posttrain.rewards.predictions",
    "Realism": "rl_posttrain.rewards.realism",
    "Reward": "rl_posttrain.rewards.reward",
    "RewardWeights": "rl_posttrain.rewards.mix",
    "Rollout": "rl_posttrain.rewards.reward",
    "StateAgreement": "rl_posttrain.rewards.agreement",
    "adapt": "rl_posttrain.adaptation.adapt",
    "align": "rl_posttrain.alignment",
    "check_ranking": "rl_posttrain.imagination.gate",
    "group_advantages": "rl_posttrain.rewards.advantages",
    "imagine": "rl_posttrain.imagination.train",
    "posttrain": "rl_posttrain.posttraining.train",
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
