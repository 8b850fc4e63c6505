"""A small decoder against that of an autoencoder: PSNR and milliseconds per frame.

    python benchmarks/small_decoder.py --data data/pusht --out runs/benchmarks/small-decoder

1. A tiny autoencoder of the class of Wan is trained on single frames, and then `worldmodel decoder` on its latents.
2. The decoder of Wan 2.1 at its real size, with random weights, and a small decoder for its latents are timed: speed
   does not depend on what they have learned.

On a CPU the milliseconds of the second table are CPU time, which other programs on the machine disturb less.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKLWan
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from conditioning.conditioner import ConditionerConfig
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.data.sample import sample_clips, split_episodes
from worldmodel.dreams.small_decoder import DecoderConfig, train_decoder
from worldmodel.files import write_json
from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.model.card import table
from worldmodel.model.codec import LatentCodec, to_signed
from worldmodel.model.dit import DiTConfig
from worldmodel.model.precision import command_device, describe
from worldmodel.model.pretrained.small_decoder import SmallDecoder, SmallDecoderCodec, SmallDecoderConfig
from worldmodel.training.fit import fit
from worldmodel.world_model import WorldModel, WorldModelConfig

TINY = {"base_dim": 8, "z_dim": 16, "num_res_blocks": 1, "dim_mult": [1, 2, 4, 4]}
KL_WEIGHT = 1e-4


@dataclass(frozen=True)
class SmallDecoderBench:
    """What to train and to time."""

    data: Path
    """Data set of the frames."""
    out: Path = Path("runs/benchmarks/small-decoder")
    """Folder for the world models and the report."""
    size: int = 32
    """Side of the square frames."""
    autoencoder_steps: int = 500
    """Training steps of the tiny autoencoder."""
    steps: int = 800
    """Training steps of the small decoder."""
    batch: int = 8
    """Moments of a step, two frames and all cameras of each."""
    width: int = 32
    """Channels of the small decoder for the tiny autoencoder; for the real one it has 64."""
    rounds: int = 5
    """Measurements of each speed, in turns."""
    device: str = "auto"
    """Where the networks run."""


def train_autoencoder(source: EpisodeSource, config: SmallDecoderBench, device: torch.device) -> AutoencoderKLWan:
    """A tiny autoencoder of single frames, whose latents have about unit variance."""
    torch.manual_seed(0)
    scales = {"latents_mean": [0.0] * TINY["z_dim"], "latents_std": [1.0] * TINY["z_dim"]}
    vae = AutoencoderKLWan(**TINY, **scales).to(device)
    train, _ = split_episodes(source, None)

    def loss_of(step: int) -> Float[Tensor, ""]:
        clip = sample_clips(source, batch=config.batch // 2, length=2, stride=1, seed=1, index=step, episodes=train)
        pixels = to_signed(clip.frames.flatten(0, 2)).to(device)[:, :, None]
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample(torch.Generator(device).manual_seed(step))).sample
        return mse_loss(decoded, pixels) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    fit(vae, loss_of, steps=config.autoencoder_steps, learning_rate=2e-3, name="autoencoder")
    return vae


def milliseconds(codecs: dict[str, LatentCodec], config: SmallDecoderBench, device: torch.device) -> dict[str, list]:
    """Time of decoding one frame, in turns."""
    clock: Callable[[], float] = time.process_time if device.type == "cpu" else time.perf_counter
    latents = torch.randn(1, 16, config.size // 8, config.size // 8, device=device)
    found: dict[str, list] = {name: [] for name in codecs}
    for turn in range(config.rounds + 1):
        for name, codec in codecs.items():
            begin = clock()
            codec.decode(latents).cpu()
            found[name] += [1000 * (clock() - begin)] if turn else []
    return found


def real_speed(config: SmallDecoderBench, device: torch.device) -> tuple[str, dict[str, list]]:
    """The decoder of Wan 2.1 and a small one of 64 channels, with random weights."""
    large = AutoencoderCodec(AutoencoderKLWan()).to(device)
    small = SmallDecoderCodec(large, SmallDecoder(SmallDecoderConfig(16, 8)).to(device))
    found = milliseconds({"Wan 2.1": large, "small": small}, config, device)
    weights = {"Wan 2.1": large.autoencoder.decoder, "small": small.decoder}
    rows = []
    for name, each in found.items():
        size = sum(part.numel() for part in weights[name].parameters()) / 1e6
        ratios = sorted(one / mine for one, mine in zip(found["Wan 2.1"], each, strict=True))
        faster = f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"
        rows.append((name, f"{size:.2f}M", f"{statistics.median(each):.1f}", faster))
    return table(("decoder", "weights", f"ms per frame of {config.size} x {config.size}", "times as fast"), rows), found


def main(config: SmallDecoderBench) -> None:
    """Train, measure, and print the tables."""
    device = command_device(config.device)
    source = EpisodeCache(open_episodes(config.data, (config.size, config.size)))
    vae = train_autoencoder(source, config, device)
    told = ConditionerConfig(action_dim=source.action_dim, state_dim=source.state_dim)
    settings = {
        "conditioner": told,
        "dit": DiTConfig(width=32, patch=2, encoder_depth=1, decoder_depth=1, head_width=16),
    }
    world = WorldModel(
        WorldModelConfig(source.views, tuple(source.size), source.fps, **settings), AutoencoderCodec(vae)
    )
    world.save(config.out / "world")
    print("# A tiny autoencoder, and a small decoder trained on its latents\n")
    fast = DecoderConfig(
        world=config.out / "world",
        data=config.data,
        out=config.out / "fast",
        steps=config.steps,
        batch=config.batch,
        width=config.width,
        blocks=2,
        overwrite=True,
        device=config.device,
    )
    report = train_decoder(fast)
    speeds, times = real_speed(config, device)
    print(f"\n# The real size, random weights\n\n{speeds}")
    write_json(config.out / "report.json", {"trained": report, "milliseconds": times, "device": describe(device)})


if __name__ == "__main__":
    main(tyro.cli(SmallDecoderBench, description=__doc__))
