"""Speed and memory of a pretrained video transformer on a GPU, against the bars; its weights are random.

python benchmarks/backbone_gpu.py --out backbone_gpu.json                 the 5B of Wan 2.2, about ten minutes
python benchmarks/backbone_gpu.py --model tiny --rounds 3 --out t.json    the same code, in seconds on a CPU

Speed and memory do not depend on what the weights are, so nothing is downloaded. It measures a training step of
adapters from cached latents (peak memory, and model FLOP/s without the recomputed blocks as a share of the fastest bf16
matrix product), and streams of two denoising steps, decoding included. The exit status is 1 if a bar is missed.
"""

import gc
import json
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import save_file

from conditioning.conditioner import ConditionerConfig
from worldmodel.bench.roof import best_gemm, count_flops, synchronize
from worldmodel.data import Clip
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.precision import choose_device, compute_dtype, say_device
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.wan import Wan
from worldmodel.training.loss import LossConfig, draw, training_loss
from worldmodel.world_model import WorldModel, WorldModelConfig

WIDE = {"attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256, "num_layers": 30}
VAE_22 = {
    "base_dim": 160,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "decoder_base_dim": 256,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 16,
    "patch_size": 2,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
VAE_TINY = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
VAE_TINY |= {"temperal_downsample": [False] * 3, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
MODELS = {
    "5b": ({**WIDE, "num_attention_heads": 24, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48}, VAE_22),
    "1.3b": ({**WIDE, "num_attention_heads": 12, "ffn_dim": 8960, "in_channels": 16, "out_channels": 16}, {}),
    "tiny": (
        {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 64, "in_channels": 4, "out_channels": 4}
        | {"text_dim": 32, "freq_dim": 32, "num_layers": 2},
        VAE_TINY,
    ),
}
"""Configurations of transformer and autoencoder."""
VIEWS = {"one": (("top",), (256, 256)), "three": (("left", "right", "wrist"), (192, 320))}
SMALL = {"one": (("top",), (32, 32)), "three": (("left", "right", "wrist"), (32, 48))}
BARS = {"training GB": (45.0, -1), "training share of the roof": (0.35, 1)}
BARS |= {"one view, frames/s": (15.0, 1), "three views, frames/s": (8.0, 1)}
"""Figures, and whether they have to be at least (1) or at most (-1) so large."""


@dataclass(frozen=True)
class GpuConfig:
    """What to measure."""

    model: Literal["5b", "1.3b", "tiny"] = "5b"
    """The sizes of the network."""
    clips: int = 8
    """Clips per training step."""
    frames: int = 9
    """Frames per clip."""
    rank: int = 64
    """Rank of the adapters."""
    rounds: int = 30
    """Timed training steps, and timed frames of a stream divided by four."""
    batch: tuple[int, ...] = (1, 16)
    """Streams side by side."""
    device: str = "auto"
    """Device."""
    work: Path = Path("runs/backbone_gpu")
    """Folder for the description of the network and the random autoencoder."""
    out: Path | None = None
    """File for the report."""


class RandomWan(Wan):
    """Wan with random weights that are drawn on the device, instead of read."""

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype) -> Wan:
        """Draw the weights; what diffusers keeps in fp32 stays so."""
        config = WanTransformer3DModel.load_config(str(folder), local_files_only=True)
        torch.set_default_dtype(dtype)
        with choose_device():
            transformer = WanTransformer3DModel.from_config(config)
        torch.set_default_dtype(torch.float32)
        for name, parameter in transformer.named_parameters():
            if any(part in name for part in transformer._keep_in_fp32_modules):
                parameter.data = parameter.data.float()
        return cls(transformer)


def write_pipeline(config: GpuConfig) -> Path:
    """A pipeline folder whose transformer has no weights."""
    transformer, vae = MODELS[config.model]
    folder = config.work / config.model
    (folder / "transformer").mkdir(parents=True, exist_ok=True)
    values = {"_class_name": "WanTransformer3DModel", "patch_size": [1, 2, 2], **transformer}
    (folder / "transformer" / "config.json").write_text(json.dumps(values))
    save_file({"none": torch.zeros(1)}, folder / "transformer" / "random.safetensors")
    if not (folder / "vae").is_dir():
        AutoencoderKLWan(**vae).save_pretrained(folder / "vae")
    return folder


def build(config: GpuConfig, folder: Path, kind: str) -> WorldModel:
    """A world model of seven actions and states on the random network."""
    views, size = (SMALL if config.model == "tiny" else VIEWS)[kind]
    told = ConditionerConfig(action_dim=7, state_dim=7, injection="adaln")
    dit = PretrainedConfig(str(folder), lora_rank=config.rank, family="backbone_gpu:RandomWan")
    world = WorldModel(WorldModelConfig(views, size, 10.0, told, dit)).to(choose_device(config.device))
    torch.nn.Module.to(world.codec.autoencoder, compute_dtype(world.device))
    return world


def noise_clip(world: WorldModel, batch: int, frames: int) -> Clip:
    """Pictures of noise, with latents."""
    shape, views = (batch, frames), len(world.views)
    pictures = torch.randint(0, 256, (*shape, views, *world.size, 3), dtype=torch.uint8)
    latents = torch.randn(*shape, views, *world.latent_shape)
    clip = Clip(pictures, torch.rand(batch, frames - 1, 7), torch.rand(*shape, 7), latents=latents)
    return clip.to(world.device)


def measure_training(config: GpuConfig, world: WorldModel) -> dict[str, float]:
    """Seconds, memory and operations of a training step of the adapters."""
    device, dtype = world.device, compute_dtype(world.device)
    world.train()
    trained = [parameter for parameter in world.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, fused=True)
    average = [parameter.detach().clone() for parameter in trained]
    clip, settings = noise_clip(world, config.clips, config.frames), LossConfig(weighting="velocity")
    generator = torch.Generator().manual_seed(0)
    drawn = draw(world, settings, batch=config.clips, frames=config.frames, generator=generator)
    drawn = replace(drawn, passes=0)

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            return training_loss(world, clip, drawn, settings)[0]

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [parameter.detach() for parameter in trained], 0.001)

    with torch.no_grad():
        forward = count_flops(loss)
    whole = count_flops(lambda: loss().backward())
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(step, config.rounds, device)
    return {
        "seconds": statistics.median(seconds),
        "clips": config.clips,
        "frames": config.frames,
        "trained weights": sum(parameter.numel() for parameter in trained),
        "weights": sum(parameter.numel() for parameter in world.dit.parameters()),
        "FLOP": whole - forward,
        "GB": torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else float("nan"),
    }


@torch.no_grad()
def measure_streams(config: GpuConfig, world: WorldModel, batch: int) -> dict[str, float]:
    """Frames per second of `batch` streams of two steps, decoded, and the spread of the time of a frame."""
    world.eval()
    clip = noise_clip(world, batch, 2)
    stream = world.stream(replace(clip, latents=None))
    actions = torch.rand(batch, 7, device=world.device)

    def step() -> None:
        stream.step(actions, num_steps=2).frames.cpu()

    seconds = timed(step, 4 * config.rounds, world.device)
    middle, late = statistics.median(seconds), sorted(seconds)[int(0.99 * len(seconds))]
    return {"batch": batch, "frames/s": batch / middle, "99th percentile over median": late / middle}


def timed(function, rounds: int, device: torch.device) -> list[float]:
    """Seconds of every call, after three calls that are not counted."""
    seconds = []
    for index in range(rounds + 3):
        synchronize(device)
        begin = time.perf_counter()
        function()
        synchronize(device)
        if index >= 3:
            seconds.append(time.perf_counter() - begin)
    return seconds


def measure(config: GpuConfig) -> dict[str, object]:
    """All figures, and which bars they meet; one on another device than a GPU meets none."""
    device = choose_device(config.device)
    say_device(device)
    torch.manual_seed(0)
    folder = write_pipeline(config)
    roof = best_gemm(device, compute_dtype(device))
    world = build(config, folder, "three")
    training = measure_training(config, world)
    training["share"] = training["FLOP"] / training["seconds"] / roof
    print(f"training: {training['seconds']:.3f} s a step, {training['share']:.1%} of the roof", flush=True)
    streams = {}
    for kind in VIEWS:
        world = None  # frees the memory of the last one
        gc.collect()
        world = build(config, folder, kind)
        streams[kind] = [measure_streams(config, world, batch) for batch in config.batch]
        print(f"{kind}: {streams[kind]}", flush=True)
    figures = {"training GB": training["GB"], "training share of the roof": training["share"]}
    figures |= {
        f"{kind} view{'s' * (kind == 'three')}, frames/s": rows[0]["frames/s"] for kind, rows in streams.items()
    }
    met = {name: (figures[name] - bar) * sign >= 0 and device.type == "cuda" for name, (bar, sign) in BARS.items()}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    report = {"model": config.model, "device": name, "roof": roof, "training": training, "streams": streams}
    return {**report, "figures": figures, "met": met}


def show(report: dict[str, object]) -> str:
    """The figures against the bars."""
    rows = []
    for name, (bar, sign) in BARS.items():
        value, met = report["figures"][name], "yes" if report["met"][name] else "no"
        rows.append([name, f"{value:.3g}", f"{'at least' if sign > 0 else 'at most'} {bar:g}", met])
    return table(["figure", "value", "bar", "met"], rows)


def main(config: GpuConfig) -> int:
    """Measure, print and write; returns the exit status."""
    sys.modules["backbone_gpu"] = sys.modules[__name__]  # so that the family is found under its name
    report = measure(config)
    print(show(report))
    if config.out is not None:
        write_json(config.out, json.loads(json.dumps(report).replace("NaN", "null")))
    return int(not all(report["met"].values()))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(GpuConfig, description=__doc__)))
