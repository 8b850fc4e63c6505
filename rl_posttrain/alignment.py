"""Align world model and judge with what the policies themselves do. `worldmodel align`.

A world model that was trained only on demonstrations is optimistic: it has never seen what a bad
policy does, and in its dreams a failure ends like a demonstration. So real rollouts of the policies
are recorded, failures included. The world model and the judge are fine-tuned on the first of them
and on as many episodes of the old data; then the judge's threshold is set on dreams of the last
ones. This module is above evaluation, because evaluation never updates the world model.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import gymnasium
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from policy_eval.judge.calibration.calibrate import CalibrateConfig, calibrate_judge
from policy_eval.judge.train import JudgeConfig, train_judge
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.ranking.command import RankConfig, rank_policies
from policy_eval.real_rollouts import mix, record_rollouts
from rl_posttrain.alignment_page import write_page
from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.options import ColumnOptions, DataOptions
from worldmodel.display.progress import ProgressLine
from worldmodel.envs import make_simulator
from worldmodel.envs.episode import schema_of
from worldmodel.envs.protocol import describe
from worldmodel.files import read_object, write_json
from worldmodel.model.folder import fingerprint
from worldmodel.model.precision import command_device
from worldmodel.processes.alone import alone_in_out
from worldmodel.training.checkpoint import SETTINGS, claim_folder, settings_of
from worldmodel.training.config import PretrainConfig
from worldmodel.training.pretrain import pretrain
from worldmodel.world_model import WorldModel

FREE = ("workers", "device")
"""Settings that may differ when a stopped alignment goes on, because they do not change what it computes."""
SHOWN = ("pearson", "spearman", "mmrv_tie_safe", "bias", "rmse")


@dataclass(frozen=True)
class AlignConfig:
    """Fine-tune world model and judge on real rollouts of policies, and rank before and after.

    Finished parts are kept, so a killed command continues.
    """

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    judge: str | Path
    """Folder of the judge, or hf://USER/NAME@REV."""
    policies: tuple[str | Path, ...]
    """Folders of policies, folders of such folders, module:name for a policy of yours, lerobot:FOLDER for one that
    lerobot saved, or ws://HOST:PORT for one behind a server of openpi's protocol."""
    real: str
    """Environment of the real rollouts: pusht-position, metaworld:TASK, libero:SUITE/TASK, or module:Class for one of
    yours."""
    world_data: Path
    """Data set that the world model was trained on; a part of it is mixed in."""
    judge_data: Path
    """Data set that the judge was trained on; a part of it is mixed in."""
    data: Path
    """Held-out episodes from whose starts the policies are ranked."""
    out: Path
    """Folder for rollouts, aligned world models and judges, rankings, `align.json`, and a page, report.html."""
    horizon: int
    """Maximum number of steps of a trial; an action is held over the stride of the world model."""
    real_scores: Path
    """Real trials from the same starts, a JSON file of scores by policy."""
    rollouts: tuple[int, ...] = (25, 100)
    """Numbers of real rollouts to align with; each number takes the first of the same rollouts. The last quarter of
    them is used only to calibrate."""
    episodes: int | str = 100
    """Dreamed trials of each policy: a number means the first episodes of the data, `0:50,60` means 0 to 49 and 60."""
    steps: int = 400
    """Optimiser steps of the world model; with 0 only the judge is aligned."""
    batch: int = 8
    """Clips per step."""
    learning_rate: float = 3e-4
    """Peak learning rate of the world model."""
    judge_steps: int = 600
    """Optimiser steps of the judge."""
    calibrate: bool = True
    """Set the judge's threshold so that dreams succeed as often as the rollouts did."""
    workers: int | str = 1
    """Number of processes that share the dreamed trials; or ray, or ray://HOST:PORT, as in `worldmodel rank`."""
    num_steps: int = 2
    """Denoising steps per frame."""
    seed: int = 77
    """Rollout i starts from the reset seed `seed * 100000 + i`; no start in --data may have one of these seeds."""
    columns: Annotated[ColumnOptions, tyro.conf.arg(name="")] = field(default_factory=ColumnOptions)
    """Which columns of --data, --world-data and --judge-data to read."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def reading(self) -> DataOptions:
        """How the data sets of the user are opened."""
        return DataOptions(**asdict(self.columns))


@alone_in_out
def align(config: AlignConfig) -> dict:
    """Record, fine-tune and rank; returns the table that `align.json` holds.

    Raises:
        ValueError: A rollout would begin where the policies are tested, or something does not fit.
    """
    command_device(config.device)
    numbers = sorted(set(config.rollouts))
    least = max(4, 2 * len(find_policies(config.policies)) if config.calibrate else 0)
    if not numbers or numbers[0] < least:
        raise ValueError(f"--rollouts are numbers of at least {least}, got {list(config.rollouts)}")
    world = WorldModel.load(config.world)
    env = make_simulator(config.real, size=world.size[0], time_limit=config.horizon * world.stride)
    check_apart(config, numbers[-1])
    claim(config)
    recorded = record(config, env, numbers[-1], world.stride)
    table = {"0": agreement_of(config, config.world, config.judge, config.out / "before")}
    for number in numbers:
        known = number - held_back(config, number)
        world, learned = fine_tune(config, env, open_episodes(recorded), number, known)
        if config.calibrate:
            learned = calibrated(config, world, learned, recorded, number, known)
        table[str(number)] = agreement_of(config, world, learned, config.out / f"{number}/rank")
        write_json(config.out / "align.json", {"format": 1, "rollouts": table})
    show(table)
    videos = sorted((config.out / f"{numbers[-1]}/rank/videos").glob("*.mp4"))
    write_page(table, SHOWN, videos, config.out / "report.html")
    print(f"{config.out / 'align.json'} and {config.out / 'report.html'}")
    return table


def claim(config: AlignConfig) -> None:
    """Note the settings in `out`, or compare them with those of the alignment that is to go on there.

    Raises:
        ValueError: As `claim_folder`; or a data set cannot be read.
    """
    read = {name: fingerprint(getattr(config, name)) for name in ("world", "judge")}
    sets = {name: getattr(config, name) for name in ("world_data", "judge_data", "data")}
    read |= {name: open_episodes(data, options=config.reading).fingerprint for name, data in sets.items()}
    claim_folder(config.out, settings_of(config, read), "an alignment", free=FREE)


def check_apart(config: AlignConfig, episodes: int) -> None:
    """Raise a `ValueError` when a rollout has the reset seed of a start."""
    source = open_episodes(config.data, options=config.reading)
    seeds = {source.reset_seed(episode) for episode in range(len(source))}
    both = sorted(seeds & set(range(config.seed * 100_000, config.seed * 100_000 + episodes)))
    if both:
        raise ValueError(f"--seed {config.seed}: rollouts would begin from the test starts {both}")


def record(config: AlignConfig, env: gymnasium.Env, episodes: int, stride: int) -> Path:
    """The rollouts of all policies in turn; an action is held for `stride` steps."""
    policies = {name: load_policy(spec) for name, spec in find_policies(config.policies).items()}
    with ProgressLine("record", episodes, unit="rollouts", log=config.out / "align.log") as progress:
        return record_rollouts(
            policies,
            env,
            config.out / "rollouts",
            episodes=episodes,
            horizon=config.horizon,
            seed=config.seed,
            stride=stride,
            name=config.real,
            progress=progress.update,
        )


def held_back(config: AlignConfig, number: int) -> int:
    """How many of `number` rollouts are used only to calibrate: the last quarter, at least one per policy.

    The world model and the judge are not trained on them, because they would know how they end.
    """
    least = len(find_policies(config.policies))
    return max(number // 4, least) if config.calibrate else 0


def fine_tune(
    config: AlignConfig, env: gymnasium.Env, rollouts: EpisodeSource, number: int, known: int
) -> tuple[str | Path, Path]:
    """The world model and the judge after training on the first `known` of `number` rollouts and as many old ones."""
    folder = config.out / str(number)
    schema, mixtures = schema_of(env, config.real), {}
    needed = {"world": config.world_data} if config.steps else {}
    for name, data in (needed | {"judge": config.judge_data}).items():
        old = open_episodes(data, options=config.reading)
        chosen = np.random.default_rng(config.seed).permutation(len(old))[:known].tolist()
        parts = [(rollouts, range(known)), (old, chosen)]
        mixtures[name] = mix(parts, schema, folder / f"{name}-data", task=describe(env).task)
    world = folder / "world" if config.steps else config.world
    learned = folder / "judge"
    if config.steps and not (folder / "world" / "world.json").exists():
        start = WorldModel.load(config.world)
        held_out = max(min(8, known // 4), 1)
        resumes = (folder / "world" / SETTINGS).is_file()
        pretrain(
            PretrainConfig(
                mixtures["world"],
                folder / "world",
                init=config.world,
                steps=config.steps,
                batch=config.batch,
                learning_rate=config.learning_rate,
                stride=start.stride,
                relative_to=dict(start.relative_to),
                average_decay=0.99,
                warmup=20,
                validation_episodes=held_out,
                validation_interval=config.steps,
                save_interval=config.steps,
                frames=min(10, (shortest(mixtures["world"]) - 1) // start.stride + 1),
                resume=resumes,
                overwrite=not resumes,
                device=config.device,
            )
        )
    if not (learned / "report.json").exists():
        train_judge(
            JudgeConfig(
                mixtures["judge"],
                learned,
                steps=config.judge_steps,
                init=config.judge,
                learning_rate=3e-4,
                held_out=0.3,
                test_data=config.data,
                test_reading=config.reading,
                overwrite=True,
                device=config.device,
            )
        )
    return world, learned


def calibrated(config: AlignConfig, world: str | Path, learned: Path, recorded: Path, number: int, known: int) -> Path:
    """The judge with a threshold that is set on dreams of the rollouts that were held back."""
    out = config.out / str(number) / "calibrated-judge"
    if not (out / "calibration.json").exists():
        calibrate_judge(
            CalibrateConfig(
                learned,
                recorded,
                out,
                config.horizon,
                world=world,
                policies=config.policies,
                episodes=number,
                skip=known,
                num_steps=config.num_steps,
                overwrite=True,
                device=config.device,
            )
        )
    return out


def shortest(data: Path) -> int:
    """Frames of the shortest episode."""
    return min(open_episodes(data).lengths)


def agreement_of(config: AlignConfig, world: str | Path, learned: str | Path, out: Path) -> dict:
    """How well the ranking in this world agrees with the real trials."""
    settings = RankConfig(
        world=world,
        judge=learned,
        policies=config.policies,
        data=config.data,
        out=out,
        horizon=config.horizon,
        episodes=config.episodes,
        columns=config.columns,
        real=str(config.real_scores),
        num_steps=config.num_steps,
        workers=config.workers,
        device=config.device,
    )
    rank_policies(settings)
    return read_object(out / "ranking.json")["agreement"]


def show(table: dict) -> None:
    """Print agreement against the number of rollouts."""
    printed = Table(title="agreement with real trials after N rollouts")
    for column in ("N", *SHOWN):
        printed.add_column(column)
    for number, row in table.items():
        cells = ["-" if row[name]["value"] is None else _cell(row[name]) for name in SHOWN]
        printed.add_row(number, *cells)
    Console().print(printed)


def _cell(row: dict) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
