"""Post-training against its controls, at equal time and at equal updates, on held-out episodes.

```
python benchmarks/posttrain.py --quick --out runs/benchmarks/posttrain
python benchmarks/posttrain.py --minutes 6 --seeds 0 1 2 --out runs/benchmarks/posttrain-full
python benchmarks/posttrain.py --minutes 18 --curve 3 9 --learning-rates 2e-5 1e-4 --out runs/benchmarks/posttrain-curve
```

Every arm starts from the same world model and trains on the same recorded episodes for as many
minutes, at every learning rate. The supervised control is also kept after as many updates as the
first arm made. What is measured (`posttrain_measures.py`) rewarded no arm. A killed benchmark
continues where it stopped, and one with more `--minutes` continues what one with fewer trained.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from posttrain_curves import Point, curve, curve_table, plot_curve
from posttrain_measures import Measures
from posttrain_runs import kept, kept_after, run_summary, train
from posttrain_tables import Rows, compare, plot, table
from safetensors.torch import load_file
from second_dynamics import SecondDynamics
from second_dynamics import load as load_second
from second_dynamics import train as train_second
from torch import Tensor

from policy_eval.judge.inverse_dynamics_training import InverseDynamicsTraining, train_inverse_dynamics
from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.guards import read_held_out
from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.data.options import DataOptions
from worldmodel.envs.record import RecordConfig, record
from worldmodel.files import write_json, write_weights
from worldmodel.model.folder import fingerprint
from worldmodel.training.config import PretrainConfig
from worldmodel.training.loss import LossConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel


def pathwise(*, realism: float = 0.0, perceptual: float = 0.0, agreement: float = 0.0) -> dict[str, Any]:
    """The settings of an arm whose rewards have these weights; with none it is the regression alone."""
    weights = PathwiseConfig(realism=realism, perceptual=perceptual, agreement=agreement)
    return {"objective": "pathwise", "pathwise": weights}


CONTROL = "supervised"
"""The arm that the others are held against, beside the world model before."""
SHARPENED = "before, sharpened"
"""The trivial baseline of sharpness: an unsharp mask over the frames of the world model before."""
ARMS: dict[str, dict[str, Any]] = {
    "realism+perceptual": pathwise(realism=0.5, perceptual=0.5),
    CONTROL: pathwise(),
    "realism": pathwise(realism=0.5),
    "strong realism": pathwise(realism=1.0),
    "perceptual": pathwise(perceptual=0.5),
    "realism+perceptual+actions": pathwise(realism=0.5, perceptual=0.5, agreement=0.5),
    "actions": pathwise(agreement=0.5),
    "nft": {"objective": "nft"},
    "nft+actions": {"objective": "nft"},
    "self-rollout": {"objective": "self-rollout"},
    "teacher-forced": {"objective": "teacher-forced"},
}
"""What is trained: the objective and the rewards. `supervised` regresses on the parallel self-rollout without a reward;
`self-rollout` does it on sequential prefixes with branches. Arms whose names end with actions have inverse dynamics."""


@dataclass(frozen=True)
class PosttrainBenchmark:
    """What is compared."""

    out: Path
    """Folder of everything; `posttrain.json` holds the figures, and a plot is named like the folder."""
    world: Path = Path("checkpoints/pusht")
    """World model before."""
    teacher_forced: float = 0.0
    """Minutes in which `world` is first trained on recorded frames alone, so that its rollouts drift; 0 leaves it."""
    env: str = "pusht"
    """Environment that is recorded where a data set is not given."""
    data: Path | None = None
    """Recorded episodes to train on; recorded into `out` when not given."""
    data_episodes: str = ""
    """Which of them are read, as in :60; by default all."""
    held_out: Path | None = None
    """Recorded episodes to measure on; recorded into `out` when not given."""
    measuring: Path | None = None
    """Recorded episodes of the second inverse dynamics, others than those to train on; recorded when not given."""
    measuring_episodes: str = ""
    """Which of them are read, as in 200:; by default all."""
    dynamics: Path | None = None
    """Inverse dynamics for the rewards; trained on `data` when not given and an arm needs it."""
    second: Path | None = None
    """Second inverse dynamics, of an earlier run of this benchmark; trained when not given."""
    minutes: float = 6.0
    """Minutes of every arm."""
    clock: Literal["wall", "cpu"] = "cpu"
    """CPU time is fair on a machine that others use, too."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the runs."""
    arms: tuple[str, ...] = ("realism+perceptual", CONTROL)
    """What is trained, see ARMS; the first one sets the number of updates of the control at equal updates."""
    trained: dict[str, Path] = field(default_factory=dict)
    """World models that are there already: they are measured as an arm of that name."""
    horizons: tuple[int, ...] = (10, 25, 50)
    """Dreamed frames after which dream and truth are compared."""
    episodes: int = 24
    """Held-out episodes that are dreamed."""
    starts: int = 2
    """Windows of each episode."""
    train_episodes: int = 60
    """Episodes to record for training; twice as many are recorded for the second inverse dynamics."""
    num_steps: int = 2
    """Denoising steps of the measured dreams."""
    learning_rates: tuple[float, ...] = (2e-5,)
    """Every arm is trained at each of them."""
    dynamics_steps: int = 700
    """Optimiser steps of each inverse dynamics."""
    realism_warmup: int = 40
    """Updates in which the discriminator of an arm learns before the world model does; they count as its time."""
    curve: tuple[float, ...] = ()
    """Minutes after which every arm is also kept and measured, beside the end."""
    sharpened: float = 0.0
    """Strength of an unsharp mask over the frames of the world model before, measured like an arm; 0 for none."""
    only_train: bool = False
    """Measure nothing."""
    quick: bool = False
    """At most 15 minutes on two cores: a teacher-forced world, 2 minutes per arm at a rate of 5e-5, 24 windows."""

    def resolved(self) -> "PosttrainBenchmark":
        """With what `quick` implies.

        Raises:
            ValueError: There is no such arm, or a point of the curve is not before the end.
        """
        unknown = [arm for arm in self.arms if arm not in ARMS]
        if unknown:
            raise ValueError(f"--arms {unknown[0]}: known are {', '.join(ARMS)}")
        if list(self.curve) != sorted(self.curve) or max(self.curve, default=0) >= self.minutes:
            raise ValueError(f"--curve {self.curve}: growing minutes below --minutes {self.minutes}")
        if not self.quick:
            return self
        shorter = {"teacher_forced": 4.0, "minutes": 2.0, "learning_rates": (5e-5,), "starts": 1, "dynamics_steps": 250}
        shorter["realism_warmup"] = 20
        return replace(self, **shorter, arms=("realism+perceptual", CONTROL))


