"""Latents that are encoded once: the same numbers in training, and encoded again only for other data or weights."""

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from tiny_backbone import pretrained_world, tiny_vae, write_wan

from worldmodel.data.sample import sample_clips
from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.training.latents import PIECE_FRAMES, LatentCache
from worldmodel.training.loss import LossConfig, draw, training_loss


def episodes(lengths=(5, 70)):
    return DrawnEpisodes(list(lengths), lambda e, f: (20 + 30 * e + 2 * f) % 256)


@pytest.fixture
def codec():
    return AutoencoderCodec(tiny_vae())


def test_every_frame_has_its_latents_across_episodes_and_pieces(codec, tmp_path):
    source = episodes()
    cached = LatentCache(source, codec, tmp_path)
    assert max(source.lengths) > PIECE_FRAMES and len(cached) == 2
    for episode, start, stop, stride in ((0, 1, 5, 1), (1, 0, 3, 1), (1, 62, 69, 3)):
        clip = cached.read(episode, start, stop, stride)
        wanted = codec.encode(source.read(episode, start, stop, stride).frames)
        torch.testing.assert_close(clip.latents.float(), wanted, atol=2e-3, rtol=2e-3)
        assert torch.equal(clip.frames, source.read(episode, start, stop, stride).frames)


def test_it_is_encoded_again_for_other_data_or_weights_only(codec, tmp_path):
    LatentCache(episodes(), codec, tmp_path)
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("latents-*/latents.npy")}
    LatentCache(episodes(), codec, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("latents-*/latents.npy")} == made
    with torch.no_grad():
        next(codec.autoencoder.parameters()).add_(0.1)
    LatentCache(episodes(), codec, tmp_path)
    LatentCache(episodes((5, 71)), codec, tmp_path)
    assert len(list(tmp_path.glob("latents-*/latents.npy"))) == 3
    assert not list(tmp_path.glob("*.building"))


def test_a_build_that_fails_leaves_nothing(codec, tmp_path, monkeypatch):
    monkeypatch.setattr(AutoencoderCodec, "encode", lambda self, frames: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LatentCache(episodes(), codec, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_training_reads_the_latents_and_not_the_codec(tmp_path, monkeypatch):
    world = pretrained_world(write_wan(tmp_path / "wan"), views=("top", "wrist"), size=(16, 16), lora_rank=2)
    source = LatentCache(episodes(), world.codec, tmp_path / "cache")
    clip = sample_clips(source, batch=2, length=4, stride=1, seed=0, index=0, episodes=[0, 1], gap=2)
    assert clip.latents.shape == (2, 4, 2, 4, 8, 8) and clip.latents.dtype == torch.float16
    assert clip.head(3).latents.shape[1] == 3 and clip.rows([1]).latents.shape[0] == 1
    draws = draw(world, LossConfig(), batch=2, frames=4, generator=torch.Generator().manual_seed(0))
    exact = training_loss(world, clip, draws, LossConfig())[0]
    again = sample_clips(source.source, batch=2, length=4, stride=1, seed=0, index=0, episodes=[0, 1], gap=2)
    torch.testing.assert_close(exact, training_loss(world, again, draws, LossConfig())[0], atol=1e-3, rtol=1e-2)
    monkeypatch.setattr(AutoencoderCodec, "encode", lambda self, frames: 1 / 0)
    assert np.isfinite(training_loss(world, clip, draws, LossConfig())[0].item())
