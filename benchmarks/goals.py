"""How good is a judge that has only pictures of the goal? Rank correlation with the true reward, and steering by it.

python benchmarks/goals.py --play data/play --held-out data/held-out --pictures-from data/demos --out runs/goals

The judge learns from `--play` alone, and, if `--demos` is given, from both. The true reward is used to measure, never
to learn. Pictures of the goal are the first frames of success in `--pictures-from`. With `--own-goals` the goal moves:
each held-out episode is judged by pictures of its own goal, frames of success of the episode there that has the same
reset seed. What is trained or tried already is kept in --out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor

from demos.page.live_ranking import FreshEpisodes
from policy_eval.evaluation import evaluate
from policy_eval.judge.goals.judge import GoalJudge, GoalNetwork, GoalShape
from policy_eval.judge.goals.measure import Scored, near_and_far, reached_threshold, spearman_of
from policy_eval.judge.goals.pictures import NearestPicture
from policy_eval.judge.goals.train import fit_goals
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.goal_pictures import read_goals, write_goals
from policy_eval.policies.policy import Policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.statistics.resampling import wilson_interval
from policy_eval.steering.scorers import by_value, nearest_the_mean
from policy_eval.steering.steered import SteeredPolicy
from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.display.progress import ProgressLine
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.world_model import WorldModel

OWN = 8
"""Pictures of an episode's own goal."""
COLUMNS = ("seeds", "outcomes", "returns", "steps")


@dataclass(frozen=True)
class GoalsConfig:
    """Rank correlation with the true reward, and steering, by a judge that has only pictures of the goal."""

    play: Path
    """Episodes to learn from, without labels."""
    held_out: Path
    """Episodes with the true reward, to measure on."""
    pictures_from: Path
    """Episodes whose first frames of success are the pictures of the goal."""
    demos: Path | None = None
    """More episodes to learn from, for the second row."""
    own_goals: bool = False
    """The goal moves: each held-out episode is judged by pictures of the episode with the same reset seed."""
    pictures: tuple[int, ...] = (1, 4, 8, 16)
    """Numbers of goal pictures."""
    steer: tuple[str, ...] = ()
    """Judges to steer by: a row's name and its number of pictures, as in play:8."""
    policy: Path = Path("checkpoints/policies/pusht-position/chunk-4")
    """Who is steered."""
    world: str = "checkpoints/pusht"
    """Who imagines."""
    real: str = "pusht-position"
    """Where it is tried."""
    seed: int = 200_000
    """Reset seed of the first trial."""
    trials: int = 200
    """Trials of every row."""
    horizon: int = 60
    """Most steps of a trial."""
    k: int = 4
    """Plans to choose from."""
    sigma: float = 40.0
    """How far they lie apart, in raw units of the action."""
    lookahead: int = 6
    """Imagined steps."""
    num_envs: int = 20
    """Simulators stepped together."""
    episodes: int = 120
    """Held-out episodes to measure on, at most."""
    steps: int = 2000
    """Optimiser steps of each judge."""
    batch: int = 64
    """Frames per step."""
    farthest: int = 40
    """Steps from the goal at which the reward is 0."""
    out: Path = Path("runs/goals")
    """The judges, and the trials."""


def main(config: GoalsConfig) -> None:
    """Train, measure, try, and print the tables."""
    held_out = EpisodeCache(open_episodes(config.held_out))
    pictures = solved_frames(EpisodeCache(open_episodes(config.pictures_from)))
    data = {"play": config.play} | ({"play and demos": (config.play, config.demos)} if config.demos else {})
    rows = []
    judges = {}
    for name, path in data.items():
        judges[name] = judge = trained(config, name, path, [each[0] for each in pictures.values()])
        rows += (
            own_goals(config, name, judge, held_out, pictures)
            if config.own_goals
            else [correlation(config, name, judge, number, held_out) for number in config.pictures]
        )
    print(table(["learned from", "pictures", "rank correlation", "95% interval", "of pixels"], rows))
    if config.steer:
        print()
        print(
            table(
                ["plans chosen by", "real success", "trials", "95% interval", "minus alone", "95% interval"],
                steering(config, judges),
            )
        )


def solved_frames(source: EpisodeSource) -> dict[int, UInt8[Tensor, "g v H W 3"]]:
    """Up to eight frames of success, the first one included, of every episode that has one, by its reset seed."""
    found = {}
    for episode in range(len(source)):
        solved = source.columns(episode).successes
        if solved.any():
            places = solved.nonzero()[:, 0] + 1
            frames = source.read(episode, 0, source.lengths[episode]).frames
            last = min(int(places[-1]), len(frames) - 1)
            chosen = torch.linspace(int(places[0]), last, OWN).round().long().unique()
            found[source.reset_seed(episode)] = frames[[int(place) for place in chosen if solved[place - 1]]]
    return found


