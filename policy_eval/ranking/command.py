"""Rank policies inside a world model. `worldmodel rank --world W --judge J --policies DIR...`."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from policy_eval.policies.find import find_policies
from policy_eval.ranking.disagreements import film, worst
from policy_eval.ranking.plan import show_plan
from policy_eval.ranking.rank import Ranking, Score, rank
from policy_eval.ranking.report import print_ranking, write_report
from policy_eval.ranking.trials import Cell, TrialSetup, cut, gather, replays, run_cells
from policy_eval.scores import Scores
from worldmodel.data.options import ColumnOptions, DataOptions, DataPath, chosen_episodes
from worldmodel.display.progress import ProgressLine
from worldmodel.envs import check_env_name
from worldmodel.files import read_object, remove_unfinished, write_json
from worldmodel.model.folder import first_file, shipped
from worldmodel.model.precision import choose_device, command_device
from worldmodel.processes import single_thread

MOST_EPISODES = 10**6
"""More trials of a policy than anybody makes."""
FREE = ("plan", "workers", "device", "videos", "out")
"""Settings in which a plan may differ from the finished ranking that it reads."""


@dataclass(frozen=True)
class RankConfig:
    """Let policies act in a world model, judge and rank them, and compare with real trials.

    If the command is killed, the same call continues it and gives the same numbers.
    """

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    judge: str | Path
    """Folder of the judge of dreamed frames, or hf://USER/NAME@REV."""
    policies: tuple[str | Path, ...]
    """Folders of policies, folders of such folders, or module:name for a policy of yours. A policy
    has the name of its folder, or the name after the colon."""
    data: DataPath
    """Recorded episodes with reset seeds, held out from all training; trials start from their first frames."""
    out: Path
    """Folder for ranking.json, report.html, videos, and the finished cells."""
    horizon: int
    """Maximum number of steps of a trial."""
    episodes: int | str = 100
    """Dreamed trials of each policy: a number for the first episodes of the data, or which, such as 0:50,60."""
    real: str = "none"
    """The real trials: the environment in which they are made (pusht-position, metaworld:TASK, module:Class), or a JSON
    file of stored ones (scores by policy, like `real.json` beside the shipped policies), or none."""
    real_episodes: int | None = None
    """Number of real trials of each policy; as many as dreamed trials when not given."""
    control: Literal["none", "copy-last"] = "none"
    """`copy-last` ranks in a world whose frames never change."""
    replays: int = 200
    """Optimism test: maximum number of failed real trials, over all policies, that are dreamed again."""
    videos: int = 4
    """Number of videos of the worst disagreements."""
    num_steps: int = 2
    """Denoising steps per frame."""
    num_envs: int = 25
    """Dreams in a batch, and trials in a cell: finished cells are saved."""
    workers: int = os.cpu_count() or 1
    """Processes that share the cells; each has one thread."""
    seed: int = 0
    """Seed of the dreams' noise and of the resampling."""
    columns: Annotated[ColumnOptions, tyro.conf.arg(name="")] = field(default_factory=ColumnOptions)
    """Which columns of the data to read."""
    plan: bool = False
    """At the end print how many dreams and how many real trials tell each pair of policies apart with a power of 80 %,
    and write plan.json; a finished ranking in --out is read and not repeated."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def num_episodes(self) -> int:
        """Dreamed trials of each policy."""
        if isinstance(self.episodes, int):
            return self.episodes
        if any(part.strip().endswith(":") for part in self.episodes.split(",")):
            raise ValueError(f"--episodes {self.episodes}: a range needs an end here, such as 10:60")
        sets = len(self.data) if isinstance(self.data, tuple) else 1
        return sets * len(chosen_episodes(str(self.data), MOST_EPISODES, self.episodes))

    @property
    def selection(self) -> str:
        """Which episodes to read; empty for all."""
        return self.episodes if isinstance(self.episodes, str) else ""

    @property
    def real_table(self) -> Path | None:
        """The file of stored real trials, if there is one."""
        return shipped(self.real) if self.real.endswith(".json") else None

    @property
    def setup(self) -> TrialSetup:
        """The setup of the trials."""
        return TrialSetup(
            world=self.world,
            judge=self.judge,
            data=self.data,
            reading=DataOptions(**asdict(self.columns), episodes=self.selection),
            episodes=self.num_episodes,
            horizon=self.horizon,
            real="none" if self.real_table else self.real,
            stored=self.real_table is not None,
            num_steps=self.num_steps,
            num_envs=min(self.num_envs, self.num_episodes),
            seed=self.seed,
            copy_last=self.control == "copy-last",
            device=self.device,
        )


def rank_policies(config: RankConfig) -> Ranking:
    """Run the trials that are missing, and write `ranking.json` and `report.html`.

    Raises:
        ValueError: A folder holds no policy, two policies have the same name, the world model, the judge,
            the starts and the policies do not fit, or a finished cell was made with another setup.
    """
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
    claim(config.out)
    dreams = cut(["dream"], policies, range(setup.episodes), setup.num_envs)
    tried = setup.episodes if config.real_episodes is None else config.real_episodes
    with_trials = setup.real != "none"
    trials = cut(["real"], policies, range(tried), setup.num_envs) if with_trials else []
    real = None
    if config.real_table is not None:
        real = read_scores(config.real_table, policies)
    optimism, videos = None, []
    with single_thread():
        command_device(config.device)
        run_shown(setup, "trials", [*trials, *dreams], config)
        dream = gather(setup, dreams, config.out)
        if with_trials:
            real = gather(setup, trials, config.out)
            again, failures = replays(setup, policies, config.out, limit=config.replays)
            run_shown(setup, "replays", again, config)
            optimism = imagined_successes(gather(setup, again, config.out), failures)
            videos = film(setup, policies, worst(dream, real, config.videos), config.out)
    ranking = rank(dream, real, seed=config.seed)
    report = {
        "format": 1,
        **ranking.to_json(),
        "optimism": optimism,
        "settings": settings(config, policies),
        "made_with": setup.made_with,
        "trials": trial_rows(dream, real),
    }
    write_json(config.out / "ranking.json", report)
    write_report(report, videos, config.out / "report.html")
    print_ranking(report)
    print(f"{config.out / 'ranking.json'} and {config.out / 'report.html'}")
    if config.plan:
        show_plan(dream, real, config.out)
    return ranking


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
    """Raise a `ValueError` for numbers out of range or settings that contradict each other."""
    for name in ("horizon", "num_envs", "workers"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} is at least 1, got {getattr(config, name)}")
    if config.num_episodes < 1:
        raise ValueError(f"--episodes is at least 1, got {config.episodes}")
    tried = config.real_episodes
    if tried is not None and not 1 <= tried <= config.num_episodes:
        raise ValueError(
            f"--real-episodes is 1 to --episodes, since real starts are dreamed from too; got "
            f"{tried} and {config.num_episodes}"
        )
    if config.real_table is not None and not config.real_table.is_file():
        raise ValueError(f"--real {config.real}: no such file of real trials")
    if config.real_table is None and config.real != "none":
        check_env_name(config.real)


def read_scores(file: Path, names: Mapping[str, object]) -> dict[str, Scores]:
    """Stored real trials of the named policies.

    Raises:
        ValueError: A policy is missing, or the file holds something else.
    """
    try:
        stored = read_object(file)
        missing = sorted(set(names) - set(stored))
        if missing:
            raise ValueError(f"no real trials of {', '.join(missing)}")
        return {name: Scores.from_json(stored[name]) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        said = str(error)
        raise ValueError(said if said.startswith(f"{file}: ") else f"{file}: {said}") from error


def imagined_successes(scores: Mapping[str, Scores], failures: int) -> dict | None:
    """How often failed real trials succeed when they are dreamed again, action by action.

    Returns:
        `score`, `low`, `high` and `n` over all policies, `policies` with the same for each, and
        `failures`, the number of failed trials to choose from; `None` if there was none.
    """
    if not scores:
        return None
    together = np.concatenate([each.outcomes for each in scores.values()])
    policies = {name: asdict(Score.of(each.outcomes)) for name, each in scores.items()}
    return {**asdict(Score.of(together)), "failures": failures, "policies": policies}


def trial_rows(dream: Mapping[str, Scores], real: Mapping[str, Scores] | None) -> list[dict]:
    """Every trial with its seed."""
    rows = []
    for place, scores in (("dream", dream), ("real", real or {})):
        for name, each in scores.items():
            columns = zip(each.seeds, each.outcomes, each.returns, each.steps, strict=True)
            for seed, outcome, total, steps in columns:
                rows.append(
                    {
                        "policy": name,
                        "place": place,
                        "seed": int(seed),
                        "outcome": float(outcome),
                        "return": float(total),
                        "steps": int(steps),
                    }
                )
    return rows


def trials_of(report: Mapping, place: str) -> dict[str, Scores]:
    """The trials of one place (`dream` or `real`) in the contents of a `ranking.json`, by policy."""
    found: dict[str, Scores] = {}
    for policy in report["policies"]:
        name = policy["name"]
        rows = [r for r in report["trials"] if (r["policy"], r["place"]) == (name, place)]
        keys = {"seeds": "seed", "outcomes": "outcome", "returns": "return", "steps": "steps"}
        columns = {column: [row[key] for row in rows] for column, key in keys.items()}
        if rows:
            found[name] = Scores.from_json({"policy": name} | columns)
    return found


def settings(config: RankConfig, policies: Mapping[str, str | Path]) -> dict:
    """The configuration, as JSON can hold it."""
    values = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(config).items()}
    if isinstance(config.data, tuple):
        values["data"] = [str(each) for each in config.data]
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
                processes=config.workers,
                progress=lambda cell: progress.advance(len(cell.starts), f"{cell.policy}, {cell.place}"),
            )
        finally:
            remove_unfinished(config.out)
