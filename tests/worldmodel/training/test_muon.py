"""The batched Muon does what PyTorch's does."""

import pytest
import torch

from worldmodel.training.optimizers import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(4, 12, 12), (3, 8, 24), (2, 24, 8), (1, 1, 5)])
def test_singular_values_come_close_to_one(shape):
    matrices = 1e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    flat = orthogonalise(matrices).float()
    # The iteration lifts a small singular value by 3.4 a step, so the smallest may stay below.
    values = torch.linalg.svdvals(flat)
    assert values.max() < 1.25 and values.median() > 0.65
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(flat.flatten(1), (left @ right).flatten(1))
    assert cosine.min() > 0.9


def test_same_weights_as_pytorch():
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(s, generator=generator) for s in [(6, 16), (16, 6), (6, 16), (8, 8)]]
    mine, theirs = ([torch.nn.Parameter(w.clone()) for w in weights] for _ in range(2))
    unused = torch.nn.Parameter(torch.ones(2, 2))
    optimizers = (
        Muon([*mine, unused], 0.02, weight_decay=0.01),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for before, a, b in zip(weights, mine, theirs, strict=True):
        assert (a - before).norm() > 0.05
        assert (a - b).norm() < 0.05 * (a - before).norm()  # theirs iterates in bf16
    assert torch.equal(unused, torch.ones(2, 2))
