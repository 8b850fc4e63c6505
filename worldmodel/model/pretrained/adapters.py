"""Adapters (LoRA, 2106.09685) of a pretrained transformer, by name: `world`, then those of post-training.

A linear map `W` becomes `W + B A`, where `B A` has a small rank and begins at 0; the scale is 1. A layer with several
adapters adds them all.
"""

import importlib.util
import re
from collections.abc import Mapping

from torch import nn

from worldmodel.model.pretrained.config import PretrainedConfig

WORLD = "world"


def adapters_of(config: PretrainedConfig) -> dict[str, int]:
    """Names and ranks of the adapters, in the order in which they were added."""
    first = {WORLD: config.lora_rank} if config.lora_rank else {}
    return first | {f"posttrained{index}": rank for index, rank in enumerate(config.posttrained)}


def add_adapters(transformer: nn.Module, ends: tuple[str, ...], adapters: Mapping[str, int]) -> None:
    """Add every adapter that is not there yet, in fp32, of which `B` is 0; afterwards all of them are used.

    Only the new ones are trained, and no other weight of the transformer.

    Args:
        transformer: The module; it is changed in place.
        ends: Ends of the names of the linear layers that get adapters.
        adapters: Ranks by name, of those that are there already, too.

    Raises:
        ValueError: A rank is not positive, or peft is not installed.
    """
    if not adapters:
        return
    if importlib.util.find_spec("peft") is None:
        raise ValueError("adapters need the package peft: pip install 'worldmodel[video]'")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    there = {name.split(".")[-2] for name, _ in transformer.named_parameters() if is_adapter(name)}
    # A regular expression: of a long list of names peft looks for a shorter form, which takes a minute.
    layers = rf"(.*\.)?({'|'.join(map(re.escape, ends))})"
    transformer.requires_grad_(False)
    for name, rank in adapters.items():
        if rank < 1:
            raise ValueError(f"the rank of an adapter is at least 1, got {rank}")
        if name not in there:
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=layers)
            inject_adapter_in_model(config, transformer, adapter_name=name)
    for module in transformer.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter(list(adapters))
    for name, parameter in transformer.named_parameters():
        fresh = is_adapter(name) and name.split(".")[-2] not in there
        parameter.requires_grad_(fresh)
        if fresh:
            parameter.data = parameter.data.float()


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name
