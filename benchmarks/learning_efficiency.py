"""Quality against minutes from nothing: the default against a plain monolithic AdaLN transformer.

    python benchmarks/learning_efficiency.py --data TRAIN --held-out TEST --out runs/efficiency

Each model trains for `--minutes` of CPU time in one thread, same data, batches, noise and
optimiser; both are measured on the held-out episodes. The baseline is one stack of blocks run at
every denoising step, linear patches in and out, actions through AdaLN; it has as many weights and
gets the same relative actions. The default should be at least 2 dB better and have less than half
the agent error at horizon 10.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import matplotlib
import torch
import tyro

from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.model.dit import DiTConfig
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

matplotlib.use("Agg")
from matplotlib import pyplot


@dataclass(frozen=True)
class EfficiencyConfig:
    """What to compare."""

    data: Path
    """Training episodes of PushT."""
    held_out: Path
    """Test episodes of PushT with other seeds."""
    out: Path
    """Folder for the runs, `efficiency.json` and `efficiency.png`."""
    views: tuple[str, ...] = ("top",)
    """Cameras to learn; with both the budget is too small for either model."""
    minutes: float = 20.0
    """CPU time of each model's training, in one thread."""
    models: tuple[str, ...] = ("default", "monolithic AdaLN")
    """Which to run, side by side."""
    num_steps: tuple[int, ...] = (1, 2)
    """Denoising steps per frame that are measured."""
    seed: int = 0
    """Seed of weights, batches and noise."""


BASELINE = DiTConfig(width=192, encoder_depth=0, decoder_depth=6, pixels="patch", patch=8, num_registers=0)


def run_config(config: EfficiencyConfig, model: str) -> PretrainConfig:
    """The pretraining run of one model."""
    plain = model != "default"
    return PretrainConfig(
        data=config.data,
        views=config.views,
        out=config.out / model.replace(" ", "-"),
        steps=10**6,
        minutes=config.minutes,
        clock="cpu",
        relative_to={0: 0, 1: 1},
        seed=config.seed,
        validation_interval=250,
        save_interval=10**6,
        overwrite=True,
        dit=BASELINE if plain else DiTConfig(),
        injection="adaln",
    )


def train_and_measure(config: EfficiencyConfig, model: str) -> dict:
    """Train one model, unless it is there, and measure it on the held-out episodes."""
    torch.set_num_threads(1)
    run = run_config(config, model)
    finished = (run.out / "state" / "state.json").exists()
    world = WorldModel.load(run.out if finished else pretrain(run))
    test = EpisodeCache(open_episodes(config.held_out, size=tuple(world.size), views=world.views))
    report = {
        str(steps): measure_fidelity(world, test, horizon=10, num_steps=steps, seed=0, alterations=())
        for steps in config.num_steps
    }
    rows = (run.out / "validation.jsonl").read_text().splitlines()
    weights = sum(p.numel() for p in world.parameters())
    return {"weights": weights, "curve": [json.loads(r) for r in rows], "fidelity": report}


def plot(results: dict[str, dict], file: Path) -> None:
    """PSNR at 10 frames against minutes."""
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for model, result in results.items():
        points = [(row["minutes"], row["validation/psnr_10"]) for row in result["curve"]]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=model)
    axes.set(xlabel="minutes on one core, from nothing", ylabel="PSNR at 10 frames (dB)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120, bbox_inches="tight")


def main(config: EfficiencyConfig) -> None:
    """Train both models side by side, measure, plot, print the table."""
    config.out.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    with ProcessPoolExecutor(len(config.models), mp_context=context) as pool:
        runs = {m: pool.submit(train_and_measure, config, m) for m in config.models}
        results = {model: run.result() for model, run in runs.items()}
    (config.out / "efficiency.json").write_text(json.dumps(results, indent=2) + "\n")
    plot(results, config.out / "efficiency.png")
    print("| model | weights | steps | top PSNR at 10 | masked | agent error at 10 |")
    print("|---|---|---|---|---|---|")
    for model, result in results.items():
        for steps, report in result["fidelity"].items():
            top = report["cameras"]["top"]
            agent = report["objects"]["agent"]["error_px"]["10"]
            cells = (
                model,
                f"{result['weights'] / 1e6:.2f}M",
                steps,
                f"{top['psnr']['10']:.2f} dB",
                f"{top['masked_psnr']['10']:.2f} dB",
                f"{agent:.2f} px",
            )
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(tyro.cli(EfficiencyConfig))
