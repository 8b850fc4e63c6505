"""Rewards with a gradient of yours: what they return is checked."""

import pytest
import torch
from drawn_steps import predictions

from rl_posttrain.rewards.predictions import CheckedPictures, PictureReward, picked_pictures


def seen():
    return predictions(*(torch.full((2, 3, 8, 8), level) for level in (0.5, 0.1, 0.3)))


def test_a_reward_passes_its_values_on_with_their_gradient():
    reward = CheckedPictures("mine:edges", lambda given: given.predicted.mean(dim=(2, 3, 4, 5)))
    assert isinstance(reward, PictureReward)
    given = seen()
    values = reward(given)
    assert values.tolist() == [[0.5], [0.5]]
    assert torch.autograd.grad(values.sum(), given.predicted)[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda given: 0.5, "reward mine:r: returns a torch.Tensor of finite numbers with a gradient, got an object"),
        (lambda given: given.predicted.sum() / 0, "or a value is not finite"),
        (lambda given: given.predicted[:0], r"got \(0, 1, 1, 3, 8, 8\)"),
        (lambda given: given.predicted.detach().mean(), "do not depend on the predicted pictures"),
        (lambda given: given.nothing, "AttributeError"),
    ],
)
def test_a_wrong_reward_is_named(reward, words):
    with pytest.raises(ValueError, match=words):
        CheckedPictures("mine:r", reward)(seen())


def test_pictures_are_picked_at_random_without_repetition():
    picked = [picked_pictures(9, 4, torch.Generator().manual_seed(seed)).tolist() for seed in range(9)]
    assert all(len(set(each)) == 4 and max(each) < 9 for each in picked)
    assert len({tuple(each) for each in picked}) > 1
    assert sorted(picked_pictures(3, 4, torch.Generator()).tolist()) == [0, 1, 2]
