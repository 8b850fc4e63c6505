import copy
import json
from dataclasses import replace

import pytest
import torch
from tiny import TINY_DIT, random_clip, tiny_world

from worldmodel.model.codec import PixelCodec
from worldmodel.model.layers import causal_visibility
from worldmodel.model.precision import full_precision
from worldmodel.streaming.advance import begin
from worldmodel.world_model import WorldModel

MONOLITHIC = replace(TINY_DIT, encoder_depth=0, decoder_depth=3, num_registers=1)


@pytest.mark.parametrize("dit", [TINY_DIT, MONOLITHIC, replace(TINY_DIT, pixels="patch")])
@pytest.mark.parametrize("injection", ["token", "adaln", "cross"])
def test_a_rollout_gives_frames_and_states(dit, injection):
    world = tiny_world(dit, injection=injection)
    clip = random_clip(world)
    dream = world.rollout(clip, torch.rand(2, 3, 2), num_steps=2)
    assert dream.frames.shape == (2, 3, 2, 16, 24, 3)
    assert dream.states.shape == (2, 3, 2)
    assert dream.states.isfinite().all()


@pytest.mark.parametrize("injection", ["token", "adaln", "cross"])
def test_every_injection_makes_the_dream_depend_on_the_action(injection):
    world = tiny_world(injection=injection)
    clip = random_clip(world)
    first = world.rollout(clip, torch.zeros(2, 1, 2))
    second = world.rollout(clip, torch.ones(2, 1, 2))
    assert not torch.equal(first.frames, second.frames)


def test_streaming_equals_reading_the_whole_clip_at_once():
    world = tiny_world()
    world.fast = False
    clip = random_clip(world, frames=4)
    latents = world.codec.encode(clip.frames[:, :-1])
    conditioning = world.conditioner(clip.actions, clip.states[:, :-1], (2, 3))
    whole = world.dit.encode(latents, conditioning).tokens[:, -1]
    with full_precision():
        state = begin(world, clip.head(3), 0)
        last = world.conditioner(clip.actions[:, 2:3], clip.states[:, 2:3], (2, 1))
        streamed = world.engine().encode(state, last).tokens[:, 0]
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=1e-4)


def test_untrained_world_model_repeats_the_current_frame():
    world = tiny_world(random=False)
    clip = random_clip(world)
    dream = world.rollout(clip, torch.rand(2, 2, 2), num_steps=1)
    difference = dream.frames.int() - clip.frames[:, -1:].int()
    assert difference.abs().max() <= 1
    torch.testing.assert_close(dream.states, clip.states[:, -1:].expand(-1, 2, -1))


def test_same_seed_same_dream_and_streams_do_not_depend_on_their_neighbours():
    world = tiny_world()
    clip, actions = random_clip(world), torch.rand(2, 3, 2)
    both = world.rollout(clip, actions, seeds=[5, 6])
    again = world.rollout(clip, actions, seeds=[5, 6])
    alone = world.rollout(clip.map(lambda x: x[1:]), actions[1:], seeds=[6])
    other = world.rollout(clip, actions, seeds=[7, 8])
    assert torch.equal(both.frames, again.frames)
    assert (both.frames[1:].int() - alone.frames.int()).abs().max() <= 2
    assert not torch.equal(both.frames, other.frames)


@pytest.mark.parametrize("dit", [TINY_DIT, MONOLITHIC])
def test_at_temperature_zero_the_seed_does_not_matter(dit, tmp_path):
    world = tiny_world(dit)
    world.config = replace(world.config, temperature=0.0)
    world.save(tmp_path)
    world = WorldModel.load(tmp_path)
    clip, actions = random_clip(world), torch.rand(2, 3, 2)
    first, second = (world.rollout(clip, actions, seeds=seed) for seed in (5, 6))
    assert torch.equal(first.frames, second.frames)
    warm, other = (world.stream(clip, seeds=seed).step(actions[:, 0], temperature=1.0) for seed in (5, 6))
    assert not torch.equal(warm.frames, other.frames)


