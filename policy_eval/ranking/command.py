"""Rank policies inside a world model. `worldmodel rank --world W --judge J --policies DIR...`."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from policy_eval.policies.find import find_policies
from policy_eval.ranking.abstain import Abstained, AbstainOptions, limit_of
from policy_eval.ranking.disagreements import film, worst
from policy_eval.ranking.films import film_best
from policy_eval.ranking.outcomes import ENDINGS, read_outcomes
from policy_eval.ranking.plan_page import show_plan
from policy_eval.ranking.rank import Ranking, rank
from policy_eval.ranking.report import print_ranking, write_report
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.tally import counted, imagined_successes, in_both, trial_rows, trials_of, without
from policy_eval.ranking.trials import Cell, check_policies, cut, gather, gather_signals, replays, run_cells
from policy_eval.scores import Scores
from worldmodel.data.options import ColumnOptions, DataPath
from worldmodel.display.progress import ProgressLine
from worldmodel.display.ranges import Count, Weight, Whole, check_ranges
from worldmodel.envs import check_env_name
from worldmodel.files import read_object, remove_unfinished, shipped, write_json
from worldmodel.model.folder import first_file
from worldmodel.model.precision import choose_device, command_device
from worldmodel.processes import single_thread
from worldmodel.processes.workers import Workers, read_workers

FREE = ("plan", "workers", "gpus_per_worker", "device", "videos", "out")
"""Settings in which a plan may differ from the finished ranking that it reads."""


@dataclass(frozen=True)
class RankConfig:
    """Let policies act in a world model, judge and rank them, and compare with real trials.

    If the command is killed, the same call continues it and gives the same numbers.
    """

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    judge: str | Path
    """Who judges dreamed frames: the folder of a judge (or hf://USER/NAME@REV), module:name of yours, or the http:// or
    https:// address of a server."""
    policies: tuple[str | Path, ...]
    """Folders of policies, folders of such folders, module:name for a policy of yours, lerobot:FOLDER, or ws://HOST:PORT
    of a server. A policy has the name of its folder, or the name after the colon."""
    data: DataPath
    """Recorded episodes that nothing was trained on; trials start from their first frames. Trials in a simulator need
    reset seeds, which `worldmodel record` writes."""
    out: Path
    """Folder for ranking.json, report.html, videos, and the finished trials."""
    horizon: Count
    """Maximum number of steps of a trial."""
    episodes: Count | str = 100
    """Dreamed trials of each policy: a number means the first episodes of the data, `0:50,60` means 0 to 49 and 60."""
    real: str = "none"
    """The real trials: none, or the environment in which to make them (pusht-position, metaworld:TASK,
    libero:SUITE/TASK, module:Class), or a file of their outcomes. The file is a CSV or parquet table with the columns
    policy, start and success, or JSON with scores by policy, like `real.json` beside the shipped policies."""
    real_episodes: Count | None = None
    """Number of real trials of each policy; by default as many as dreamed trials."""
    faulty: Literal["failure", "left-out"] = "failure"
    """What a trial counts as in which the policy raises an error or returns no action: a failure, or it is left out."""
    control: Literal["none", "copy-last"] = "none"
    """copy-last ranks in a world whose frames never change, as a control of the judge."""
    replays: Whole = 200
    """Maximum number of failed real trials, over all policies, that are dreamed again to see how optimistic dreams
    are."""
    videos: Whole = 4
    """Number of videos of the worst disagreements. Where there is none, one dream is shown."""
    num_steps: Count = 2
    """Denoising steps per frame."""
    num_envs: Count = 25
    """Number of trials that run side by side and are saved together."""
    workers: Whole | str = os.cpu_count() or 1
    """Number of processes that share the trials, each with one thread; ray, a Ray cluster that runs here or that is
    started; or ray://HOST:PORT, another one."""
    gpus_per_worker: Weight | None = None
    """Share of a GPU that each worker of a Ray cluster takes; with 0.25 four workers share one. By default a whole one
    where --device is CUDA."""
    seed: Whole = 0
    """Seed of the dreams' noise and of the resampling."""
    columns: Annotated[ColumnOptions, tyro.conf.arg(name="")] = field(default_factory=ColumnOptions)
    """Which columns of the data to read."""
    abstaining: Annotated[AbstainOptions, tyro.conf.arg(name="")] = field(default_factory=AbstainOptions)
    """Which dreams are not to be trusted."""
    plan: bool = False
    """Also print how many dreams and real trials would tell each pair of policies apart with a power of 80%, and write
    plan.json and plan.html. A finished ranking in --out is read and not repeated."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def real_table(self) -> Path | None:
        """The file of stored real trials, if there is one."""
        return shipped(self.real) if Path(self.real).suffix in ENDINGS else None

    @property
    def who_works(self) -> Workers:
        """The workers that share the trials."""
        return read_workers(self.workers, self.gpus_per_worker, choose_device(self.device).type)

    @property
    def setup(self) -> TrialSetup:
        """The setup of the trials."""
        return TrialSetup(
            world=self.world,
            judge=self.judge,
            data=self.data,
            columns=self.columns,
            episodes=self.episodes,
            horizon=self.horizon,
            real="none" if self.real_table else self.real,
            stored=self.real_table is not None,
            num_steps=self.num_steps,
            num_envs=self.num_envs,
            seed=self.seed,
            copy_last=self.control == "copy-last",
            device=self.device,
            signal=self.abstaining.signal,
        )


def rank_policies(config: RankConfig) -> Ranking:
    """Run the trials that are missing, and write `ranking.json` and `report.html`.

    Raises:
        ValueError: A folder holds no policy, two policies have the same name, the world model, the judge,
            the starts and the policies do not fit, or a finished cell was made with another setup.
    """
    check_ranges(config)
    check(config)
    choose_device(config.device)
    policies = find_policies(config.policies)
    if config.plan and len(policies) < 2:
        raise ValueError(f"--plan compares at least two policies, got {', '.join(policies)}")
    done = finished_trials(config, policies) if config.plan else None
    if done is not None:
        show_plan(*done, config.out)
        return rank(*done, seed=config.seed)
    setup = config.setup
    number = len(setup.loaded_starts)
    if config.real_episodes is not None and config.real_episodes > number:
        raise ValueError(
            "--real-episodes is 1 to --episodes, since real starts are dreamed from too; got "
            f"{config.real_episodes} and {number}"
        )
    check_policies(setup, policies)
    stored = None if config.real_table is None else read_outcomes(config.real_table, policies)
    claim(config.out)
    with single_thread():
        command_device(config.device)
        tried = run_trials(config, setup, policies, stored)
    ranking = rank(tried.dream, tried.real, seed=config.seed)
    report = {
        "format": 1,
        **ranking.to_json(),
        "optimism": tried.optimism,
        "faults": tried.faults,
        "abstention": None if tried.abstained is None else tried.abstained.to_json(),
        "settings": settings(config, policies),
        "made_with": setup.made_with,
        "trials": trial_rows(tried.dream, tried.real),
    }
    write_json(config.out / "ranking.json", report)
    write_report(report, tried.videos, config.out / "report.html")
    print_ranking(report)
    print(f"{config.out / 'ranking.json'} and {config.out / 'report.html'}")
    if config.plan:
        show_plan(tried.dream, tried.real, config.out)
    return ranking


@dataclass(frozen=True)
class Tried:
    """The trials of a ranking.

    Attributes:
        dream: Dreamed trials that count, by policy.
        real: Real trials of the same policies, where there are any.
        faults: A row for each trial with a fault.
        optimism: As in `imagined_successes`.
        videos: Files and captions of the worst disagreements, or of one dream.
        abstained: The dreams that are not to be trusted, if they were looked for.
    """

    dream: dict[str, Scores]
    real: dict[str, Scores] | None
    faults: list[dict]
    optimism: dict | None
    videos: list[tuple[Path, str]]
    abstained: Abstained | None


def run_trials(
    config: RankConfig, setup: TrialSetup, policies: Mapping[str, str | Path], stored: dict[str, Scores] | None
) -> Tried:
    """Run the trials that are missing, and dream failed real ones again.

    Args:
        config: The settings.
        setup: The setup of the trials.
        policies: By name.
        stored: Real trials that were made before.

    Raises:
        ValueError: A finished cell was made with another setup, or no policy has a trial that counts.
    """
    number, with_simulator = len(setup.loaded_starts), setup.real != "none"
    tried = number if config.real_episodes is None else config.real_episodes
    dreams = cut(["dream"], policies, range(number), setup.batch)
    trials = cut(["real"], policies, range(tried), setup.batch) if with_simulator else []
    limit = None if setup.signal.kind == "none" else limit_of(config.abstaining, setup, config.out)
    run_shown(setup, "trials", [*trials, *dreams], config)
    dream, faults = counted(setup, dreams, config.out, config.faulty)
    abstained = None
    if limit is not None:
        abstained = Abstained(setup.signal.kind, limit, gather_signals(setup, dreams, config.out), dream)
        dream, undecided = abstained.decided()
        faults += undecided
    if not with_simulator:
        dream, real = in_both(dream, stored)
        return Tried(dream, real, faults, None, shown(config, setup, policies, without(dream, faults)), abstained)
    real, more = counted(setup, trials, config.out, config.faulty)
    again, failures = replays(setup, policies, config.out, limit=config.replays)
    run_shown(setup, "replays", again, config)
    optimism = imagined_successes(gather(setup, again, config.out), failures)
    dream, real = in_both(dream, real)
    faults += more
    disagreements = worst(without(dream, faults), without(real, faults), config.videos)
    films = film(setup, policies, disagreements, config.out) or shown(config, setup, policies, without(dream, faults))
    return Tried(dream, real, faults, optimism, films, abstained)


def shown(
    config: RankConfig, setup: TrialSetup, policies: Mapping[str, str | Path], dream: Mapping[str, Scores]
) -> list[tuple[Path, str]]:
    """The film of a dream, where there is no disagreement to show; none without `--videos` or a faultless trial."""
    return [film_best(setup, policies, dream, config.out)] if config.videos and dream else []


def finished_trials(
    config: RankConfig, policies: Mapping[str, str | Path]
) -> tuple[dict[str, Scores], dict[str, Scores] | None] | None:
    """Dreamed and real trials of the finished ranking in `--out`; `None` if there is none with these settings.

    Raises:
        ValueError: `ranking.json` is something else.
    """
    file = config.out / "ranking.json"
    if not file.is_file():
        return None
    report = read_object(file)
    missing = {"settings", "policies", "trials"} - set(report)
    if missing:
        raise ValueError(f"{file}: has no {', '.join(sorted(missing))}, expected a finished ranking")
    now, stored = json.loads(json.dumps(settings(config, policies))), report["settings"]
    if any(stored.get(name) != now[name] for name in now if name not in FREE):
        return None
    return trials_of(report, "dream"), trials_of(report, "real") or None


def claim(out: Path) -> None:
    """Make the folder of a ranking, or go on with the one that is there.

    Raises:
        ValueError: The folder holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file, expected a folder")
    found = first_file(out)
    ours = ("cells", "ranking.json", "rank.log")
    if found is not None and not any((out / name).exists() for name in ours):
        raise ValueError(f"{out} holds {found.relative_to(out)} and is not a ranking; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)


def check(config: RankConfig) -> None:
    """Raise a `ValueError` for settings that contradict each other."""
    config.abstaining.check()
    read_workers(config.workers, config.gpus_per_worker)
    if config.real_table is not None and not config.real_table.is_file():
        raise ValueError(f"--real {config.real}: no such file of real trials")
    if config.real_table is None and config.real != "none":
        check_env_name(config.real)


def settings(config: RankConfig, policies: Mapping[str, str | Path]) -> dict:
    """The configuration, as JSON can hold it."""
    values = json.loads(json.dumps(asdict(config), default=str))
    return values | {"policies": {name: str(spec) for name, spec in policies.items()}}


def run_shown(setup: TrialSetup, name: str, cells: Sequence[Cell], config: RankConfig) -> None:
    """Run cells, and show the progress with the remaining time."""
    total = sum(len(cell.starts) for cell in cells)
    with ProgressLine(name, total, unit="trials", log=config.out / "rank.log") as progress:
        try:
            run_cells(
                setup,
                cells,
                config.out,
                workers=config.who_works,
                progress=lambda cell: progress.advance(len(cell.starts), f"{cell.policy}, {cell.place}"),
            )
        finally:
            remove_unfinished(config.out)