def trained(
    config: GoalsConfig, name: str, data: Path | tuple[Path, ...], pictures: Sequence[UInt8[Tensor, "v H W 3"]]
) -> GoalJudge:
    """The judge of a row, from --out if it is there; the last eighth of the episodes sets its threshold."""
    folder = config.out / name.replace(" ", "-")
    if (folder / "judge.json").is_file():
        return GoalJudge.load(folder)
    source = EpisodeCache(open_episodes(data))
    shape = GoalShape(tuple(source.views), tuple(source.size), config.farthest)
    torch.manual_seed(0)
    network = GoalNetwork(shape)
    kept = len(source) - max(len(source) // 8, 1)
    options = {"steps": config.steps, "batch": config.batch, "learning_rate": 1e-3, "seed": 0}
    fit_goals(network, source, range(kept), farthest=config.farthest, log=folder / "train.log", **options)
    write_goals(folder / "pictures", shape.views, torch.stack(pictures[: max(config.pictures)]))
    judge = GoalJudge(shape, read_goals(folder / "pictures", shape.views, shape.size), network=network)
    judge.threshold = reached_threshold(near_and_far(judge, source, range(kept, len(source))))
    judge.save(folder)
    return judge


def correlation(config: GoalsConfig, name: str, judge: GoalJudge, number: int, held_out: EpisodeSource) -> list[str]:
    """A row of the table: the first `number` pictures are the goal."""
    some = judge.with_goals(judge.goals[:number])
    clips = [held_out.read(e, 0, held_out.lengths[e]) for e in range(min(config.episodes, len(held_out)))]
    found, pixels = (
        spearman_of([Scored(score(c.frames[1:]).double().numpy(), c.rewards.double().numpy()) for c in clips])
        for score in (some.score, NearestPicture(some.goals).score)
    )
    return [name, str(number), f"{found[0]:.2f}", f"{found[1]:.2f} to {found[2]:.2f}", f"{pixels[0]:.2f}"]


def own_goals(
    config: GoalsConfig,
    name: str,
    judge: GoalJudge,
    held_out: EpisodeSource,
    pictures: dict[int, UInt8[Tensor, "g v H W 3"]],
) -> list[list[str]]:
    """Rows of the table: pictures of other goals, and the picture of each episode's own goal."""
    known = [e for e in range(len(held_out)) if held_out.reset_seed(e) in pictures][: config.episodes]
    names = (f"up to {OWN}, its own", "1, its own", f"{len(judge.goals)}, of other goals")
    scored: dict[str, list[list[Scored]]] = {name: [[], []] for name in names}
    for episode in known:
        clip = held_out.read(episode, 0, held_out.lengths[episode])
        own = pictures[held_out.reset_seed(episode)]
        for found, goals in zip(scored.values(), (own, own[:1], judge.goals), strict=True):
            for each, score in zip(found, (judge.with_goals(goals).score, NearestPicture(goals).score), strict=True):
                each.append(Scored(score(clip.frames[1:]).double().numpy(), clip.rewards.double().numpy()))
    rows = []
    for what, (mine, pixels) in scored.items():
        value, low, high = spearman_of(mine)
        rows.append([name, what, f"{value:.2f}", f"{low:.2f} to {high:.2f}", f"{spearman_of(pixels)[0]:.2f}"])
    return rows


def steering(config: GoalsConfig, judges: dict[str, GoalJudge]) -> list[list[str]]:
    """Try the policy alone and steered; finished rows are kept in --out."""
    policy, world = ClonedPolicy.load(config.policy), WorldModel.load(config.world)
    options = {"sigma": config.sigma, "lookahead": config.lookahead, "num_steps": 1}
    policies: dict[str, Policy] = {"alone": SteeredPolicy(policy, nearest_the_mean, k=1, sigma=0.0)}
    for name in config.steer:
        row, number = name.split(":")
        judge = judges[row].with_goals(judges[row].goals[: int(number)])
        policies[name] = SteeredPolicy(policy, by_value(judge), world, k=config.k, **options)
    file = config.out / "trials.json"
    settings = {key: str(getattr(config, key)) for key in ("policy", "world", "real", "seed", "horizon", "k")}
    settings |= {key: str(value) for key, value in options.items()}
    stored = json.loads(file.read_text()) if file.is_file() else {"settings": settings, "rows": {}}
    if stored["settings"] != settings:
        raise SystemExit(f"{file} is of other settings: {stored['settings']}")
    found = {name: Scores.from_json(row) for name, row in stored["rows"].items()}
    starts = Starts(FreshEpisodes(config.real, world, range(config.seed, config.seed + config.trials)))
    envs = RealEnvs(lambda: make_env(config.real), starts, num_envs=min(config.num_envs, config.trials))
    for name, each in policies.items():
        done = len(found[name]) if name in found else 0
        with ProgressLine(name, config.trials, unit="trials", completed=done) as progress:
            for first in range(done, config.trials, envs.num_envs):
                part = range(first, min(first + envs.num_envs, config.trials))
                scores = evaluate(each, envs, name=name, starts=part, horizon=config.horizon)
                found[name] = joined(found[name], scores) if name in found else scores
                progress.advance(len(part), note=f"success {found[name].mean:.3f}")
                write_json(file, {"settings": settings, "rows": {key: row.to_json() for key, row in found.items()}})
    envs.close()
    return [success_row(found[name], found["alone"]) for name in policies]


def joined(first: Scores, second: Scores) -> Scores:
    """The trials of both."""
    columns = (np.concatenate([getattr(each, name) for each in (first, second)]) for name in COLUMNS)
    return Scores(first.policy, *columns)


def success_row(scores: Scores, alone: Scores) -> list[str]:
    """Success with its interval, and the paired difference from the policy alone."""
    low, high = wilson_interval(scores.mean, len(scores))
    cells = [scores.policy, f"{scores.mean:.3f}", str(len(scores)), f"{low:.2f} to {high:.2f}"]
    if scores is alone:
        return [*cells, "-", "-"]
    order = pair_order(scores, alone)
    return [*cells, f"{order.difference:+.2f}", f"{order.low:+.2f} to {order.high:+.2f}"]


if __name__ == "__main__":
    main(tyro.cli(GoalsConfig))
