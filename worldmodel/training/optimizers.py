"""Optimisers and their learning rate: AdamW, and Muon (Jordan et al., 2024) for hidden matrices.

Muon is batched, in the number format that the device computes in. `torch.optim.Muon` orthogonalises matrix by matrix,
and in bf16 on every device. A CPU without bf16 arithmetic multiplies such matrices twenty times more slowly than in
fp32; this took half of the time of a training step.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldmodel.model.precision import compute_dtype

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of s, s^3 and s^5 in one Newton-Schulz step
NUM_STEPS = 5  # which leave singular values between about 0.7 and 1.2


def orthogonalise(matrices: Float[Tensor, "k m n"]) -> Float[Tensor, "k m n"]:
    """Roughly the nearest semi-orthogonal matrices, in `compute_dtype` of their device."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(compute_dtype(matrices.device))
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(NUM_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, scaled to the root mean square of AdamW's (2502.16982).

    Args:
        matrices: Parameters with two axes.
        lr: Learning rate, as for AdamW.
        weight_decay: Share of a weight, times `lr`, that every step takes off.
        momentum: Decay of the average of the gradients, with Nesterov's look ahead.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, *, weight_decay: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix that has a gradient; those of one shape are orthogonalised at once.

        `closure` belongs to the signature of optimisers; it is not called.
        """
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._update(matrices, group["lr"], group["weight_decay"], group["momentum"])

    def _update(self, matrices: Sequence[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> None:
        ahead = []
        for matrix in matrices:
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            average = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
            ahead.append(matrix.grad.lerp(average, momentum))
        size = 0.2 * max(matrices[0].shape) ** 0.5 * lr
        for matrix, direction in zip(matrices, orthogonalise(torch.stack(ahead)), strict=True):
            matrix.mul_(1 - lr * weight_decay).add_(direction, alpha=-size)


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
