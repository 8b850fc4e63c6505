from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, AutoencoderTiny
from tiny import random_clip, tiny_world

from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.world_model import WorldModel


def tiny_autoencoder(kind):
    if kind is AutoencoderTiny:
        return AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
        )
    if kind is AutoencoderKLWan:
        return AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.5, -0.5, 0.0, 1.0],
            latents_std=[2.0, 1.0, 1.0, 0.5],
        )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, **blocks)


KINDS = (AutoencoderTiny, AutoencoderKL, AutoencoderKLWan)


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_autoencoders_serve_as_codec(kind, tmp_path):
    tiny_autoencoder(kind).save_pretrained(tmp_path / "ae")
    codec = AutoencoderCodec.from_pretrained(tmp_path / "ae")
    frames = torch.randint(0, 256, (2, 3, 2, 32, 16, 3), dtype=torch.uint8)
    latents = codec.encode(frames)
    assert latents.shape == (2, 3, 2, 4, 16, 8)
    assert codec.decode(latents).shape == frames.shape
    world = WorldModel(replace(tiny_world().config, size=(32, 16)), codec)
    world.save(tmp_path / "world")
    loaded = WorldModel.load(tmp_path / "world")
    clip = random_clip(world, frames=2)
    first, second = (w.rollout(clip, torch.zeros(2, 1, 2)) for w in (world.eval(), loaded))
    assert torch.equal(first.frames, second.frames)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_coded_one_by_one(kind):
    torch.manual_seed(0)
    codec = AutoencoderCodec(tiny_autoencoder(kind))
    frames = torch.randint(0, 256, (3, 32, 16, 3), dtype=torch.uint8)
    torch.testing.assert_close(codec.encode(frames)[1], codec.encode(frames[1]))


def test_latents_are_normalised_by_the_statistics_of_the_autoencoder():
    torch.manual_seed(0)
    autoencoder = tiny_autoencoder(AutoencoderKLWan)
    frames = torch.randint(0, 256, (1, 32, 16, 3), dtype=torch.uint8)
    pixels = frames.movedim(-1, 1).float()[:, :, None] / 127.5 - 1
    raw = autoencoder.encode(pixels).latent_dist.mode()[0, :, 0]
    latents = AutoencoderCodec(autoencoder).encode(frames)[0]
    torch.testing.assert_close(latents[0] * 2.0 + 0.5, raw[0])
    torch.testing.assert_close(latents[3] * 0.5 + 1.0, raw[3])


def test_unknown_codec_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ValueError, match="VQModel"):
        AutoencoderCodec.from_pretrained(tmp_path)


def test_damaged_weights_are_named(tmp_path):
    tiny_autoencoder(AutoencoderTiny).save_pretrained(tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=f"{file}: not a safetensors file"):
        AutoencoderCodec.from_pretrained(tmp_path)
