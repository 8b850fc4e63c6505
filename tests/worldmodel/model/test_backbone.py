"""A network that has nothing but what the protocol names can take the place of `VideoDiT`."""

import pytest
import torch
from tiny import TINY_DIT, random_clip, tiny_world
from torch import nn

from rl_posttrain.posttraining.branches import draw_branches, encode_branches
from worldmodel.model.backbone import Backbone, EncodedFrames
from worldmodel.model.dit import VideoDiT
from worldmodel.training.loss import LossConfig, draw, training_loss
from worldmodel.training.optimizers import build_optimizers

NAMES = ("device", "window", "separable", "rewrites", "reads_noise", "new_cache", "encode", "decode")


@Backbone.register  # from Python 3.12 on, isinstance with a protocol does not see what `__getattr__` finds
class Foreign(nn.Module):
    """Another architecture as far as anybody can see."""

    def __init__(self, inner: VideoDiT):
        super().__init__()
        self.inner = inner
        self.calls = []

    def __getattr__(self, name):
        if name in NAMES:
            self.calls.append(name)
            return getattr(self.inner, name)
        return super().__getattr__(name)


@pytest.fixture
def world():
    world = tiny_world(TINY_DIT)
    world.dit = Foreign(world.dit)
    return world


def test_the_network_of_this_package_satisfies_the_protocol():
    assert isinstance(tiny_world().dit, Backbone)
    world = tiny_world()
    clip = random_clip(world)
    conditioning = world.conditioner(clip.actions, clip.states[:, :-1], (2, 5))
    assert isinstance(world.dit.encode(world.codec.encode(clip.frames[:, :-1]), conditioning), EncodedFrames)


def test_a_foreign_network_streams_what_the_modules_stream(world):
    clip, actions = random_clip(world), torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = world.rollout(clip, actions)
    own = tiny_world(TINY_DIT)
    own.fast = False
    assert torch.equal(seen.frames, own.rollout(clip, actions).frames)
    assert {"new_cache", "encode", "decode"} <= set(world.dit.calls)


def test_a_foreign_network_is_trained_and_branched(world):
    clip = random_clip(world, frames=5)
    draws = draw(world, LossConfig(), batch=2, frames=5, generator=torch.Generator().manual_seed(0))
    loss, _ = training_loss(world, clip, draws, LossConfig())
    loss.backward()
    assert build_optimizers(world, 1e-3, muon=False)
    branches, _ = draw_branches(
        world, clip, context=2, prefix=1, candidates=2, num_steps=2, temperature=1.0, seeds=[5, 9]
    )
    assert encode_branches(world, branches).tail(0).conditioning.tokens.shape[1] == 4
