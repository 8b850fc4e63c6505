"""Design choices compared at equal training time from nothing, one table.

    python benchmarks/ablations.py --data TRAIN --held-out TEST --relative-to 0 0 1 1 --out OUT

Called again with the same `--out`, it goes on where it was stopped.

Every row changes one thing of the default. Same data, batches, noise and CPU minutes in one
thread; the held-out figures are at 2 denoising steps, means over episodes. How actions are told
the network matters with their width, so compare that on a wide robot, or with `--stride 4`, which
concatenates four actions: `--rows default "action tokens" "cross-attention to actions"`.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import tyro

from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.files import write_json
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class AblationConfig:
    """What to compare."""

    data: Path
    """Training episodes."""
    held_out: Path
    """Test episodes with other seeds."""
    out: Path
    """Folder for the runs and `ablations.json`."""
    relative_to: dict[int, int] = field(default_factory=dict)
    """Action dim and state dim pairs: absolute targets that are fed relative to the state."""
    views: tuple[str, ...] = ()
    """Cameras to train on; all by default. One teaches more in the same time."""
    stride: int = 1
    """Data frames per model frame; the actions in between are concatenated."""
    minutes: float = 10.0
    """CPU time of each run's training, in one thread."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of weights, batches and noise."""
    rows: tuple[str, ...] = ()
    """Names of the rows to run; all by default."""
    workers: int = 2
    """Runs side by side."""


def variants(default: PretrainConfig) -> dict[str, PretrainConfig]:
    """One change of the default each."""
    dit = default.dit
    rows = {
        "default": default,
        "monolithic": replace(default, dit=replace(dit, encoder_depth=0, decoder_depth=6)),
        "linear patches": replace(default, dit=replace(dit, pixels="patch", patch=8)),
        "action tokens": replace(default, injection="token"),
        "cross-attention to actions": replace(default, injection="cross"),
        "AdamW alone": replace(default, muon=False),
        "every fourth batch of long clips": replace(default, long_interval=4),
    }
    if default.relative_to:
        rows["absolute actions"] = replace(default, relative_to={})
    return rows


def train_and_measure(run: PretrainConfig, held_out: Path) -> dict:
    """Figures of one run; what was finished before a kill is not done again."""
    torch.set_num_threads(1)
    file = run.out / "result.json"
    if file.exists():
        return json.loads(file.read_text())
    result = measure(WorldModel.load(pretrain(run)), run.out, held_out)
    write_json(file, result)
    return result


def measure(world: WorldModel, out: Path, held_out: Path) -> dict:
    """Steps and held-out figures of a trained world."""
    test = EpisodeCache(open_episodes(held_out, size=tuple(world.size), views=world.views))
    report = measure_fidelity(world, test, horizon=10, num_steps=2, seed=0, alterations=("shuffled",))
    steps = len((out / "losses.csv").read_text().splitlines()) - 1
    return {"steps": steps, "fidelity": report}


def columns(report: dict) -> dict[str, dict]:
    """Curves over the horizon by heading."""
    curves = {}
    for view, found in report["cameras"].items():
        curves |= {f"{view} PSNR": found["psnr"], f"{view} masked PSNR": found["masked_psnr"]}
    for name, found in report.get("objects", {}).items():
        curves[f"{name} px"] = found["error_px"]
    shuffled = report["action_following"]["shuffled"]["psnr_gap"]
    return curves | {"dB lost under shuffled actions": shuffled}


def table(results: dict[str, list[dict]]) -> str:
    """Markdown: means over seeds, at horizons 1 / 5 / 10."""
    first = columns(next(iter(results.values()))[0]["fidelity"])
    lines = ["| " + " | ".join(["variant", "steps", *first]) + " |"]
    lines.append("|---" * (2 + len(first)) + "|")
    for name, runs in results.items():
        cells = [name, " / ".join(str(run["steps"]) for run in runs)]
        found = [columns(run["fidelity"]) for run in runs]
        for heading in first:
            by_horizon = ([f[heading][h] for f in found] for h in ("1", "5", "10"))
            cells.append(" / ".join(mean(values) for values in by_horizon))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean(values: list[float | None]) -> str:
    """The mean over seeds; masked PSNR is `None` where nothing changes."""
    return "-" if None in values else f"{sum(values) / len(values):.1f}"


def main(config: AblationConfig) -> None:
    """Train and measure every row in processes side by side; print the table."""
    config.out.mkdir(parents=True, exist_ok=True)
    default = PretrainConfig(
        data=config.data,
        out=config.out,
        steps=10**6,
        minutes=config.minutes,
        clock="cpu",
        relative_to=config.relative_to,
        stride=config.stride,
        views=config.views,
        validation_interval=10**6,
        save_interval=10**6,
        overwrite=True,
    )
    chosen = {n: v for n, v in variants(default).items() if not config.rows or n in config.rows}
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        runs = {}
        for name, variant in chosen.items():
            for seed in config.seeds:
                folder = config.out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
                run = replace(variant, out=folder, seed=seed)
                runs[name, seed] = pool.submit(train_and_measure, run, config.held_out)
        results = {n: [runs[n, s].result() for s in config.seeds] for n in chosen}
    (config.out / "ablations.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(AblationConfig))
