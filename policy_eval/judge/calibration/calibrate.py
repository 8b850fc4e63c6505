"""Set a judge's threshold so that dreams succeed as often as reality did. `worldmodel calibrate`.

A judge that is right on real frames can still accept too many dreamed ones, which are blurred and
drift. The order of policies hardly depends on the threshold, but their success rates do. So the
policies act in dreams from the starts of their own real rollouts, and the threshold is set so that
as many of these dreams succeed as rollouts did. It does not change if the difference may be chance:
otherwise, where scores are near 0 or 1, a few episodes would decide.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from gymnasium.vector import AutoresetMode
from jaxtyping import Float64

from policy_eval.evaluation import evaluate
from policy_eval.judge.calibration.page import meaning, write_page
from policy_eval.judge.find import load_trained
from policy_eval.judge.goals.judge import GoalJudge
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.policies.policy import Policy
from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.data.lerobot.read import recorded_policies
from worldmodel.data.options import ColumnOptions, DataOptions, chosen_episodes
from worldmodel.display.progress import ProgressLine
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import write_json
from worldmodel.model.folder import check_out
from worldmodel.model.precision import command_device
from worldmodel.processes import single_thread
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class CalibrateConfig:
    """Set a judge's threshold so that dreams succeed as often as reality did."""

    world: str | Path
    """Folder of the world model, or hf://USER/NAME@REV."""
    judge: str | Path
    """Folder of the judge, or hf://USER/NAME@REV."""
    policies: tuple[str | Path, ...]
    """Folders of policies, folders of such folders, module:name for a policy of yours, lerobot:FOLDER for one that
    lerobot saved, or ws://HOST:PORT for one behind a server of openpi's protocol."""
    data: Path
    """Real rollouts of these policies, which are found by their names. No rollout may start where policies are ranked,
    and neither the world model nor the judge should have been trained on the rollouts."""
    out: Path
    """Folder of the judge with its new threshold, and of `calibration.json`."""
    horizon: int
    """Maximum number of actions of a trial. A world model with a stride holds each action for so many frames, so the
    policies should have acted at the same interval in the rollouts, of which --horizon times that many frames count."""
    episodes: int | str | None = None
    """Rollouts to use: a number means the first ones, `0:50,60` means 0 to 49 and 60; by default all."""
    skip: int = 0
    """Number of rollouts to leave out at the beginning, because the world model or the judge was trained on them. With
    `--episodes 50:100` you leave out the first 50, too."""
    num_envs: int = 24
    """Number of dreams that run side by side."""
    num_steps: int = 2
    """Denoising steps per frame."""
    seed: int = 0
    """Seed of the dreams."""
    always: bool = False
    """Change the threshold even if the difference between dreams and rollouts may be chance."""
    overwrite: bool = False
    """Replace what an earlier run left in --out."""
    columns: Annotated[ColumnOptions, tyro.conf.arg(name="")] = field(default_factory=ColumnOptions)
    """Which columns of the data to read."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


class Listener:
    """A judge that never calls a success and remembers the highest score of every stream."""

    def __init__(self, judge: LearnedJudge | GoalJudge):
        self.judge = judge
        self.highest: Float64[np.ndarray, "n"] | None = None

    def __call__(self, observation: Observation) -> Verdict:
        """The judge's reward, and no success."""
        scores, rewards = self.judge.predict(observation.frames)
        heard = scores.double().cpu().numpy()
        self.highest = heard if self.highest is None else np.maximum(self.highest, heard)
        return Verdict(rewards, scores > 1)