def main(config: PosttrainBenchmark) -> None:
    """Record what is missing, train every arm, measure, write the figures."""
    torch.set_num_threads(1)
    config = config.resolved()
    config.out.mkdir(parents=True, exist_ok=True)
    data = config.data or recording(config, "train", 40, config.train_episodes)
    config = replace(config, world=drifting_world(config, data) if config.teacher_forced else config.world)
    worlds = {"before": [config.world]} | {name: [folder] for name, folder in config.trained.items()}
    if config.sharpened:
        worlds[SHARPENED] = [config.world]
    points: list[Point] = []
    for seed in config.seeds:
        for rate in config.learning_rates:
            points += train_arms(config, data, seed, rate)
    for point in points:
        worlds.setdefault(point.name, []).append(point.folder)
    if config.only_train:
        return
    rows = measure(config, worlds)
    compared = {"before": compare(finals(rows, points), "before")}
    for control in sorted((p for p in points if p.reference), key=lambda point: "equal" in point.name):
        compared.setdefault(control.name, compare(finals(rows, points, control.rate), control.name))
    result = {
        "machine": f"{platform.machine()} CPU, {os.cpu_count()} cores, torch {torch.__version__}",
        "config": json.loads(json.dumps(asdict(config), default=str)),
        "runs": {
            f"{name} {index}": run_summary(folder)
            for name, folders in worlds.items()
            for index, folder in enumerate(folders)
            if (folder / "updates.jsonl").exists()
        },
        "comparison": compared,
        "curve": curve(rows, points),
        "rows": rows,
    }
    write_json(config.out / "posttrain.json", result)
    plot(rows, config.horizons, config.out / f"{config.out.name}.png")
    if config.curve or len(config.learning_rates) > 1:
        plot_curve(result["curve"], config.out / f"{config.out.name}-curve.png")
        print(f"\n{curve_table(result['curve'])}")
    for reference, found in result["comparison"].items():
        print(f"\n## against {reference}: mean, then changes [95%]\n\n{table(found, reference)}")
    print("\n| arm, run | updates | seconds |\n|---|---|---|")
    for name, run in result["runs"].items():
        print(f"| {name} | {run['updates']} | {run['seconds']:.0f} |")


