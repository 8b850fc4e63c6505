"""What a million trials and 10,000 hours of video cost, and where the bottlenecks come.

    python benchmarks/scale.py
    python benchmarks/scale.py --gpu-price 4 --hours 500 --trial-frames 120

Measured here: how fast pictures are decoded, the training step and the dreamed step of a small world model, and the
step of a simulator. Counted on the configuration of Wan2.2-TI2V-5B: the floating-point operations of its passes over a
picture of 256 x 256 (64 tokens). Assumed, and yours to change: prices, and what a GPU, a network and a store deliver.
No run of a 5B backbone was measured; its rows are computed.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from scale_queue import QueueResult, StepTime, simulate, too_many
from scale_units import decoding_units, model_units, simulator_unit

from worldmodel.files import write_json
from worldmodel.model.card import table

PASS_TFLOP = 0.59  # one pass of the 5B transformer over one frame of 64 tokens, attention to the past included
ENCODE_TFLOP, DECODE_TFLOP = 0.31, 1.49  # the VAE of Wan 2.2, each frame alone
WEIGHT_BYTES = 10e9  # 5B weights in bf16
ADAPTER_WEIGHTS = 145e6  # LoRA of rank 64 and the new modules
LATENT_BYTES = 24e3  # of a frame of 256 x 256
BACKWARD = {"LoRA": 1, "all weights": 2}  # times the forward pass; recomputing the blocks is one more


@dataclass(frozen=True)
class ScaleConfig:
    """What is computed, and under which assumptions."""

    world: str = "checkpoints/pusht"
    """Folder of the small world model that is timed."""
    simulator: str = "pusht"
    """Environment whose step is timed."""
    trials: int = 1_000_000
    """Number of trials."""
    trial_frames: int = 300
    """Steps of a trial; in the simulation of the queue they vary from half of it to all of it."""
    hours: float = 10_000
    """Hours of video of one camera."""
    fps: float = 10
    """Frames per second that the world model learns from."""
    video_fps: float = 30
    """Frames per second in the files; all of them are decoded, once."""
    video_kilobytes: float = 8
    """Kilobytes of a frame of 256 x 256 in the files (assumed)."""
    denoising_steps: int = 4
    """Denoising steps per dreamed frame."""
    gpu_tflops: float = 400
    """TFLOP/s that a GPU sustains on large batches in bf16 (assumed)."""
    gpu_bandwidth: float = 3350
    """GB/s at which a GPU reads its memory (assumed)."""
    gpu_price: float = 2.5
    """US dollars for an hour of a GPU (assumed)."""
    core_price: float = 0.04
    """US dollars for an hour of a CPU core (assumed)."""
    storage_price: float = 0.023
    """US dollars for a GB in a store for a month (assumed)."""
    cores_per_gpu: int = 16
    """CPU cores beside each GPU (assumed)."""
    store_rate: float = 1.0
    """GB/s that a machine of eight GPUs reads from the store (assumed)."""
    network_rate: float = 40
    """GB/s between machines (assumed)."""
    clips: int = 16
    """Clips of 9 frames per GPU and training step."""
    slots: int = 32
    """Most dreamed trials of a worker side by side."""
    queue_trials: int = 4096
    """Trials in the simulation of the queue."""
    workers: tuple[int, ...] = (1, 2, 8, 32, 64, 128, 256, 512, 1024, 2048)
    """Numbers of workers in the simulation of the queue."""
    batches: tuple[int, ...] = (1, 4, 16)
    """Batch sizes at which dreamed steps are timed."""
    seconds: float = 1.0
    """Seconds of each measurement of decoding."""
    rounds: int = 2
    """Turns of each measurement of dreamed steps."""
    out: Path = Path("runs/benchmarks/scale.json")
    """Where the numbers go."""


def large_step(config: ScaleConfig) -> StepTime:
    """A dreamed step of the 5B backbone on one GPU, with its pictures decoded: computed, not measured."""
    passes = config.denoising_steps + 1
    each = (passes * PASS_TFLOP + DECODE_TFLOP) / config.gpu_tflops
    return StepTime(passes * WEIGHT_BYTES / config.gpu_bandwidth / 1e9, each)


def trial_costs(config: ScaleConfig, small: StepTime, simulated: float) -> list[list[str]]:
    """Rows: where the trials run, hours of one unit, US dollars."""
    frames = config.trials * config.trial_frames
    large = large_step(config)
    rows = []
    for where, seconds, price in (
        (f"simulator {config.simulator}, CPU cores (measured)", simulated, config.core_price),
        (f"{config.world}, {config.slots} side by side, CPU cores (measured)", _each(small, config), config.core_price),
        (f"5B at 256 px, {config.slots} side by side, GPUs (computed)", _each(large, config), config.gpu_price),
        ("5B at 256 px, one at a time, GPUs (computed)", large(1), config.gpu_price),
    ):
        hours = frames * seconds / 3600
        rows.append([where, f"{seconds * 1e3:.3g}", f"{hours:,.0f}", f"{hours * price:,.0f}"])
    return rows


def _each(step: StepTime, config: ScaleConfig) -> float:
    return step(config.slots) / config.slots


def pretraining_costs(config: ScaleConfig, decoded: float) -> list[list[str]]:
    """Rows: the part of one pass over the hours, its size, and its cost in hours of a unit and in US dollars."""
    frames, all_frames = config.hours * 3600 * config.fps, config.hours * 3600 * config.video_fps
    cores = all_frames / decoded / 3600
    rows = [
        ["decode all frames once", f"{all_frames:,.0f} frames", f"{cores:,.0f} core hours", cores * config.core_price]
    ]
    encode = frames * ENCODE_TFLOP / config.gpu_tflops / 3600
    rows.append(["encode them once", f"{frames:,.0f} frames", f"{encode:,.0f} GPU hours", encode * config.gpu_price])
    for name in BACKWARD:
        hours = frames * training_tflop(name) / config.gpu_tflops / 3600
        size = f"{frames * training_tflop(name) / 1e6:,.0f} EFLOP"
        rows.append([f"train, {name}, one pass", size, f"{hours:,.0f} GPU hours", hours * config.gpu_price])
    for name, size in (
        ("store the videos for a month", all_frames * config.video_kilobytes * 1e3),
        ("store the latents for a month", frames * LATENT_BYTES),
        ("the same frames decoded, as bytes", frames * 256 * 256 * 3),
    ):
        rows.append([name, f"{size / 1e12:.3g} TB", "-", size / 1e9 * config.storage_price])
    return [[*row[:-1], f"{row[-1]:,.0f}"] for row in rows]


def training_tflop(trained: str) -> float:
    """TFLOP of a trained frame: a clean and a noisy pass, the blocks once more, and backward."""
    return 2 * PASS_TFLOP * (2 + BACKWARD[trained])


def bottlenecks(config: ScaleConfig, decoded: float) -> list[list[str]]:
    """Rows: what a GPU that trains asks of each part of the machine, what it gets, and how often that is enough."""
    rows = []
    for name in BACKWARD:
        rate = config.gpu_tflops / training_tflop(name)  # trained frames per second and GPU
        step = config.clips * 9 / rate
        weights = ADAPTER_WEIGHTS if name == "LoRA" else WEIGHT_BYTES / 2
        need, ratio = rate * config.video_fps / config.fps, config.cores_per_gpu * decoded
        rows += [
            [name, "decoding, frames/s", need, ratio],
            [name, "latents from the store, GB/s", rate * LATENT_BYTES / 1e9, config.store_rate / 8],
            [name, "videos from the store, GB/s", need * config.video_kilobytes / 1e6, config.store_rate / 8],
            [name, "gradients between machines, GB/s", 2 * 2 * weights / step / 1e9, config.network_rate / 8],
        ]
    return [[*row[:2], f"{row[2]:.3g}", f"{row[3]:.3g}", f"{row[3] / row[2]:.3g}"] for row in rows]


def queue_rows(config: ScaleConfig, step: StepTime) -> tuple[list[list[str]], dict[int, QueueResult]]:
    """The simulated queue for every number of workers."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(config.trial_frames // 2, config.trial_frames + 1, config.queue_trials)
    results = {workers: simulate(workers, lengths, step, slots=config.slots) for workers in config.workers}
    first, rows = results[config.workers[0]], []
    for workers, found in results.items():
        speedup = first.seconds / found.seconds * config.workers[0]
        efficiency = f"{speedup / workers:.0%}"
        rows.append([str(workers), f"{found.seconds:,.0f}", f"{speedup:,.1f}", efficiency, f"{found.mean_batch:.1f}"])
    return rows, results


