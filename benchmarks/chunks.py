"""Frames per second with latents of one frame each, and of four: open loop, planned, and one action at a time.

    python benchmarks/chunks.py --out runs/benchmarks/chunks.json
    python benchmarks/chunks.py --device cuda --batch 16 --size 256 --width 24 128 --layers 30 --vae 96

Both worlds have the same transformer of the class of Wan and the same autoencoder, with random weights: speed does not
depend on what they have learned. With chunks a latent is denoised and decoded once for four frames where the actions
are known in advance; where they come one at a time, every frame costs a whole latent. On a CPU the seconds are those of
CPU time, which other programs on the machine disturb less.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from conditioning.conditioner import ConditionerConfig
from worldmodel.data.clip import Clip
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.precision import command_device, describe
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.world_model import WorldModel, WorldModelConfig

CHANNELS = 16
CONTEXT_FRAMES = 5


@dataclass(frozen=True)
class ChunksConfig:
    """What to time."""

    batch: int = 1
    """Streams side by side."""
    size: int = 64
    """Side of the square pictures in pixels; a multiple of 16."""
    width: tuple[int, int] = (4, 64)
    """Heads of the transformer, and their width."""
    layers: int = 4
    """Blocks of the transformer."""
    vae: int = 16
    """Channels of the autoencoder at full size; Wan 2.1 has 96."""
    frames: int = 8
    """Frames of one measurement."""
    rounds: int = 3
    """Measurements of each way, in turns."""
    num_steps: int = 2
    """Denoising steps."""
    device: str = "auto"
    """Where the networks run."""
    out: Path = Path("runs/benchmarks/chunks.json")
    """Where the figures go."""


def write_pipeline(config: ChunksConfig, folder: Path) -> None:
    """A pipeline of the class of Wan 2.1 with random weights."""
    heads, wide = config.width
    WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=wide,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=64,
        freq_dim=256,
        ffn_dim=4 * heads * wide,
        num_layers=config.layers,
    ).save_pretrained(folder / "transformer")
    AutoencoderKLWan(base_dim=config.vae, z_dim=CHANNELS).save_pretrained(folder / "vae")


def world_of(config: ChunksConfig, folder: Path, chunk: int, device: torch.device) -> WorldModel:
    """A world model on the pipeline with this many frames per latent."""
    told = ConditionerConfig(action_dim=7, state_dim=7, injection="adaln", chunk=chunk)
    dit = PretrainedConfig(str(folder), lora_rank=8)
    size = (config.size, config.size)
    return WorldModel(WorldModelConfig(("camera",), size, 16.0, conditioner=told, dit=dit)).eval().to(device)


def ways_of(config: ChunksConfig, folder: Path, device: torch.device) -> dict[str, Callable[[], None]]:
    """The ways to dream `frames` frames; each goes on with streams of its own."""
    context = Clip(
        frames=torch.zeros(config.batch, CONTEXT_FRAMES, 1, config.size, config.size, 3, dtype=torch.uint8),
        actions=torch.zeros(config.batch, CONTEXT_FRAMES - 1, 7),
        states=torch.zeros(config.batch, CONTEXT_FRAMES, 7),
    )
    actions = torch.rand(config.batch, config.frames, 7)
    single, chunked = (world_of(config, folder, chunk, device) for chunk in (1, 4))
    streams = [world.stream(context) for world in (single, chunked, chunked, chunked)]

    def roll(stream: object) -> None:
        for seen in stream.roll(actions, num_steps=config.num_steps):
            seen.frames.cpu()

    def step(stream: object, planned: int = 1) -> None:
        for index, action in enumerate(actions.unbind(1)):
            ahead = actions[:, index + 1 : planned * (index // planned + 1)]
            stream.step(action, num_steps=config.num_steps, ahead=ahead).frames.cpu()

    return {
        "one frame per latent": lambda: roll(streams[0]),
        "four frames per latent, actions known": lambda: roll(streams[1]),
        "four frames per latent, steps of a policy that plans four actions": lambda: step(streams[3], planned=4),
        "four frames per latent, one action at a time": lambda: step(streams[2]),
    }


def main(config: ChunksConfig) -> None:
    """Time the ways in turns and print the medians."""
    torch.manual_seed(0)
    device = command_device(config.device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_pipeline(config, Path(folder))
        ways = ways_of(config, Path(folder), device)
        for way in ways.values():
            way()
        for _ in range(config.rounds):
            for name, way in ways.items():
                begin = clock()
                way()
                seconds.setdefault(name, []).append(clock() - begin)
    frames, first = config.batch * config.frames, seconds["one frame per latent"]
    rows = []
    for name, each in seconds.items():
        ratios = sorted(one / mine for one, mine in zip(first, each, strict=True))
        times = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append((name, f"{frames / statistics.median(each):.1f}", times))
    print(table(("latents", "frames/s", "times as many"), rows))
    write_json(config.out, {"seconds": seconds, "frames": frames, "device": describe(device)})


if __name__ == "__main__":
    main(tyro.cli(ChunksConfig))
