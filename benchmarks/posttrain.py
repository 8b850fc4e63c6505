"""Post-training against its controls, at equal time and at equal updates, on held-out episodes.

```
python benchmarks/posttrain.py --quick --out runs/benchmarks/posttrain
python benchmarks/posttrain.py --minutes 30 --seeds 0 1 2 --out runs/benchmarks/posttrain-full
```

Every arm starts from the same world model and follows the same recorded stretches. `nft` runs for
the given minutes; the controls run for as many minutes, and are also measured after as many updates
as `nft` made. A killed benchmark continues where it stopped.
"""

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policy_eval.judge.inverse_dynamics import InverseDynamics
from policy_eval.judge.inverse_dynamics_training import InverseDynamicsTraining, train_inverse_dynamics
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.guards import HeldOut, object_errors, read_held_out, score
from rl_posttrain.posttraining.train import posttrain
from rl_posttrain.rewards.executability import Limits, violations
from rl_posttrain.rewards.mix import real_limits
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.dreams.context import CONTEXT_FRAMES
from worldmodel.envs.record import RecordConfig, record
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.fidelity.metrics import Lpips, masked_psnr, psnr, ssim
from worldmodel.files import write_json
from worldmodel.world_model import WorldModel

CONTROLS = ("self-rollout", "teacher-forced")
LATE = 25
"""Actions from this frame on count for the errors of decoded actions."""
HIGHER_IS_BETTER = ("psnr", "ssim", "masked_psnr", "response")