def finals(rows: Rows, points: Sequence[Point], rate: float | None = None) -> Rows:
    """Without the rows of world models on the way and, if a learning rate is given, of those of another rate."""
    hidden = [point.name for point in points if not point.final or rate not in (None, point.rate)]
    return [row for row in rows if row["arm"] not in hidden]


def recording(config: PosttrainBenchmark, name: str, seed: int, episodes: int) -> Path:
    """Record a data set into `out`; what is there already is not recorded again."""
    return record(RecordConfig(config.env, episodes=episodes, seed=seed, out=config.out / "data" / name))


def drifting_world(config: PosttrainBenchmark, data: Path) -> Path:
    """`world` after a training without its own predictions in the context, as the worlds of most papers are trained."""
    out = config.out / "teacher_forced"
    if not (out / "world.json").exists():
        pretrain(
            PretrainConfig(
                data=data,
                out=out,
                init=config.world,
                steps=1_000_000,
                minutes=config.teacher_forced,
                clock=config.clock,
                injection=WorldModel.load(config.world).config.conditioner.injection,
                learning_rate=3e-4,
                average_decay=0.99,
                validation_episodes=2,
                validation_interval=1_000_000,
                loss=LossConfig(forward_fraction=0.0),
                log="none",
                overwrite=True,
            )
        )
    return out


def rewarding_dynamics(config: PosttrainBenchmark, data: Path) -> Path:
    """The inverse dynamics that reward; trained if they are not given and not there."""
    folder = config.dynamics or config.out / "inverse_dynamics"
    if not (folder / "report.json").exists():
        train_inverse_dynamics(
            InverseDynamicsTraining(
                data=data,
                out=folder,
                world=config.world,
                steps=config.dynamics_steps,
                head_steps=3 * config.dynamics_steps,
                validation_episodes=4,
                overwrite=True,
            )
        )
    return folder


def second_dynamics(config: PosttrainBenchmark) -> Path:
    """The inverse dynamics that only measure; trained if they are not given and not there."""
    folder = config.second or config.out / "second_dynamics"
    if not (folder / "report.json").exists():
        train_second(
            SecondDynamics(
                data=config.measuring or recording(config, "measuring", 42, 2 * config.train_episodes),
                world=config.world,
                out=folder,
                episodes=config.measuring_episodes,
                steps=config.dynamics_steps,
            )
        )
    return folder


def settings_of(config: PosttrainBenchmark, arm: str, data: Path, seed: int, rate: float) -> PosttrainConfig:
    """The settings of an arm at a learning rate; nothing is validated, and nothing stops early."""
    arm_settings = ARMS[arm]
    if "pathwise" in arm_settings:
        terms = replace(arm_settings["pathwise"], realism_warmup=config.realism_warmup)
        arm_settings = {**arm_settings, "pathwise": terms}
    return PosttrainConfig(
        inverse_dynamics=rewarding_dynamics(config, data) if "actions" in arm else None,
        world=config.world,
        data=data,
        out=config.out / f"seed{seed}" / f"{arm}-{rate:g}",
        minutes=config.minutes,
        steps=1_000_000,
        clock=config.clock,
        num_steps=config.num_steps,
        learning_rate=rate,
        validation_episodes=2,
        validation_horizon=10,
        validation_interval=1_000_000,
        patience=0,
        save_interval=20,
        log="none",
        seed=seed,
        reading=DataOptions(episodes=config.data_episodes),
        **arm_settings,
    )


