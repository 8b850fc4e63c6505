"""The discriminator: its reward and loss by hand, and what it learns on drawn steps."""

import math
from dataclasses import replace

import pytest
import torch
from drawn_steps import WAYS, drawn, predictions

from rl_posttrain.rewards.realism import Realism


def flat(level: float, slope: float = 0.0) -> Realism:
    """A discriminator whose every logit is `level + slope x`, where `x` is the mean of the two pictures' channels."""
    realism = Realism(penalty=1.0)
    realism.discriminator.layers = torch.nn.Sequential(torch.nn.Conv2d(6, 1, 1))
    with torch.no_grad():
        realism.discriminator.layers[0].weight.fill_(slope / 6)
        realism.discriminator.layers[0].bias.fill_(level)
    return realism


def plain(guess: float, after: float, before: float):
    return predictions(*(torch.full((2, 3, 8, 8), level) for level in (guess, after, before)))


def test_reward_and_loss_by_hand():
    seen = plain(0.5, 0.1, 0.3)
    realism = flat(0.2, 1.0)
    visible = 0.5 - 3 / 127.5  # differences of up to three levels count as none
    logit = 0.2 + (visible + 0.3) / 2
    assert realism(seen).mean().item() == pytest.approx(-math.log(1 + math.exp(-logit)), abs=1e-6)
    real = 0.2 + (0.1 + 0.3) / 2
    told_apart = math.log(1 + math.exp(-real)) + math.log(1 + math.exp(logit))
    steepness = 6 * 64 * (1 / 6) ** 2  # every channel of 64 pixels adds its squared slope
    assert realism.loss(seen).item() == pytest.approx(told_apart + steepness / 2, abs=1e-5)
    realism.penalty = 0.0
    assert realism.loss(seen).item() == pytest.approx(told_apart, abs=1e-5)


def test_the_reward_makes_the_prediction_more_real_and_leaves_the_context_alone():
    seen = plain(0.5, 0.1, 0.3)
    context = seen.context.requires_grad_()
    slopes = torch.autograd.grad(flat(0.0, 1.0)(seen).mean(), (seen.predicted, context), allow_unused=True)
    assert (slopes[0] > 0).all()
    assert slopes[1] is None


def test_the_loss_has_a_gradient_for_the_discriminator_only():
    seen = plain(0.5, 0.1, 0.3)
    realism = Realism()
    realism.loss(seen).backward()
    assert seen.predicted.grad is None
    assert all(weight.grad is not None for weight in realism.parameters())


def test_what_cannot_be_seen_is_not_told_apart():
    seen = plain(0.1 + 2 / 127.5, 0.1, 0.3)
    realism = Realism()
    expected = -torch.nn.functional.softplus(-realism.discriminator(seen.pick(seen.context), seen.pick(seen.recorded)))
    torch.testing.assert_close(realism(seen), expected)
    assert torch.autograd.grad(realism(seen).mean(), seen.predicted)[0].abs().max() == 0


def test_the_step_counts_and_not_the_frame_alone():
    seen = drawn("right", batch=1)
    realism = Realism()
    other = replace(seen, context=seen.context.flip(-1))
    assert (realism(seen) - realism(other)).abs().max() > 1e-4


def test_recorded_pictures_with_the_higher_score_are_told_apart():
    dark, bright = plain(-0.5, 0.1, 0.3), plain(0.5, 0.1, 0.3)
    assert flat(0.0, 1.0).told_apart(dark).tolist() == [1.0, 1.0]
    assert flat(0.0, 1.0).told_apart(bright).tolist() == [0.0, 0.0]
    assert flat(0.2).told_apart(bright).tolist() == [0.5, 0.5]


@pytest.mark.slow
def test_it_learns_that_right_is_better_than_blurred_than_erased_and_frozen():
    torch.manual_seed(0)
    realism = Realism(penalty=0.01)
    optimizer = torch.optim.AdamW(realism.parameters(), lr=1e-3, betas=(0.0, 0.99))
    for step in range(18):
        optimizer.zero_grad()
        sum(realism.loss(drawn(way, batch=2, seed=step)) for way in WAYS[1:]).backward()
        optimizer.step()
    scores = {way: float(realism(drawn(way, seed=999)).detach().mean()) for way in WAYS}
    assert scores["right"] > scores["blurred"] + 0.01, scores
    assert scores["blurred"] > max(scores["erased"], scores["frozen"]) + 0.1, scores