@dataclass(frozen=True)
class PosttrainBenchmark:
    """What is compared."""

    out: Path
    """Folder of everything; `posttrain.json` holds the figures."""
    world: Path = Path("checkpoints/pusht")
    """World model before."""
    env: str = "pusht"
    """Environment that is recorded where `data` and `held_out` do not exist yet."""
    data: Path | None = None
    """Recorded episodes to train on; recorded into `out` when not given."""
    held_out: Path | None = None
    """Recorded episodes to measure on; recorded into `out` when not given."""
    minutes: float = 10.0
    """Minutes of every arm."""
    clock: Literal["wall", "cpu"] = "cpu"
    """CPU time is fair on a machine that others use, too."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
    arms: tuple[str, ...] = ("nft", "nft-actions", "self-rollout", "teacher-forced", "combined")
    """What is trained; nft-actions adds the rewards of inverse dynamics."""
    horizons: tuple[int, ...] = (10, 25, 50)
    """Dreamed frames after which dream and truth are compared."""
    episodes: int = 24
    """Held-out episodes that are dreamed from their beginning."""
    train_episodes: int = 60
    """Episodes to record for training."""
    num_steps: int = 2
    """Denoising steps of sampling, in training and measuring."""
    learning_rate: float = 3e-6
    """Of every arm."""
    dynamics_steps: int = 600
    """Optimiser steps of the inverse dynamics."""
    measure: bool = True
    """False only trains."""
    quick: bool = False
    """At most ten minutes on two cores: 1.2 minutes per arm, 8 episodes, without `combined`."""

    def resolved(self) -> "PosttrainBenchmark":
        """With what `quick` implies."""
        if not self.quick:
            return self
        return replace(
            self, minutes=1.2, episodes=8, dynamics_steps=250, arms=tuple(arm for arm in self.arms if arm != "combined")
        )


def main(config: PosttrainBenchmark) -> None:
    """Record what is missing, train every arm, measure, write the figures."""
    torch.set_num_threads(1)
    config = config.resolved()
    config.out.mkdir(parents=True, exist_ok=True)
    data = config.data or recording(config, "train", 40, config.train_episodes)
    held_out = config.held_out or recording(config, "held_out", 41, config.episodes)
    dynamics = config.out / "inverse_dynamics"
    if not (dynamics / "report.json").exists():
        train_inverse_dynamics(
            InverseDynamicsTraining(
                data=data,
                out=dynamics,
                world=config.world,
                steps=config.dynamics_steps,
                validation_episodes=2,
                overwrite=True,
            )
        )
    worlds = {"base": [config.world]}
    for seed in config.seeds:
        for name, folder in train_arms(config, data, dynamics, seed).items():
            worlds.setdefault(name, []).append(folder)
    if not config.measure:
        return
    rows = measure(config, worlds, data, held_out, dynamics)
    result = {
        "machine": f"{platform.machine()} CPU, {os.cpu_count()} cores, torch {torch.__version__}",
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "inverse_dynamics": json.loads((dynamics / "report.json").read_text()),
        "runs": {
            f"{name} {index}": run_summary(folder)
            for name, folders in worlds.items()
            if name != "base"
            for index, folder in enumerate(folders)
        },
        "lpips": Lpips.missing_reason(),
        "comparison": compare(rows),
        "rows": rows,
    }
    write_json(config.out / "posttrain.json", result)
    plot(rows, config.horizons, config.out / "posttrain.png")
    print(table(result))


def recording(config: PosttrainBenchmark, name: str, seed: int, episodes: int) -> Path:
    return record(RecordConfig(config.env, episodes=episodes, seed=seed, out=config.out / "data" / name))


def train_arms(config: PosttrainBenchmark, data: Path, dynamics: Path, seed: int) -> dict[str, Path]:
    """Train every arm of a seed; the folders of the world models by name."""
    folder, worlds = config.out / f"seed{seed}", {}
    updates = None
    for arm in config.arms:
        settings = PosttrainConfig(
            world=config.world,
            data=data,
            out=folder / arm,
            objective="nft" if arm == "nft-actions" else arm,
            minutes=config.minutes,
            inverse_dynamics=dynamics if arm == "nft-actions" else None,
            steps=1_000_000,
            clock=config.clock,
            num_steps=config.num_steps,
            learning_rate=config.learning_rate,
            validation_episodes=2,
            validation_horizon=25,
            validation_interval=1_000_000,
            patience=0,
            save_interval=20,
            seed=seed,
        )
        if arm in CONTROLS and updates is not None:
            early = folder / f"{arm}-equal-updates"
            if not early.exists():
                train(replace(settings, steps=updates))
                shutil.copytree(folder / arm, early, ignore=shutil.ignore_patterns("state"))
            worlds[early.name] = early
        train(settings)
        if arm == "nft":
            updates = run_summary(folder / arm)["updates"]
        worlds[arm] = folder / arm
    return worlds


def train(settings: PosttrainConfig) -> None:
    """Train, or continue what a killed benchmark began."""
    state = settings.out / "state" / "state.json"
    if state.exists():
        progress = json.loads(state.read_text())
        over = progress["seconds"] >= 60 * settings.minutes or progress["step"] >= settings.steps
        if over and (settings.out / "world.json").exists():
            return
    print(f"\n== {settings.out} ==", flush=True)
    posttrain(replace(settings, resume=state.exists(), overwrite=not state.exists()))


def run_summary(folder: Path) -> dict[str, float]:
    """Updates and seconds of a run, and the reward of its first and last candidates."""
    evaluations, updates = (
        [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("evaluations", "updates")
    )
    summary = {"updates": evaluations[-1]["step"], "seconds": evaluations[-1]["seconds"]}
    for name in ("reward", "spread", "zero_variance", "gap"):
        values = [row[name] for row in updates if row.get(name) is not None]
        width = max(len(values) // 5, 1)
        if values:
            summary[f"{name}_first"] = float(np.mean(values[:width]))
            summary[f"{name}_last"] = float(np.mean(values[-width:]))
    return summary


def measure(
    config: PosttrainBenchmark, worlds: Mapping[str, Sequence[Path]], data: Path, held_out: Path, dynamics_folder: Path
) -> list[dict[str, Any]]:
    """One row per arm, run and held-out episode."""
    dynamics = InverseDynamics.load(dynamics_folder)
    base = WorldModel.load(config.world)
    size = tuple(base.size)
    recorded = EpisodeCache(open_episodes(data, size, base.views))
    limits = real_limits(dynamics, recorded, range(len(recorded)), base)
    source = EpisodeCache(open_episodes(held_out, size, base.views))
    episodes = range(min(config.episodes, len(source)))
    windows = read_held_out(base, source, episodes, horizon=max(config.horizons), starts=1)
    scored = {}
    for name, folders in worlds.items():
        for index, folder in enumerate(folders):
            world = WorldModel.load(folder)
            scored[name, index] = score(
                world, windows, rewards={}, dynamics=dynamics, num_steps=config.num_steps, seed=7
            )
    frames = {key: rollout.imagined.frames[:, 1:] for key, (_, rollout) in scored.items()}
    masked = masked_scores(windows, frames, base.views)
    rows = []
    for key, (scores, rollout) in scored.items():
        late = at_horizons(config.horizons, windows, rollout, base.views)
        late |= {name: values[key] for name, values in masked_at(config.horizons, masked).items()}
        late |= action_scores(dynamics, limits, rollout)
        columns = {**{n: v for n, v in scores.items() if not n.startswith("error.")}, **late}
        for row, episode in enumerate(windows.episodes):
            values = {n: float(v[row]) for n, v in columns.items()}
            values = {n: None if v != v else v for n, v in values.items()}
            rows.append({"arm": key[0], "run": key[1], "episode": episode, **values})
    return rows


def masked_scores(
    windows: HeldOut, frames: Mapping[Any, torch.Tensor], views: Sequence[str]
) -> dict[str, dict[Any, torch.Tensor]]:
    """Masked PSNR of every camera, `b m`, on the union of the masks of truth and all arms."""
    truth = windows.clip.frames[:, CONTEXT_FRAMES:]
    last = windows.clip.frames[:, CONTEXT_FRAMES - 1 : CONTEXT_FRAMES].expand_as(truth)
    named = {str(key): value for key, value in frames.items()}
    scores = {}
    for index, view in enumerate(views):
        found = masked_psnr(truth[:, :, index], {k: v[:, :, index] for k, v in named.items()}, last[:, :, index])
        scores[view] = {key: found[str(key)] for key in frames}
    return scores


def masked_at(
    horizons: Sequence[int], masked: Mapping[str, Mapping[Any, torch.Tensor]]
) -> dict[str, dict[Any, torch.Tensor]]:
    return {
        f"masked_psnr.{view}.{h}": {key: values[:, h - 1] for key, values in scores.items()}
        for view, scores in masked.items()
        for h in horizons
    }


def at_horizons(
    horizons: Sequence[int], windows: HeldOut, rollout: Rollout, views: Sequence[str]
) -> dict[str, torch.Tensor]:
    """PSNR and SSIM of every camera and position errors of the objects at the horizons."""
    truth, frames = rollout.reference.frames[:, 1:], rollout.imagined.frames[:, 1:]
    errors, columns = object_errors(windows, rollout, views), {}
    for h in horizons:
        for index, view in enumerate(views):
            pair = frames[:, h - 1, index], truth[:, h - 1, index]
            columns[f"psnr.{view}.{h}"] = psnr(*pair)
            columns[f"ssim.{view}.{h}"] = ssim(*pair)
        for name, values in errors.items():
            columns[f"{name}_px.{h}"] = values[:, h - 1]
    return columns


def action_scores(dynamics: InverseDynamics, limits: Limits, rollout: Rollout) -> dict[str, torch.Tensor]:
    """Decoded against commanded actions from frame 25 on, and the excess over real violations."""
    error = dynamics.errors(rollout.imagined)
    dreamed, real = (violations(dynamics.decode(clip), limits) for clip in (rollout.imagined, rollout.reference))
    late = error[:, min(LATE, error.shape[1] - 1) :]
    return {"late_action_error": late.square().mean(dim=(1, 2)), "excess_violations": dreamed - real}


def compare(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every measure of every arm: its mean, and the paired difference to base with its interval.

    Differences are paired by episode, and runs of several seeds are pooled; the bootstrap draws
    episodes. `better` is the share of paired rollouts that beat base.
    """
    base = {row["episode"]: row for row in rows if row["arm"] == "base"}
    names = [name for name in rows[0] if name not in ("arm", "run", "episode")]
    comparison: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        comparison[arm] = {}
        for name in names:
            pairs = [
                (row[name], base[row["episode"]][name], row["episode"])
                for row in mine
                if row[name] is not None and base[row["episode"]][name] is not None
            ]
            if not pairs:
                continue
            values, before, episodes = (np.array(column) for column in zip(*pairs, strict=True))
            change = values - before
            sign = 1 if name.split(".")[0] in HIGHER_IS_BETTER else -1
            interval = bootstrap_interval(change.astype(float), episodes)
            comparison[arm][name] = {
                "mean": float(values.mean()),
                "change": float(change.mean()),
                "interval": None if interval is None else list(interval),
                "better": float((sign * change > 0).mean()),
                "n": len(pairs),
            }
    return comparison


