import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan
from einops import rearrange
from tiny_chunks import WAN_21, WAN_22, tiny_video_codec

from worldmodel.model.codec import to_frames, to_signed
from worldmodel.model.pretrained.video_codec import VideoCodec

KINDS = pytest.mark.parametrize("kind", [WAN_21, WAN_22], ids=["wan 2.1", "wan 2.2"])


def random_frames(videos=2, frames=13):
    return torch.randint(0, 256, (videos, frames, 2, 32, 32, 3), dtype=torch.uint8)


def whole(codec, frames):
    """Latents and pixels of the calls that diffusers has for whole videos."""
    signed = rearrange(to_signed(frames), "b t v c h w -> (b v) c t h w")
    with torch.no_grad():
        latents = codec.autoencoder.encode(signed).latent_dist.mode()
        pixels = codec.autoencoder.decode(latents).sample
    return [rearrange(x, "(b v) c t h w -> b t v c h w", b=len(frames)) for x in (latents, pixels)]


def decoded(codec, latents):
    """Pixels of every latent, each decoded by itself, and the features after each."""
    features, pixels, seen = None, [], []
    for latent in latents.unbind(1):
        part, features = codec.decode_pixels(latent, features)
        pixels.append(part)
        seen.append(features)
    return pixels, seen


@KINDS
def test_chunks_are_the_whole_video(kind):
    """Some builds of PyTorch round the last layer of one latent otherwise than that of four: 6e-8 on an EPYC."""
    codec, frames = tiny_video_codec(kind), random_frames()
    raw, pixels = whole(codec, frames)
    latents = codec.encode_clip(frames)
    assert latents.shape == raw.shape
    torch.testing.assert_close(latents, raw * codec.scale, rtol=0, atol=1e-6)
    streamed, _ = decoded(codec, latents)
    assert [part.shape[1] for part in streamed] == [1, 4, 4, 4]
    torch.testing.assert_close(torch.cat(streamed, dim=1).clamp(-1, 1), pixels, rtol=0, atol=1e-5)


def test_latents_have_the_statistics_of_the_autoencoder():
    codec, frames = tiny_video_codec({**WAN_21, "latents_mean": [0.5, -0.5, 0.0, 1.0]}), random_frames(1, 5)
    raw, pixels = whole(codec, frames)
    latents = codec.encode_clip(frames)
    torch.testing.assert_close(latents[:, :, :, 0] * 2.0 + 0.5, raw[:, :, :, 0])
    torch.testing.assert_close(latents[:, :, :, 3] * 0.5 + 1.0, raw[:, :, :, 3])
    assert (codec.decode_clip(latents).int() - to_frames(pixels).int()).abs().max() <= 1


@KINDS
def test_frames_of_a_clip_are_those_of_its_chunks(kind):
    codec, frames = tiny_video_codec(kind), random_frames()
    latents = codec.encode_clip(frames)
    assert torch.equal(codec.decode_clip(latents), to_frames(torch.cat(decoded(codec, latents)[0], dim=1)))
    assert torch.equal(codec.encode_clip(frames[:, :5]), latents[:, :2])


@KINDS
def test_videos_of_different_length_share_a_batch(kind):
    codec, frames = tiny_video_codec(kind), random_frames()
    latents = codec.encode_clip(frames)
    pixels, seen = decoded(codec, latents)
    mixed = seen[2].put(torch.tensor([1]), seen[0].select(torch.tensor([1])))
    together, after = codec.decode_pixels(torch.stack([latents[0, 3], latents[1, 1]]), mixed)
    torch.testing.assert_close(together[0], pixels[3][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together[1], pixels[1][1], rtol=0, atol=1e-5)
    for mine, young, old in zip(after.maps, seen[1].maps, seen[3].maps, strict=True):
        torch.testing.assert_close(mine, torch.stack([old[0], young[1]]), rtol=0, atol=1e-5)


@KINDS
def test_encoding_goes_on_with_videos_of_different_length(kind):
    codec, frames = tiny_video_codec(kind), random_frames()
    expected = codec.encode_clip(frames)
    _, first = codec.encode_next(frames[:, :1], None)
    _, second = codec.encode_next(frames[:, 1:5], first)
    mixed = second.put(torch.tensor([1]), first.select(torch.tensor([1])))
    latents, _ = codec.encode_next(torch.stack([frames[0, 5:9], frames[1, 1:5]]), mixed)
    torch.testing.assert_close(latents, torch.stack([expected[0, 2], expected[1, 1]]), rtol=0, atol=1e-5)


def test_other_calls_of_the_autoencoder_do_not_disturb_a_video():
    codec, frames = tiny_video_codec(), random_frames()
    latents = codec.encode_clip(frames)
    pixels, seen = decoded(codec, latents)
    codec.decode(latents[:, 0])
    codec.encode_clip(random_frames(1, 5))
    assert torch.equal(codec.decode_next(latents[:, 3], seen[2])[0], to_frames(pixels[3]))


def test_memory_limit_does_not_change_latents():
    codec, frames = tiny_video_codec(), random_frames(3, 5)
    latents = codec.encode_clip(frames)
    codec.chunk = 8  # one clip of two cameras
    torch.testing.assert_close(codec.encode_clip(frames), latents)
    assert codec.decode_clip(latents).shape == frames.shape


def test_other_autoencoders_and_lengths_are_refused():
    with pytest.raises(ValueError, match="AutoencoderKL codes single frames only"):
        VideoCodec(AutoencoderKL())
    with pytest.raises(ValueError, match="codes 2 frames as one latent, expected 4"):
        VideoCodec(AutoencoderKLWan(**{**WAN_21, "temperal_downsample": [False, False, True]}))
    codec = tiny_video_codec()
    with pytest.raises(ValueError, match="clips of 4 frames, expected 1, 5, 9"):
        codec.encode_clip(random_frames(1, 4))
    with pytest.raises(ValueError, match="got 4 frames, expected 1"):
        codec.encode_next(random_frames(1, 4), None)