def main(config: ScaleConfig) -> None:
    """Measure, compute, and print the tables in Markdown."""
    decoding = decoding_units(config.seconds)
    model, small = model_units(config.world, config.batches, config.rounds)
    simulated = simulator_unit(config.simulator, 50)
    decoded = decoding["frames_per_second_256"]
    print("### Measured, in CPU time of one core\n")
    step = f"{small.fixed * 1e3:.3g} + {small.each * 1e3:.3g} for each trial"
    units = [
        ["decoding our H.264 at 256 px, frames/s", f"{decoded:.3g}"],
        ["the same for random clips of 10 frames, frames/s", f"{decoding['clip_frames_per_second_256']:.3g}"],
        ["decoding a recorded set at 96 px and 64 px, pictures/s", f"{decoding['frames_per_second_96']:.3g}"],
        ["bytes of a picture of it in the files", f"{decoding['recorded_bytes_96']:,.0f}"],
        [f"training step of {config.world}, 80 frames, s", f"{model['training_step']:.3g}"],
        [f"dreamed step of {config.world}, ms", step],
        [f"step of the simulator {config.simulator}, ms", f"{simulated * 1e3:.3g}"],
    ]
    print(table(["unit", "value"], units))
    print(f"\n### {config.trials:,} trials of {config.trial_frames} steps\n")
    head = ["where", "ms per step and trial", "hours of one core or GPU", "US dollars"]
    print(table(head, trial_costs(config, small, simulated)))
    print(f"\n### {config.hours:,.0f} hours at 256 px with a backbone of 5B weights (computed)\n")
    print(table(["part", "size", "work", "US dollars"], pretraining_costs(config, decoded)))
    print("\n### What one training GPU asks for (computed; decoding measured)\n")
    head = ["trained", "part", "needed", "there is", "times enough"]
    print(table(head, bottlenecks(config, decoded)))
    queues = {}
    for name, step_time in ((f"{config.world} on CPU cores", small), ("5B on GPUs", large_step(config))):
        rows, results = queue_rows(config, step_time)
        print(f"\n### {config.queue_trials:,} trials over workers of {config.slots}: {name} (simulated)\n")
        print(table(["workers", "s", "speed-up", "of the ideal", "trials in a step"], rows))
        queues[name] = {workers: asdict(found) for workers, found in results.items()}
        few = too_many(results)
        print(f"\nBelow half of the ideal from {few or 'none of these numbers of'} workers on." if few else "")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {"decoding": decoding, "model": model, "dream_step": asdict(small), "simulator": simulated}
    assumed = {name: str(value) for name, value in asdict(config).items()}
    write_json(config.out, {"measured": values, "assumed": assumed, "queues": queues})


if __name__ == "__main__":
    main(tyro.cli(ScaleConfig))
