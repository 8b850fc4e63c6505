"""A small decoder learns to show the latents of an autoencoder, and stays with the world model."""

import json
import shutil

import pytest
import torch
from drawn_episodes import DrawnEpisodes
from places import LEROBOT_V21
from tiny import random_clip, tiny_world
from tiny_backbone import CHANNELS, pretrained_world, tiny_vae, write_wan
from tiny_chunks import chunk_world

from worldmodel.cli import main
from worldmodel.dreams.small_decoder import compared, drawn_frames, mean_picture
from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.model.folder import fingerprint
from worldmodel.model.pretrained.small_decoder import SmallDecoder, SmallDecoderCodec, SmallDecoderConfig
from worldmodel.training.latents import LatentCache
from worldmodel.world_model import WorldModel


def small(**changes) -> SmallDecoder:
    torch.manual_seed(0)
    return SmallDecoder(
        SmallDecoderConfig(**{"channels": CHANNELS, "downsampling": 2, "width": 8, "blocks": 1, **changes})
    )


def test_a_world_model_decodes_by_the_small_decoder_and_keeps_it(tmp_path):
    world = pretrained_world(write_wan(tmp_path / "wan"), size=(16, 16))
    context = random_clip(world, frames=2)
    before = world.stream(context).step(torch.zeros(2, 2))
    world.save(tmp_path / "plain")
    world.take_decoder(SmallDecoderCodec(world.codec, small()))
    seen = world.stream(context).step(torch.zeros(2, 2))
    assert seen.frames.shape == before.frames.shape and not torch.equal(seen.frames, before.frames)
    world.save(tmp_path / "world")
    again = WorldModel.load(tmp_path / "world")
    assert again.small_decoder and torch.equal(again.stream(context).step(torch.zeros(2, 2)).frames, seen.frames)
    assert fingerprint(tmp_path / "world") != fingerprint(tmp_path / "plain")
    shutil.copy(tmp_path / "plain" / "weights.safetensors", tmp_path / "world" / "decoder.safetensors")
    with pytest.raises(ValueError, match="not the weights of the decoder that"):
        WorldModel.load(tmp_path / "world")


def test_the_baseline_is_the_mean_picture_of_each_camera():
    often = torch.tensor([10, 100, 30, 200], dtype=torch.uint8)[:, None, None, None].expand(4, 2, 2, 3)
    means = mean_picture(often, torch.zeros(6, 2, 2, 3, dtype=torch.uint8), 2)
    assert means[:, 0, 0, 0].tolist() == [20, 150, 20, 150, 20, 150]


def test_sizes_that_do_not_fit_are_named():
    codec = AutoencoderCodec(tiny_vae())
    assert small(downsampling=16)(torch.zeros(1, CHANNELS, 2, 3)).shape == (1, 3, 32, 48)
    with pytest.raises(
        ValueError, match=r"latents of 4 channels, 4 pixels and 1 frame; those of .* 2 pixels and 1 frames"
    ):
        SmallDecoderCodec(codec, small(downsampling=4))
    with pytest.raises(ValueError, match="8 pixels and 4 frames"):
        SmallDecoderCodec(chunk_world().codec, small(downsampling=8))


def test_frames_and_latents_are_of_the_same_moment_and_both_decoders_are_measured(tmp_path):
    codec = AutoencoderCodec(tiny_vae())
    source = LatentCache(DrawnEpisodes([9, 9], lambda e, t: 20 * e + 9 * t), codec, tmp_path)
    frames, latents = drawn_frames(source, range(2), 6, 0, 0)
    assert frames.shape == (12, 16, 16, 3) and len(frames[:, 0, 0, 0].unique()) > 3
    torch.testing.assert_close(latents, codec.encode(frames), atol=1e-2, rtol=0)  # kept in fp16
    report, picture = compared(codec, SmallDecoderCodec(codec, small()), frames, latents)
    assert picture.shape == (48, 6 * 16, 3) and set(report) == {"autoencoder", "small"}
    assert report["small"]["weights"] < report["autoencoder"]["weights"]


@pytest.mark.parametrize(
    ("world", "message"), [(tiny_world(size=(32, 32)), "works on pixels"), (chunk_world(), "has 4 frames per latent")]
)
def test_worlds_that_need_none_are_refused(world, message, tmp_path, capsys):
    world.save(tmp_path / "world")
    call = f"decoder --world {tmp_path / 'world'} --data {LEROBOT_V21} --out {tmp_path / 'out'} --device cpu"
    assert main(call.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_learns_to_show_the_frames(tmp_path, capsys):
    world = pretrained_world(write_wan(tmp_path / "wan"), size=(32, 32))
    world.save(tmp_path / "world")
    out = tmp_path / "out"
    call = f"decoder --world {tmp_path / 'world'} --data {LEROBOT_V21} --out {out} --steps 60 --width 16 --blocks 1"
    assert main([*call.split(), "--device", "cpu"]) == 0
    report = json.loads((out / "decoder_report.json").read_text())
    assert report["small"]["psnr"] > 8 and "| small |" in capsys.readouterr().out  # 1 dB before, 12 after
    assert (out / "decoder.png").exists() and WorldModel.load(out).small_decoder
    assert main([*call.split(), "--device", "cpu"]) == 2