def train_arms(config: PosttrainBenchmark, data: Path, seed: int, rate: float) -> list[Point]:
    """Train every arm of a seed and a learning rate; what is measured of them, in the order of the arms."""
    points: list[Point] = []
    updates = None
    for arm in config.arms:
        settings = settings_of(config, arm, data, seed, rate)
        called = arm if len(config.learning_rates) == 1 else f"{arm} {rate:g}"
        control = arm == CONTROL
        equal = updates if control else None
        for minutes in (*config.curve, config.minutes):
            about = {"arm": arm, "rate": rate, "minutes": minutes, "final": minutes == config.minutes}
            if equal and (copy := kept_after(replace(settings, minutes=minutes, steps=equal))) is not None:
                points.append(Point(f"{called}, equal updates", copy, **about | {"final": True}, reference=True))
                equal = None
            train(replace(settings, minutes=minutes))
            if about["final"]:
                points.append(Point(called, settings.out, **about, reference=control))
            else:
                folder = kept(settings.out, f"{minutes:g}-minutes")
                points.append(Point(f"{called}, {minutes:g} minutes", folder, **about))
        updates = updates or run_summary(settings.out)["updates"]
    return points


def measured(
    measures: Measures, world: Path, cache: Path, made_with: str, sharpen: float = 0.0
) -> tuple[dict[str, list[float | None]], Tensor]:
    """The measures of a world model and its frames at the horizons, kept in `cache`.

    Args:
        measures: What is measured.
        world: Folder of the world model.
        cache: Folder of what was measured already.
        made_with: Fingerprints of the held-out data and of the second inverse dynamics.
        sharpen: How much the frames are sharpened first.
    """
    about = (fingerprint(world), made_with, measures.windows.episodes, measures.horizons, measures.num_steps)
    about += (sharpen,) if sharpen else ()
    file = cache / f"{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}.json"
    if not file.exists():
        columns, frames = measures.columns(WorldModel.load(world), sharpen)
        cache.mkdir(exist_ok=True)
        write_weights(file.with_suffix(".safetensors"), {"frames": frames})
        write_json(file, listed(columns))
    return json.loads(file.read_text()), load_file(file.with_suffix(".safetensors"))["frames"]


def listed(columns: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
    """Numbers of every column, `None` in place of NaN."""
    return {name: [None if x != x else x for x in values.tolist()] for name, values in columns.items()}


def measure(config: PosttrainBenchmark, worlds: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """One row per arm, run and held-out window."""
    base = WorldModel.load(config.world)
    held_out = config.held_out or recording(config, "held_out", 41, config.episodes)
    source = EpisodeCache(open_episodes(held_out, tuple(base.size), base.views))
    episodes = range(min(config.episodes, len(source)))
    windows = read_held_out(base, source, episodes, horizon=max(config.horizons), starts=config.starts)
    second = second_dynamics(config)
    measures = Measures(windows, base.views, config.horizons, load_second(second), num_steps=config.num_steps)
    made_with = f"{source.fingerprint} {fingerprint(second)}"
    columns, frames = {}, {}
    for name, folders in worlds.items():
        for run, folder in enumerate(folders):
            print(f"measuring {name} {run}", flush=True)
            given = (measures, folder, config.out / "measured", made_with)
            sharpen = config.sharpened if name == SHARPENED else 0.0
            columns[name, run], frames[f"{name} {run}"] = measured(*given, sharpen)
    masked = measures.masked(frames)
    rows = []
    for (name, run), values in columns.items():
        values |= listed(masked[f"{name} {run}"] | measures.distances(frames[f"{name} {run}"]))
        for index, episode in enumerate(windows.episodes):
            numbers = {key: column[index] for key, column in values.items()}
            window = windows.episodes[:index].count(episode)
            rows.append({"arm": name, "run": run, "episode": episode, "window": window, **numbers})
    return rows


if __name__ == "__main__":
    main(tyro.cli(PosttrainBenchmark, description=__doc__))