def test_a_missing_camera_does_not_reach_the_other():
    world = tiny_world()
    clip = replace(random_clip(world), view_mask=torch.tensor([[True, False]] * 2))
    changed = clip.frames.clone()
    changed[:, :, 1] = 255 - changed[:, :, 1]
    actions = torch.rand(2, 2, 2)
    first = world.rollout(clip, actions)
    second = world.rollout(replace(clip, frames=changed), actions)
    assert torch.equal(first.frames[:, :, 0], second.frames[:, :, 0])


def test_unlabelled_video_needs_neither_actions_nor_states():
    world = tiny_world(action_dim=0, state_dim=0, relative_to={})
    clip = random_clip(world)
    observation = world.stream(clip).step(None)
    assert observation.states is None
    assert observation.frames.shape == (2, 2, 16, 24, 3)


def test_round_trip_through_files(tmp_path):
    world = tiny_world()
    world.train_data = [{"name": "d", "fingerprint": "f", "episodes": [1], "reset_seeds": None}]
    world.save(tmp_path / "w")
    loaded = WorldModel.load(tmp_path / "w")
    assert loaded.config == world.config
    assert loaded.train_data == world.train_data
    for name, value in world.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == ["weights.safetensors", "world.json"]


def test_bf16_weights_keep_the_statistics_exact(tmp_path):
    world = tiny_world()
    low, high = torch.tensor([0.1, 0.2]), torch.tensor([511.3, 512.0])
    world.conditioner.set_statistics(torch.stack([low, high]), torch.stack([low, high]), high)
    world.save(tmp_path, dtype=torch.bfloat16)
    loaded = WorldModel.load(tmp_path)
    assert torch.equal(loaded.conditioner.state_scale, world.conditioner.state_scale)


def test_errors_name_both_values(tmp_path):
    world = tiny_world()
    clip = random_clip(world)
    with pytest.raises(ValueError, match="1 views"):
        world.stream(replace(clip, frames=clip.frames[:, :, :1]))
    with pytest.raises(ValueError, match=r"\(16, 16\).*\(16, 24\)"):
        world.stream(replace(clip, frames=clip.frames[..., :16, :]))
    with pytest.raises(ValueError, match=r"width 3.*2"):
        world.stream(clip).step(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"num_steps=3.*\(1, 2, 4\)"):
        world.stream(clip).step(torch.zeros(2, 2), num_steps=3)
    with pytest.raises(ValueError, match="needs states"):
        world.conditioner.relative(torch.zeros(1, 1, 2), None)
    with pytest.raises(ValueError, match=r"world.json is missing"):
        WorldModel.load(tmp_path)
    (tmp_path / "world.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(ValueError, match=r"world.json"):
        WorldModel.load(tmp_path)
    with pytest.raises(ValueError, match="multiple of patch"):
        tiny_world(size=(12, 16))


def test_pixel_codec_is_exact():
    frames = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256, 1).expand(1, 1, 256, 3)
    assert torch.equal(PixelCodec().decode(PixelCodec().encode(frames)), frames)


@pytest.mark.parametrize("reference", [False, True])
def test_the_head_sees_the_first_frame_on_request(reference):
    world = tiny_world(replace(TINY_DIT, reference=reference))
    clip = random_clip(world)
    latents = world.codec.encode(clip.frames)[:, :-1]
    encoded = world.dit.encode(latents, world.conditioner(None, clip.states[:, :-1], (2, 5)))
    noisy, tau = torch.zeros_like(latents), torch.zeros(2, 5)
    first, other = (
        world.dit.decode(each, noisy, torch.zeros(2, 5, 2), tau, tau + 1)[0]
        for each in (encoded, replace(encoded, reference=-encoded.reference))
    )
    assert torch.equal(first, other) is not reference


def test_visibility_counts_the_frames_of_a_gap():
    """Frames 0, 5, 6 with a window of 2: the pinned frame stays in sight at its true distance."""
    seen = causal_visibility(3, 2, torch.device("cpu"), gap=5)
    assert seen.distance.tolist() == [[0, -5, -6], [5, 0, -1], [6, 1, 0]]
    assert seen.visible.tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_copy_of_a_world_that_has_streamed_streams_the_same():
    world = tiny_world()
    clip = random_clip(world)
    actions = torch.rand(2, 3, 2)
    seen = world.rollout(clip, actions)
    again = copy.deepcopy(world).rollout(clip, actions)
    assert torch.equal(seen.frames, again.frames)
