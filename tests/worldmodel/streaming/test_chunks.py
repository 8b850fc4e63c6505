"""Streams of a world model whose latents are four frames each."""

from dataclasses import replace

import pytest
import torch
from tiny import random_clip, tiny_world
from tiny_backbone import pretrained_world, tiny_wan
from tiny_chunks import chunk_world, tiny_video_codec

from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.model.codec import PixelCodec
from worldmodel.model.precision import full_precision
from worldmodel.world_model import WorldModel


@pytest.fixture(autouse=True)
def exact():
    with full_precision():
        yield


def drawn(batch=2, frames=8, seed=3):
    return torch.rand(batch, frames, 2, generator=torch.Generator().manual_seed(seed))


def counting(world):
    """The world model with a sampler that counts its calls."""
    calls, sampler = [], world.sampler
    world.sampler = lambda *given: calls.append(1) or sampler(*given)
    return calls


def rolled(stream, actions):
    return [(seen.frames, seen.states) for seen in stream.roll(actions)]


def same(one, other):
    """Equal up to rounding, which in frames is one level of 255."""
    for first, second in zip(one, other, strict=True):
        level = first.dtype == torch.uint8
        torch.testing.assert_close(first.float(), second.float(), atol=1.0 if level else 1e-5, rtol=0)


@pytest.mark.parametrize("depth", [2, 0], ids=["separable", "monolithic"])
def test_a_chunk_is_denoised_once_when_its_actions_are_known_and_once_per_step_otherwise(depth):
    world = chunk_world(depth=depth)
    context, actions, calls = random_clip(world, frames=5), drawn(), counting(world)
    whole, single = world.stream(context, seeds=7), world.stream(context, seeds=7)
    frames = rolled(whole, actions)
    assert len(calls) == 2
    steps = [single.step(action) for action in actions.unbind(1)]
    assert len(calls) == 2 + 8
    for index in (3, 7):  # when all actions of a chunk are known, it is the same chunk
        same(frames[index], (steps[index].frames, steps[index].states))
    same([whole.latent], [single.latent])
    same(whole._state.chunk.features.maps, single._state.chunk.features.maps)
    assert whole.frame.tolist() == single.frame.tolist() == [12, 12]


def test_frames_are_what_the_codec_decodes_from_context_and_dream():
    world = chunk_world(views=("top", "wrist"))
    context, latents = random_clip(world, frames=5), []
    stream = world.stream(context)
    frames = []
    for part in drawn().split(4, dim=1):
        frames += [frame for frame, _ in rolled(stream, part)]
        latents.append(stream.latent)
    coded = torch.cat([world.codec.encode_clip(context.frames), torch.stack(latents, dim=1)], dim=1)
    wanted = world.codec.decode_clip(coded)[:, 5:]
    assert (torch.stack(frames, dim=1).int() - wanted.int()).abs().max() <= 1
    assert len(wanted.unique()) > 20


def test_a_step_shows_what_follows_if_its_action_is_held():
    world, action = chunk_world(), drawn(frames=1)
    context = random_clip(world, frames=1)
    first, second = world.stream(context), world.stream(context)
    seen = first.step(action[:, 0])
    same((seen.frames, seen.states), rolled(second, action.expand(-1, 4, -1))[0])
    assert first.frame.tolist() == [1, 1]
    torch.nn.init.normal_(world.conditioner.known.weight)  # but it knows that the other actions are only assumed
    first, second = world.stream(context), world.stream(context)
    assert not torch.equal(first.step(action[:, 0]).frames, rolled(second, action.expand(-1, 4, -1))[0][0])


def test_a_chunk_begins_at_the_state_of_the_last_frame_before_it():
    world = chunk_world()
    with torch.no_grad():
        world.dit.state_out.weight.zero_()
        world.dit.state_out.bias.copy_(torch.arange(1.0, 9.0))  # displacements of four frames, in two dims
    context, moved = random_clip(world, frames=1), torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    found = [states for _, states in rolled(world.stream(context), drawn())]
    wanted = context.states + torch.cat([moved, moved[-1] + moved]) * world.conditioner.displacement_scale
    torch.testing.assert_close(torch.stack(found, dim=1), wanted)


