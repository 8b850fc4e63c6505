"""Set a judge's thresholds by real rollouts. `worldmodel calibrate`.

A judge that is right on real frames can still accept too many dreamed ones, which are blurred and
drift. The order of policies hardly depends on the threshold, but their success rates do. So the
policies act in dreams from the starts of their own real rollouts, and the threshold is set so that
as many of these dreams succeed as rollouts did. It does not change if the difference may be chance:
otherwise, where scores are near 0 or 1, a few episodes would decide.

With `--error` there are two thresholds, between which the judge is unsure; see `conformal.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Float64

from policy_eval.judge.calibration.conformal import Band, conformal_band
from policy_eval.judge.calibration.page import meaning, write_page
from policy_eval.judge.calibration.scores import Dreamer, Dreaming, dreamt_scores, real_successes, recorded_scores
from policy_eval.judge.calibration.threshold import new_threshold
from policy_eval.judge.find import load_trained
from policy_eval.judge.goals.judge import GoalJudge
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.find import find_policies, load_policy
from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.lerobot.read import recorded_policies
from worldmodel.data.options import ColumnOptions, DataOptions, chosen_episodes
from worldmodel.display.ranges import Count, ErrorRate, Weight, Whole, check_ranges
from worldmodel.files import write_json
from worldmodel.model.folder import check_out
from worldmodel.model.precision import choose_device, command_device
from worldmodel.processes import single_thread, work_through
from worldmodel.processes.workers import read_workers
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class CalibrateConfig:
    """Set a judge's threshold so that dreams succeed as often as reality did, or so that it seldom errs."""

    judge: str | Path
    """Folder of the judge, or hf://USER/NAME@REV."""
    data: Path
    """Real rollouts of --policies, which are found by their names. No rollout may start where policies are ranked, and
    neither the world model nor the judge should have been trained on the rollouts."""
    out: Path
    """Folder of the judge with its new thresholds, of `calibration.json` and of a page, report.html."""
    horizon: Count
    """Maximum number of actions of a trial. A world model with a stride holds each action for so many frames, so the
    policies should have acted at the same interval in the rollouts, of which --horizon times that many frames count."""
    world: str | Path | None = None
    """Folder of the world model, or hf://USER/NAME@REV. With --error you can leave it out: then the judge looks at the
    frames of the rollouts themselves, and what it promises holds for real frames only."""
    policies: tuple[str | Path, ...] = ()
    """Folders of policies, folders of such folders, module:name for a policy of yours, lerobot:FOLDER for one that
    lerobot saved, or ws://HOST:PORT for one behind a server of openpi's protocol. Goes with --world."""
    error: ErrorRate | None = None
    """Largest share of failures that the judge may call a success, and of successes that it may call a failure. It gets
    a second threshold, and in between it is unsure: such trials are left out of a ranking, and counted. With 0.1 it
    takes at least 9 failures and 9 successes. By default there is one threshold, and dreams succeed as often as
    rollouts."""
    episodes: Count | str | None = None
    """Rollouts to use: a number means the first ones, `0:50,60` means 0 to 49 and 60; by default all."""
    skip: Whole = 0
    """Number of rollouts to leave out at the beginning, because the world model or the judge was trained on them. With
    `--episodes 50:100` you leave out the first 50, too."""
    num_envs: Count = 24
    """Number of dreams that run side by side."""
    num_steps: Count = 2
    """Denoising steps per frame."""
    seed: Whole = 0
    """Seed of the dreams."""
    always: bool = False
    """Change the threshold even if the difference between dreams and rollouts may be chance."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    workers: Whole | str = 1
    """Number of processes that share the dreams, each with one thread; ray, a Ray cluster that runs here or that is
    started; or ray://HOST:PORT, another one."""
    gpus_per_worker: Weight | None = None
    """Share of a GPU that each worker of a Ray cluster takes; with 0.25 four workers share one. By default a whole one
    where --device is CUDA."""
    columns: Annotated[ColumnOptions, tyro.conf.arg(name="")] = field(default_factory=ColumnOptions)
    """Which columns of the data to read."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def calibrate_judge(config: CalibrateConfig) -> dict:
    """Score the rollouts, set the thresholds, write the judge; returns what `calibration.json` holds.

    Raises:
        ValueError: There are fewer rollouts than asked for, a policy has none, there are too few of one outcome, or
            something does not fit.
    """
    check_ranges(config)
    check(config)
    check_out(config.out, "judge.json", overwrite=config.overwrite)
    device = command_device(config.device)
    judge = load_trained(config.judge, device)
    config.out.mkdir(parents=True, exist_ok=True)
    with single_thread():
        name, scores, real, others = dreams_and_outcomes(config, judge, device)
    found = {"rollouts": name, "episodes": len(real), "by_others": others, "real": float(real.mean())}
    if config.error is None:
        found |= match(judge, scores, real, always=config.always)
    else:
        found |= doubt(judge, scores, real, config.error, name) | {"frames": "dreamed" if config.world else "recorded"}
    judge.save(config.out)
    write_json(config.out / "calibration.json", found)
    write_page(found, scores, config.out / "report.html")
    print(json.dumps(found, indent=2))
    print("\n".join([*meaning(found), str(config.out / "report.html")]))
    return found


def check(config: CalibrateConfig) -> None:
    """Raise a `ValueError` for options that contradict each other."""
    if config.error is None and config.world is None:
        raise ValueError("calibrate needs --world and --policies, or --error, with which real frames are enough")
    if (config.world is None) != (not config.policies):
        have, lack = ("--policies", "--world") if config.policies else ("--world", "--policies")
        raise ValueError(f"{have} is given and {lack} is not: policies dream in a world model")
    read_workers(config.workers, config.gpus_per_worker)
    if config.error is not None and config.always:
        raise ValueError(f"--always goes with one threshold, --error {config.error:g} sets two")


def dreams_and_outcomes(
    config: CalibrateConfig, judge: LearnedJudge | GoalJudge, device: torch.device
) -> tuple[str, Float64[np.ndarray, "e"], Float64[np.ndarray, "e"], int]:
    """Name of the data, scores and real outcomes of the rollouts, and the number of those that were left out.

    The scores are those of dreams, or of the recorded frames where there is no world model.
    """
    if config.world is None:
        source, actors = rollouts_of(config, judge.shape.size, judge.shape.views)
        scores = recorded_scores(judge, source, list(actors), config.horizon, config.out / "calibrate.log")
        return source.name, scores, real_successes(source, list(actors), config.horizon), 0
    dreamer, others = open_dreamer(config, judge, device)
    with closing(dreamed(config, dreamer)) as results:
        scores = dreamt_scores(dreamer, results)
    source, episodes = dreamer.source, [row for mine in dreamer.rows.values() for row in mine]
    return source.name, scores, real_successes(source, episodes, config.horizon * dreamer.world.stride), others


def rollouts_of(
    config: CalibrateConfig, size: tuple[int, int], views: tuple[str, ...]
) -> tuple[EpisodeSource, dict[int, str | None]]:
    """The rollouts, and which policy acted in each of the chosen ones."""
    reading = DataOptions(**asdict(config.columns))
    source = open_episodes(config.data, size=size, views=views, options=reading)
    everyone = recorded_policies(config.data, reading.cache_gb)
    return source, chosen_actors(config, source.name, [everyone[origin.number] for origin in source.origins])


def open_dreamer(config: CalibrateConfig, judge: LearnedJudge | GoalJudge, device: torch.device) -> tuple[Dreamer, int]:
    """Load what the dreams need; also returns the number of rollouts by others."""
    world = WorldModel.load(config.world, device)
    source, actors = rollouts_of(config, tuple(world.size), world.views)
    specs = find_policies(config.policies)
    rows = rows_of(source.name, actors, list(specs))
    policies = {name: load_policy(spec, device) for name, spec in specs.items()}
    log = config.out / "calibrate.log"
    dreaming = Dreaming(config.num_envs, config.horizon, config.num_steps, config.seed, log)
    return Dreamer(dreaming, world, judge, policies, source, rows), len(actors) - sum(map(len, rows.values()))


def dreamed(config: CalibrateConfig, dreamer: Dreamer) -> Iterator[tuple[int, Float64[np.ndarray, "_"]]]:
    """The number of each part and its scores, as soon as it was dreamed, here or by the workers."""
    workers = read_workers(config.workers, config.gpus_per_worker, choose_device(config.device).type)
    if workers.alone:
        yield from ((number, dreamer.scores(part)) for number, part in enumerate(dreamer.parts))
        return
    theirs = replace(config, device=workers.device(config.device))
    yield from work_through(_dream, dreamer.parts, workers=workers, start=_prepare, start_with=(theirs,))


def _prepare(config: CalibrateConfig) -> None:
    """Set up a worker with one thread."""
    global _dreamer
    torch.set_num_threads(1)
    device = choose_device(config.device)
    _dreamer, _ = open_dreamer(config, load_trained(config.judge, device), device)


def _dream(part: tuple[str, int]) -> Float64[np.ndarray, "_"]:
    return _dreamer.scores(part)


def match(
    judge: LearnedJudge | GoalJudge, scores: Float64[np.ndarray, "e"], real: Float64[np.ndarray, "e"], *, always: bool
) -> dict:
    """Set the threshold with which as many dreams succeed as rollouts; what was found."""
    before = judge.threshold
    judge.threshold, difference = new_threshold(scores, real, before, always=always)
    judge.doubt = None
    return {
        "dreamt_before": float((scores > before).mean()),
        "difference_before": difference and list(difference),
        "dreamed": float((scores > judge.threshold).mean()),
        "threshold_before": before,
        "threshold": judge.threshold,
    }


def doubt(
    judge: LearnedJudge | GoalJudge,
    scores: Float64[np.ndarray, "e"],
    real: Float64[np.ndarray, "e"],
    error: float,
    name: str,
) -> dict:
    """Set the two thresholds of a judge that may err as seldom as `error`; what was found."""
    before = Band(judge.threshold, judge.doubt)
    band = conformal_band(scores, real, judge.threshold, error, name)
    judge.threshold, judge.doubt = band.threshold, band.doubt
    return {
        "error": error,
        "failures": int((real == 0).sum()),
        "successes": int((real == 1).sum()),
        "before": counts(before.verdicts(scores), real),
        "now": counts(band.verdicts(scores), real),
        "threshold_before": before.threshold,
        "threshold": band.threshold,
        "doubt": band.doubt,
    }


def counts(verdicts: Float64[np.ndarray, "e"], real: Float64[np.ndarray, "e"]) -> dict[str, int]:
    """How many failures are called a success, how many successes a failure, and at how many trials it is unsure."""
    return {
        "false_successes": int(((verdicts == 1) & (real == 0)).sum()),
        "false_failures": int(((verdicts == 0) & (real == 1)).sum()),
        "unsure": int(np.isnan(verdicts).sum()),
    }


def chosen_actors(config: CalibrateConfig, data: str, recorded: Sequence[str | None]) -> dict[int, str | None]:
    """Which policy acted in each of the chosen episodes; `recorded` names the policy of every episode.

    Raises:
        ValueError: There are fewer rollouts than asked for, or all of them are left out.
    """
    if isinstance(config.episodes, str):
        if config.skip:
            raise ValueError(f"--skip {config.skip} goes with a number of rollouts, --episodes is {config.episodes}")
        return {episode: recorded[episode] for episode in chosen_episodes(data, len(recorded), config.episodes)}
    episodes = len(recorded) if config.episodes is None else config.episodes
    if not 0 <= config.skip < episodes <= len(recorded):
        raise ValueError(f"{data}: has {len(recorded)} rollouts, --episodes is {episodes}, --skip is {config.skip}")
    return {episode: recorded[episode] for episode in range(config.skip, episodes)}


def rows_of(data: str, actors: Mapping[int, str | None], policies: Sequence[str]) -> dict[str, list[int]]:
    """The episodes that each policy acted in; those by others are left out.

    Raises:
        ValueError: A policy acted in none.
    """
    rows = {name: [e for e, actor in actors.items() if actor == name] for name in policies}
    missing = [name for name, mine in rows.items() if not mine]
    if missing:
        names = sorted({str(actor) for actor in actors.values()})
        raise ValueError(f"{data}: no rollouts by {missing}, there are those by {names}")
    return rows
