"""Train a small decoder on recorded frames, and save the world model with it. `worldmodel decoder`."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import mse_loss

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.options import DataOptions, DataPath, ReadOptions
from worldmodel.data.sample import sample_clips, split_episodes
from worldmodel.display.ranges import Count, Positive, Whole, check_ranges
from worldmodel.dreams.context import check_views
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.codec import LatentCodec, PixelCodec, to_signed
from worldmodel.model.folder import check_out
from worldmodel.model.precision import autocast, command_device
from worldmodel.model.psnr import psnr
from worldmodel.training.fit import fit
from worldmodel.training.latents import LatentCache
from worldmodel.world_model import WorldModel

SHOWN = 6
"""Held-out frames in the picture, which has a column for each."""
MEASURED = 64
"""Held-out frames that are measured."""


@dataclass(frozen=True)
class DecoderConfig:
    """Train a small decoder for the latents of a world model."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV; it has an autoencoder, and one frame per latent."""
    data: DataPath
    """Data set whose frames it learns to show; that of the world model's training."""
    out: Path
    """Folder for the world model with the decoder, the report and the picture."""
    steps: Count = 3000
    """Training steps."""
    batch: Count = 16
    """Frames of a step, all cameras of each."""
    width: Count = 64
    """Channels of its layers."""
    blocks: Count = 3
    """Residual blocks at each size of the picture."""
    learning_rate: Positive = 1e-3
    """At the first step; it falls to 0 at the end."""
    validation_episodes: Whole | None = None
    """Number of held-out episodes, the last ones, on which it is measured; by default 8, or a fifth of a small set."""
    reading: ReadOptions = field(default_factory=DataOptions)
    """Which episodes and columns of the data to read."""
    overwrite: bool = False
    """Replace what is in --out."""
    seed: Whole = 0
    """Seed of weights and batches."""
    device: str = "auto"
    """Where it trains: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def train_decoder(config: DecoderConfig) -> dict:
    """Train, measure on held-out frames, and write the world model with the decoder; returns the report.

    Raises:
        ValueError: The world model has no autoencoder or several frames per latent, or the data does not fit it.
    """
    check_ranges(config)
    from worldmodel.model.pretrained.small_decoder import SmallDecoder, SmallDecoderCodec, SmallDecoderConfig

    check_out(config.out, "world.json", overwrite=config.overwrite)
    world = WorldModel.load(config.world, command_device(config.device))
    if isinstance(world.codec, PixelCodec) or world.chunk > 1 or world.small_decoder:
        kind = "works on pixels" if isinstance(world.codec, PixelCodec) else f"has {world.chunk} frames per latent"
        kind = "has a small decoder already" if world.small_decoder else kind
        raise ValueError(f"{config.world}: this world model {kind}; it takes one with an autoencoder of single frames")
    recorded = open_episodes(config.data, tuple(world.size), world.views, config.reading)
    check_views(world, recorded)
    source = LatentCache(EpisodeCache(recorded, cache_gb=config.reading.cache_gb), world.codec)
    train, held_out = split_episodes(source, config.validation_episodes)
    torch.manual_seed(config.seed)
    shape = SmallDecoderConfig(world.codec.channels, world.codec.downsampling, config.width, config.blocks)
    decoder = SmallDecoder(shape).to(world.device)

    def loss_of(step: int) -> Float[Tensor, ""]:
        frames, latents = drawn_frames(source, train, config.batch, config.seed, step)
        with autocast(world.device):
            pixels = decoder(latents.to(world.device))
        return mse_loss(pixels.float(), to_signed(frames).to(world.device))

    fit(decoder, loss_of, steps=config.steps, learning_rate=config.learning_rate, name="small decoder")
    small = SmallDecoderCodec(world.codec, decoder)
    frames, latents = drawn_frames(source, held_out, MEASURED, config.seed, 0)
    report, picture = compared(world.codec, small, frames, latents.to(world.device))
    often, _ = drawn_frames(source, train, MEASURED, config.seed, config.steps)
    report["mean picture"] = {"psnr": psnr(mean_picture(often, frames, len(world.views)), frames).mean().item()}
    world.take_decoder(small)
    world.save(config.out)
    write_json(config.out / "decoder_report.json", {**report, "frames": len(frames), "steps": config.steps})
    Image.fromarray(picture).save(config.out / "decoder.png")
    print(shown(report))
    print(f"{config.out}: the world model with the small decoder; decoder.png shows frames, autoencoder, small decoder")
    return report


def drawn_frames(
    source: EpisodeSource, episodes: range, number: int, seed: int, index: int
) -> tuple[UInt8[Tensor, "n H W 3"], Float[Tensor, "n c h w"]]:
    """Frames of all cameras of `number` random moments, and their latents."""
    pairs = sample_clips(source, batch=-(-number // 2), length=2, stride=1, seed=seed, index=index, episodes=episodes)
    return pairs.frames.flatten(0, 2), pairs.latents.flatten(0, 2).float()


def compared(
    codec: LatentCodec, small: LatentCodec, frames: UInt8[Tensor, "n H W 3"], latents: Float[Tensor, "n c h w"]
) -> tuple[dict[str, dict[str, float]], UInt8[np.ndarray, "height width 3"]]:
    """Both decoders on the same latents: PSNR against the frames, and against each other, milliseconds; a picture."""
    shown, report = [frames], {}
    decoders = {"autoencoder": (codec, codec.autoencoder.decoder), "small": (small, small.decoder)}
    for name, (each, network) in decoders.items():
        each.decode(latents[:1])
        if latents.is_cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        decoded = each.decode(latents).cpu()
        seconds = time.perf_counter() - begin
        shown.append(decoded)
        report[name] = {
            "psnr": psnr(decoded, frames).mean().item(),
            "milliseconds": 1000 * seconds / len(frames),
            "weights": sum(part.numel() for part in network.parameters()),
        }
    report["small"]["psnr_to_autoencoder"] = psnr(shown[2], shown[1]).mean().item()
    rows = [np.concatenate(list(part[:: max(len(frames) // SHOWN, 1)][:SHOWN].numpy()), axis=1) for part in shown]
    return report, np.concatenate(rows)


def mean_picture(
    often: UInt8[Tensor, "m H W 3"], frames: UInt8[Tensor, "n H W 3"], views: int
) -> UInt8[Tensor, "n H W 3"]:
    """What every decoder has to beat: for each of `frames` the mean picture of its camera in the training frames."""
    means = often.unflatten(0, (-1, views)).float().mean(0).round().to(torch.uint8)
    return means.repeat(len(frames) // views, 1, 1, 1)


def shown(report: dict[str, dict[str, float]]) -> str:
    """The report as a table."""
    rows = []
    for name, row in report.items():
        near = f"{row['psnr_to_autoencoder']:.1f}" if "psnr_to_autoencoder" in row else "-"
        size = f"{row['weights'] / 1e6:.2f}M" if "weights" in row else "-"
        pace = f"{row['milliseconds']:.2f}" if "milliseconds" in row else "-"
        rows.append((name, size, pace, f"{row['psnr']:.1f}", near))
    heads = ("decoder", "weights", "ms per frame", "PSNR to the frames, dB", "PSNR to the autoencoder's, dB")
    return table(heads, rows)