def test_steps_with_known_actions_ahead_are_what_roll_gives_at_its_cost():
    world, actions = chunk_world(), drawn()
    context = random_clip(world, frames=1)
    wanted, calls = rolled(world.stream(context), actions), counting(world)
    stream = world.stream(context)
    for index, action in enumerate(actions.unbind(1)):
        seen = stream.step(action, ahead=actions[:, index + 1 : index + 3])  # three are known, in a chunk of four
        if index % 4 == 3:
            same((seen.frames, seen.states), wanted[index])
    assert len(calls) == 2 * 2
    assert stream.frame.tolist() == [8, 8]


def test_an_action_that_was_not_the_one_ahead_is_the_one_that_counts():
    world, actions = chunk_world(), drawn(frames=4)
    context = random_clip(world, frames=1)
    wanted, calls = rolled(world.stream(context), actions), counting(world)
    stream = world.stream(context)
    stream.step(actions[:, 0], ahead=1 - actions[:, 1:])
    found = [
        stream.step(action, ahead=actions[:, index + 2 :]) for index, action in enumerate(actions[:, 1:].unbind(1))
    ]
    assert len(calls) == 2
    for one, other in zip(found, wanted[1:], strict=True):
        same((one.frames, one.states), other)
    calls.clear()
    other, told = world.stream(context), {"ahead": actions[:, 1:]}
    other.step(actions[:, 0], **told)
    other.step(actions[:, 1], num_steps=1)  # another number of steps, another temperature, other streams
    other.step(actions[:, 2], temperature=0.5, ahead=actions[:, 3:])
    other.restore(other.snapshot())
    other.step(actions[:, 3], temperature=0.5)
    assert len(calls) == 4


def test_roll_goes_on_in_the_middle_of_a_chunk():
    world, actions = chunk_world(), drawn(frames=7)
    context = random_clip(world, frames=1)
    whole, parts = world.stream(context), world.stream(context)
    frames, calls = rolled(whole, actions), counting(world)
    parts.step(actions[:, 0])
    found = rolled(parts, actions[:, 1:])
    assert len(calls) == 3
    for one, other in zip(found, frames[1:], strict=True):
        same(one, other)


def test_streams_in_different_places_of_their_chunks_do_not_disturb_each_other():
    world, actions = chunk_world(), drawn(frames=9)
    contexts = random_clip(world, frames=2), random_clip(world, batch=1, frames=5, seed=5)
    stream = world.stream(contexts[0], seeds=[1, 2])
    before = [stream.step(action) for action in actions[:, :2].unbind(1)]
    stream.reset([1], contexts[1], seeds=[9])
    assert stream.frame.tolist() == [3, 4]
    later = [stream.step(action) for action in actions[:, 2:6].unbind(1)]
    later += list(stream.roll(actions[:, 6:]))
    assert stream.frame.tolist() == [10, 11]
    first = world.stream(contexts[0].rows([0]), seeds=[1])
    alone = [first.step(action) for action in actions[:1, :6].unbind(1)] + list(first.roll(actions[:1, 6:]))
    for one, other in zip(before + later, alone, strict=True):
        same((one.frames[:1], one.states[:1]), (other.frames, other.states))
    second = world.stream(contexts[1], seeds=[9])
    alone = [second.step(action) for action in actions[1:, 2:6].unbind(1)]
    for one, other in zip(later, alone, strict=False):
        same((one.frames[1:], one.states[1:]), (other.frames, other.states))


def test_a_stream_that_is_reset_while_it_rolls_goes_on_from_there():
    world, actions, context = chunk_world(), drawn(frames=6), random_clip(chunk_world(), frames=1)
    stream, seen = world.stream(context), []
    for index, observation in enumerate(stream.roll(actions)):
        seen.append((observation.frames, observation.states))
        if index == 1:
            stream.reset([0, 1], context)
    assert len(seen) == 6
    for one, other in zip(seen[2:], rolled(world.stream(context), actions[:, 2:]), strict=True):
        same(one, other)


def test_actions_are_needed_and_have_the_width_of_one_frame():
    world = chunk_world()
    stream = world.stream(random_clip(world, frames=1))
    with pytest.raises(ValueError, match="actions are None"):
        stream.step(None)
    with pytest.raises(ValueError, match="actions have width 8, the world model expects 2 for each frame"):
        stream.step(torch.zeros(2, 8))


