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
    """`count` dreamed frames; before frame `reset` the second stream begins anew."""
    running, frames = world.stream(clip), []
    for index in range(count):
        if index == reset:
            running.reset([1], clip.map(lambda x: x[1:]), seeds=[1])
        actions = clip.actions[:, index % clip.actions.shape[1]]
        observation = running.step(actions, num_steps=num_steps)
        frames.append(observation.frames.clone())
    return torch.stack(frames), running


@pytest.mark.parametrize("num_steps", [1, 2, 4])
@pytest.mark.parametrize("reset", [None, 6])
def test_replayed_steps_are_the_eager_ones(world, monkeypatch, num_steps, reset):
    clip = random_clip(world, batch=2, frames=4).to("cuda")
    recorded, running = stream(world, clip, 12, num_steps, reset)
    steps = running.snapshot().state.cache.recorded, running._state.cache.recorded
    assert not steps[0] and any(isinstance(v, replay.RecordedStep) for v in steps[1].values())
    monkeypatch.setattr(replay, "EAGER_STEPS", 1000)
    eager, _ = stream(world, clip, 12, num_steps, reset)
    assert (recorded.int() - eager.int()).abs().max() <= 1


def test_a_copy_of_a_stream_records_its_own(world):
    clip = random_clip(world, batch=2, frames=4).to("cuda")
    _, running = stream(world, clip, 5)
    branch = running.branch()
    first, second = running.step(clip.actions[:, 0]), branch.step(clip.actions[:, 0])
    assert (first.frames.int() - second.frames.int()).abs().max() <= 1
