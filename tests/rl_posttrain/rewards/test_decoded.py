"""Decoded actions as a reward with a gradient, by hand against the inverse dynamics themselves."""

from dataclasses import replace

import pytest
import torch
from tiny import random_clip, tiny_world
from torch.nn.functional import smooth_l1_loss

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from rl_posttrain.rewards.decoded import DecodedActions
from rl_posttrain.rewards.predictions import Predictions
from worldmodel.model.codec import to_signed


@pytest.fixture(scope="module")
def dynamics() -> InverseDynamics:
    torch.manual_seed(0)
    config = InverseDynamicsConfig(("top", "wrist"), (16, 24), 2, {0: 0, 1: 1}, keypoints=4, width=8)
    found = InverseDynamics(config).eval().requires_grad_(False)
    found.mean, found.std = torch.tensor([0.1, -0.2]), torch.tensor([0.5, 2.0])
    return found


def seen_of(frames, clip, states) -> Predictions:
    pictures = to_signed(frames)
    predicted = pictures[:, 1:].clone().requires_grad_()
    return Predictions(predicted, to_signed(clip.frames)[:, 1:], pictures[:, :-1], states, torch.arange(4), clip)


def test_it_is_the_distance_of_the_dream_with_its_own_states(dynamics):
    clip, dream = (random_clip(tiny_world(), frames=5, seed=seed) for seed in (0, 1))
    imagined = replace(clip, frames=dream.frames, states=dream.states)
    errors = dynamics.errors(imagined)
    expected = -smooth_l1_loss(errors, torch.zeros_like(errors))
    value = DecodedActions(dynamics)(seen_of(dream.frames, clip, dream.states))
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)


def test_only_what_the_recording_shows_counts(dynamics):
    clip = random_clip(tiny_world(), frames=5)
    seen = seen_of(random_clip(tiny_world(), frames=5, seed=1).frames, clip, clip.states)
    dynamics.limit = torch.tensor([torch.inf, 0.0])
    value = DecodedActions(dynamics)(seen)
    errors = dynamics.errors(replace(clip, frames=random_clip(tiny_world(), frames=5, seed=1).frames))[..., 0]
    assert value.item() == pytest.approx(-smooth_l1_loss(errors, torch.zeros_like(errors)).item(), abs=1e-6)
    dynamics.limit = torch.zeros(2)
    assert DecodedActions(dynamics)(seen) == 0
    dynamics.limit = torch.full((2,), torch.inf)


def test_its_gradient_brings_the_decoded_action_nearer(dynamics):
    clip = random_clip(tiny_world(), frames=5)
    seen = seen_of(random_clip(tiny_world(), frames=5, seed=1).frames, clip, clip.states)
    reward = DecodedActions(dynamics)
    value = reward(seen)
    (slope,) = torch.autograd.grad(value, seen.predicted)
    better = replace(seen, predicted=seen.predicted.detach() + 0.05 * slope / slope.abs().max())
    assert reward(better) > value
