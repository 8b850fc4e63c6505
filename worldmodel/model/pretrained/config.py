"""The configuration of a pretrained video transformer in a world model."""

from dataclasses import dataclass
from typing import Literal

import tyro

from worldmodel.display.ranges import Count, Weight, Whole


@dataclass(frozen=True)
class PretrainedConfig:
    """A pretrained video transformer, and what is trained beside it."""

    backbone: str
    """Folder of a diffusers pipeline, with the folders transformer and vae in it, or hf://USER/NAME@REV.
    checkpoints/wan-small ships with this package."""
    lora_rank: Whole = 64
    """Rank of the adapters (LoRA) that are trained in place of the transformer's weights; with 0 all weights are
    trained, and are saved with the world model."""
    window: Count = 8
    """Number of past frames that a frame sees, besides the first frame, which it always sees."""
    width: Count = 256
    """Width of the embedding of actions, states and noise level."""
    prompt: str = "none"
    """The text that the transformer is given, the same for all episodes. none needs no text encoder."""
    position_rate: Weight = 0.0
    """Positions on the time axis per second of the data; 0 for the rate of the videos of its pretraining."""
    recompute: bool = True
    """Compute the blocks again in the backward pass: a third slower, and of the activations only those between blocks
    are kept."""
    family: str = "auto"
    """How the transformer is called: auto knows some classes of diffusers, module:Class is yours."""
    kind: tyro.conf.Suppress[Literal["pretrained"]] = "pretrained"
    """Which kind of network this describes."""
    fingerprint: tyro.conf.Suppress[str] = ""
    """Hash of the transformer's files, so that the adapters are never used with another one; found when training
    starts."""
    prompt_tokens: tyro.conf.Suppress[Whole] = 0
    """Number of tokens of the prompt; found when training starts."""
    posttrained: tyro.conf.Suppress[tuple[Count, ...]] = ()
    """Ranks of the adapters that post-training has added."""
