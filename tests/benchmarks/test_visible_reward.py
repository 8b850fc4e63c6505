"""A world model gains nothing by differences that nobody sees, and all by those that are seen."""

import pytest
import torch
from places import BENCHMARKS

from rl_posttrain.rewards.predictions import Predictions
from worldmodel.data import Clip

LEVEL = 1 / 127.5


@pytest.fixture
def reward(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import visible_reward

    return visible_reward.seen_perceptual


def predictions(predicted: torch.Tensor, recorded: torch.Tensor) -> Predictions:
    clip = Clip(torch.zeros(1, 2, 1, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, 1, 2), None)
    return Predictions(predicted, recorded, recorded, None, torch.tensor([0]), clip)


def test_only_what_is_seen_counts(reward):
    recorded = torch.ones(1, 1, 1, 3, 16, 16)
    faint, clear = (recorded.clone() for _ in range(2))
    faint[..., :8] -= 2 * LEVEL
    clear[..., :8] -= 40 * LEVEL
    faint.requires_grad_()
    clear.requires_grad_()
    unseen, seen = (reward(predictions(x, recorded)) for x in (faint, clear))
    assert unseen.item() == pytest.approx(0, abs=1e-6) and seen.item() < -0.1
    gradient = torch.autograd.grad(unseen.sum() + seen.sum(), (faint, clear))
    assert not gradient[0].any() and gradient[1][..., :8].any() and not gradient[1][..., 8:].any()
