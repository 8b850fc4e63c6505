import pytest
import torch
from tiny import random_clip
from tiny_chunks import chunk_world, tiny_video_codec

from worldmodel.model.codec import PixelCodec
from worldmodel.streaming.coded import by_latent, code_clip, drawn_known, held_actions, latents_of, recoded


def test_the_last_known_action_stands_for_later_ones():
    actions = torch.arange(8.0).reshape(2, 4, 1)
    held = held_actions(actions, torch.tensor([2, 4]))
    assert held[..., 0].tolist() == [[0, 1, 1, 1], [4, 5, 6, 7]]


def test_a_clip_is_cut_into_latents_and_what_leads_to_them():
    world = chunk_world()
    clip = random_clip(world, frames=11)
    coded = code_clip(world.codec, clip)
    assert torch.equal(coded.latents, world.codec.encode_clip(clip.frames[:, 2:]))
    assert torch.equal(coded.actions[:, 1], clip.actions[:, 6:10].flatten(1))
    assert torch.equal(coded.states, clip.states[:, 2::4])
    assert torch.equal(coded.reached[:, 1], clip.states[:, 7:11])


def test_a_clip_by_latents_has_the_actions_that_are_known():
    world = chunk_world()
    clip = random_clip(world, frames=9)
    cut, reached = by_latent(world.codec, clip, torch.tensor([[1, 4], [3, 2]]))
    assert torch.equal(cut.frames, clip.frames[:, ::4])
    assert torch.equal(cut.actions[0, 0].view(4, 2), clip.actions[0, :1].expand(4, 2))
    assert torch.equal(cut.actions[0, 1].view(4, 2), clip.actions[0, 4:])
    assert torch.equal(cut.actions[1, 0].view(4, 2), clip.actions[1, [0, 1, 2, 2]])
    assert torch.equal(cut.latents, world.codec.encode_clip(clip.frames))
    assert torch.equal(reached[:, 1], clip.states[:, 5:])


def test_a_clip_of_single_frames_stays_as_it_is():
    clip = random_clip(chunk_world(), frames=3)
    same, reached = by_latent(PixelCodec(), clip, None)
    assert same is clip
    assert torch.equal(reached[:, :, 0], clip.states[:, 1:])


def test_frames_are_coded_and_decoded_in_whole_chunks():
    codec, clip = tiny_video_codec(), random_clip(chunk_world(), frames=7)
    padded = torch.cat([clip.frames[:, :1], clip.frames[:, :1], clip.frames], dim=1)
    assert torch.equal(recoded(codec, clip.frames), codec.decode_clip(codec.encode_clip(padded))[:, 2:])
    assert torch.equal(recoded(codec, clip.frames[:, :5]), codec.decode_clip(codec.encode_clip(clip.frames[:, :5])))
    assert torch.equal(recoded(PixelCodec(), clip.frames), clip.frames)


def test_all_actions_are_known_in_half_of_the_chunks():
    known = drawn_known((200, 20), 4, torch.Generator().manual_seed(0))
    share = torch.stack([(known == number).float().mean() for number in range(6)])
    torch.testing.assert_close(share, torch.tensor([0, 1, 1, 1, 3, 0]) / 6, atol=0.02, rtol=0)


def test_clips_of_other_lengths_are_refused():
    assert [latents_of(frames, 4) for frames in (1, 5, 9)] == [1, 2, 3]
    with pytest.raises(ValueError, match="frames 8: latents are 1 frame and then 4 each; the nearest is 5"):
        latents_of(8, 4)
    assert tiny_video_codec().frames_per_latent == 4
