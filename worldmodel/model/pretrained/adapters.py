"""Adapters (LoRA, 2106.09685) of a pretrained transformer, by name: `world`, then those of post-training.

A linear map `W` becomes `W + B A`, where `B A` has a small rank and begins at 0; the scale is 1. A layer with several
adapters adds them all.
"""

import torch
from torch import nn

WORLD = "world"


def add_adapter(transformer: nn.Module, ends: tuple[str, ...], rank: int, name: str, *, others: list[str]) -> None:
    """Give every linear layer whose name ends with one of `ends` an adapter, in fp32, of which `B` is 0.

    Args:
        transformer: The module; it is changed in place. Its own weights receive no gradient any more.
        ends: Ends of the names of layers.
        rank: Of the adapters.
        name: Name of the new adapter, which alone is trained.
        others: Names of the adapters that are there already.

    Raises:
        ValueError: The rank is not positive.
    """
    if rank < 1:
        raise ValueError(f"the rank of an adapter is at least 1, got {rank}")
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    layers = [each for each, module in transformer.named_modules() if _is_linear(module) and each.endswith(ends)]
    transformer.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), transformer, adapter_name=name)
    for module in transformer.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([*others, name])
    for each, parameter in transformer.named_parameters():
        parameter.requires_grad_(f".{name}." in each)
        if f".{name}." in each:
            parameter.data = parameter.data.to(torch.float32)


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def _is_linear(module: nn.Module) -> bool:
    from peft.tuners.lora import LoraLayer

    return isinstance(module, nn.Linear | LoraLayer)