def table(result: Mapping[str, Any]) -> str:
    """Markdown: a row for each measure, a column for each arm; changes against base."""
    comparison = result["comparison"]
    arms = list(comparison)
    lines = ["| measure | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    for name in comparison["base"]:
        cells = []
        for arm in arms:
            entry = comparison[arm].get(name)
            if entry is None:
                cells.append("-")
            elif arm == "base":
                cells.append(f"{entry['mean']:.3f}")
            else:
                low, high = entry["interval"] or (float("nan"),) * 2
                cells.append(f"{entry['change']:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, run in result["runs"].items():
        lines.append(f"\n{name}: {run['updates']} updates in {run['seconds']:.0f} s")
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], horizons: Sequence[int], file: Path) -> None:
    """Every measure that is taken at the horizons, over the horizon, a line for each arm."""
    names = list(dict.fromkeys(n.rsplit(".", 1)[0] for n in rows[0] if n.rsplit(".", 1)[-1].isdigit()))
    height = -(-len(names) // 4)
    figure = Figure(figsize=(12, 2.8 * height + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(height, 4, squeeze=False).flat
    for axes in list(grid)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(figure.axes, names, strict=False):
        for arm in dict.fromkeys(row["arm"] for row in rows):
            values = [
                [r[f"{name}.{h}"] for r in rows if r["arm"] == arm and r[f"{name}.{h}"] is not None] for h in horizons
            ]
            axes.plot(horizons, [np.mean(v) if v else np.nan for v in values], "o-", label=arm)
        axes.set(title=name, xlabel="horizon, frames")
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=9)
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main(tyro.cli(PosttrainBenchmark))