def calibrate_judge(config: CalibrateConfig) -> dict:
    """Dream, set the threshold, write the judge; returns what `calibration.json` holds.

    Raises:
        ValueError: There are fewer rollouts than asked for, a policy has none, or something does
            not fit.
    """
    check_out(config.out, "judge.json", overwrite=config.overwrite)
    device = command_device(config.device)
    world = WorldModel.load(config.world, device)
    reading = DataOptions(**asdict(config.columns))
    source = open_episodes(config.data, size=tuple(world.size), views=world.views, options=reading)
    specs = find_policies(config.policies)
    everyone = recorded_policies(config.data)
    actors = chosen_actors(config, source.name, [everyone[origin.number] for origin in source.origins])
    rows = rows_of(source.name, actors, list(specs))
    policies = {name: load_policy(spec, device) for name, spec in specs.items()}
    judge = load_trained(config.judge, device)
    with single_thread():
        scores = dreamt_scores(config, world, judge, policies, source, rows)
    real = real_successes(source, [row for mine in rows.values() for row in mine], config.horizon * world.stride)
    before = judge.threshold
    judge.threshold, difference = new_threshold(scores, real, before, always=config.always)
    found = {
        "rollouts": source.name,
        "episodes": len(real),
        "by_others": len(actors) - len(real),
        "real": float(real.mean()),
        "dreamt_before": float((scores > before).mean()),
        "difference_before": difference and list(difference),
        "dreamed": float((scores > judge.threshold).mean()),
        "threshold_before": before,
        "threshold": judge.threshold,
    }
    judge.save(config.out)
    write_json(config.out / "calibration.json", found)
    write_page(found, scores, config.out / "report.html")
    print(json.dumps(found, indent=2))
    print("\n".join([*meaning(found), str(config.out / "report.html")]))
    return found


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


def dreamt_scores(
    config: CalibrateConfig,
    world: WorldModel,
    judge: LearnedJudge | GoalJudge,
    policies: Mapping[str, Policy],
    source: EpisodeSource,
    rows: Mapping[str, Sequence[int]],
) -> Float64[np.ndarray, "e"]:
    """Highest score of a dream from the start of every rollout, by the policy that acted there."""
    scores = []
    config.out.mkdir(parents=True, exist_ok=True)
    total, log = sum(map(len, rows.values())), config.out / "calibrate.log"
    with ProgressLine("calibrate", total, unit="dreams", log=log) as progress:
        for name, mine in rows.items():
            starts, listener = Starts(source, mine), Listener(judge)
            dream = DreamEnv(
                world,
                starts,
                listener,
                num_envs=min(config.num_envs, len(mine)),
                horizon=config.horizon,
                num_steps=config.num_steps,
                seed=config.seed,
                autoreset_mode=AutoresetMode.DISABLED,
            )
            for first in range(0, len(mine), dream.num_envs):
                part = range(first, min(first + dream.num_envs, len(mine)))
                listener.highest = None
                evaluate(policies[name], dream, starts=part, horizon=config.horizon)
                scores.append(listener.highest[: len(part)])
                progress.advance(len(part))
    return np.concatenate(scores)


def real_successes(source: EpisodeSource, episodes: Sequence[int], horizon: int) -> Float64[np.ndarray, "e"]:
    """1 for every episode with a success within `horizon` actions.

    Raises:
        ValueError: The data has no `next.success`.
    """
    outcomes = []
    for episode in episodes:
        clip = source.read(episode, 0, source.lengths[episode])
        if clip.successes is None:
            raise ValueError(f"{source.name}: no next.success, which is needed to set a threshold")
        outcomes.append(float(clip.successes[:horizon].any()))
    return np.array(outcomes)


def new_threshold(
    scores: Float64[np.ndarray, "e"], real: Float64[np.ndarray, "e"], before: float, *, always: bool
) -> tuple[float, tuple[float, float] | None]:
    """The threshold that matches the rollouts, or the one before if dreams differ from them by chance alone.

    Args:
        scores: Highest score of every dream.
        real: 1 for every rollout that succeeded, else 0.
        before: The threshold so far.
        always: Whether it moves even where the difference may be chance.

    Returns:
        The threshold, and the 95% interval of the success rate of dreams minus that of rollouts; `None` when there
        are too few.
    """
    difference = bootstrap_interval((scores > before) - real, np.arange(len(real)))
    by_chance = difference is None or difference[0] <= 0 <= difference[1]
    moves = always or not by_chance
    return matching_threshold(scores, real.mean()) if moves else before, difference


def matching_threshold(scores: Float64[np.ndarray, "e"], share: float) -> float:
    """A threshold that `share` of the scores exceed, halfway between two of them."""
    ranked = np.sort(scores)[::-1]
    above = round(share * len(ranked))
    low = ranked[above] if above < len(ranked) else 0.0
    high = ranked[above - 1] if above else 1.0
    return float((low + high) / 2)