def test_branches_and_snapshots_go_on_from_the_middle_of_a_chunk():
    world, actions = chunk_world(), drawn(frames=6)
    stream = world.stream(random_clip(world, frames=1))
    for action in actions[:, :2].unbind(1):
        stream.step(action)
    saved, branch, size = stream.snapshot(), stream.branch(2), stream.num_bytes
    assert stream.world is world
    frames = rolled(stream, actions[:, 2:])
    stream.restore(saved)
    assert stream.num_bytes == size > sum(part.numel() * 4 for part in stream._state.chunk.features.maps)
    for one, other in zip(rolled(stream, actions[:, 2:]), frames, strict=True):
        same(one, other)
    for one, other in zip(rolled(branch, actions[:, 2:].repeat_interleave(2, 0)), frames, strict=True):
        same(one, [part.repeat_interleave(2, 0) for part in other])


def test_streams_that_do_not_move_keep_their_chunk():
    world, actions = chunk_world(), drawn(frames=5)
    stream = world.stream(random_clip(world, frames=1))
    for index, action in enumerate(actions.unbind(1)):
        stream.step(action, moving=torch.tensor([True, index == 0]))
    assert stream.frame.tolist() == [5, 1]
    other = world.stream(random_clip(world, frames=1))
    for action in actions.unbind(1):
        seen = other.step(torch.stack([action[0], actions[1, 0]]), moving=torch.tensor([True, other.frame[1] == 0]))
    same((seen.frames,), (stream.observation.frames,))
    following = [each.step(torch.ones(2, 2)).frames for each in (stream, other)]
    same(following[:1], following[1:])


@pytest.mark.parametrize("frames", [1, 4, 5, 7])
def test_chunks_end_at_the_last_frame_of_the_context(frames):
    world = chunk_world()
    context = random_clip(world, frames=frames)
    stream = world.stream(context)
    assert stream.frame.tolist() == [frames - 1] * 2
    assert torch.equal(stream.observation.frames, context.frames[:, -1])
    assert torch.equal(stream.observation.states, context.states[:, -1])
    read = frames - (frames - 1) % 4
    late = {name: getattr(context, name)[:, frames - read :] for name in ("frames", "actions", "states")}
    late = replace(context, **late)
    same(rolled(stream, drawn())[-1], rolled(world.stream(late), drawn())[-1])


def test_a_saved_world_dreams_the_same_and_the_copying_one_stays_where_it_is(tmp_path):
    world, actions = chunk_world(), drawn(frames=5)
    context = random_clip(world, frames=5)
    world.save(tmp_path)
    dreamed = world.rollout(context, actions)
    assert dreamed.frames.shape == (2, 5, 1, 32, 32, 3)
    assert dreamed.states.shape == (2, 5, 2)
    loaded = WorldModel.load(tmp_path)
    assert loaded.chunk == 4
    assert torch.equal(loaded.rollout(context, actions).frames, dreamed.frames)
    copying = CopyLastWorld.load(tmp_path).stream(context)
    seen = list(copying.roll(actions))
    assert torch.equal(seen[-1].frames, context.frames[:, -1])
    assert copying.frame.tolist() == [9, 9]


def test_codec_and_conditioner_have_the_same_number_of_frames_per_latent():
    world = tiny_world(views=("top",), size=(32, 32), chunk=1)
    with pytest.raises(ValueError, match="codec: 4 frames per latent, expected chunk 1"):
        WorldModel(world.config, chunk_world().codec)
    with pytest.raises(ValueError, match="codec: 1 frames per latent, expected chunk 4"):
        WorldModel(chunk_world().config, PixelCodec())


def test_a_pretrained_transformer_counts_the_time_of_whole_chunks(tmp_path):
    tiny_wan().save_pretrained(tmp_path / "transformer")
    tiny_video_codec().autoencoder.save_pretrained(tmp_path / "vae")
    single, world = (
        pretrained_world(tmp_path, size=(32, 32), views=("top",), chunk=chunk, lora_rank=2) for chunk in (1, 4)
    )
    assert world.dit.spacing == 4 * single.dit.spacing == 4 * 0.4  # positions per second, at 10 frames a second
    context, actions = random_clip(world, frames=5), drawn(frames=4)
    stream = world.stream(context)
    frames = rolled(stream, actions)
    assert stream.frame.tolist() == [8, 8]
    assert len({int(frame.sum()) for frame, _ in frames}) == 4
