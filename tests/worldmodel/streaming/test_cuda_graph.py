"""Streaming by CUDA graphs against streaming kernel by kernel."""

import pytest
import torch
from tiny import random_clip, tiny_world

from worldmodel.streaming import cuda_graph as replay

pytestmark = pytest.mark.gpu


@pytest.fixture
def world():
    return tiny_world().to("cuda").eval()


def stream(world, clip, count, num_steps=2, reset=None):
    """`count` dreamt frames; before frame `reset` the second stream begins anew."""
    state, frames = world.start(clip), []
    for index in range(count):
        if index == reset:
            state.put([1], world.start(clip).select([1]))
        actions = clip.actions[:, index % clip.actions.shape[1]]
        observation, state = world.step(state, actions, num_steps=num_steps)
        frames.append(observation.frames.clone())
    return torch.stack(frames), state


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("reset", [None, 6])
def test_replayed_steps_are_the_eager_ones(world, monkeypatch, num_steps, reset):
    clip = random_clip(world, batch=2, frames=4).to("cuda")
    recorded, state = stream(world, clip, 12, num_steps, reset)
    assert any(isinstance(v, replay.RecordedStep) for v in state.cache.recorded.values())
    monkeypatch.setattr(replay, "EAGER_STEPS", 1000)
    eager, _ = stream(world, clip, 12, num_steps, reset)
    assert (recorded.int() - eager.int()).abs().max() <= 1


def test_a_copy_of_a_stream_records_its_own(world):
    clip = random_clip(world, batch=2, frames=4).to("cuda")
    _, state = stream(world, clip, 5)
    branch = state.select([0, 1])
    assert not branch.cache.recorded
    first, _ = world.step(state, clip.actions[:, 0])
    second, _ = world.step(branch, clip.actions[:, 0])
    assert (first.frames.int() - second.frames.int()).abs().max() <= 1
