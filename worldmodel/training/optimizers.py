"""Optimisers and their learning rate."""

import torch
from torch import nn

from worldmodel.training.muon import Muon


def build_optimizers(model: nn.Module, learning_rate: float, *, muon: bool) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices of the transformer blocks, AdamW for the rest.

    Muon's update is scaled to AdamW's root mean square, so one learning rate serves both
    (Moonlight, 2502.16982).
    """
    hidden, rest = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        in_block = ".encoder." in f".{name}" or ".decoder." in f".{name}"
        is_matrix = parameter.ndim == 2 and name.endswith("weight")
        (hidden if muon and in_block and is_matrix else rest).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    ]
    if hidden:
        optimizers.append(Muon(hidden, learning_rate, weight_decay=0.01))
    return optimizers


def learning_rate_factor(step: int, progress: float, *, warmup: int, decay: float = 0.5) -> float:
    """Linear warm-up over `warmup` steps, then constant, then linear to 0 over the last `decay` of a run.

    `progress` in [0, 1] is the share of the run that is over.
    """
    return min((step + 1) / max(warmup, 1), 1.0) * min((1.0 - progress) / decay, 1.0)
