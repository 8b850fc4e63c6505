"""Does a policy that is shown a goal adapt to a changed PushT by 20 real rollouts of its own, relabelled?

python benchmarks/adaptation.py --many-goals data/many-goals --demos data/demos --starts data/held-out --out runs/adapt

A policy is cloned from demonstrations of many goals (`benchmarks/many_goals.py`) and of the task; the pictures of its
goal are first frames of success of the task's. Rows, each with `--trials` real trials from the same held-out starts in
the changed environment: `before`, the policy as it is; `adapted`, by `worldmodel adapt`; and two controls with the same
optimiser steps on the same layers: `not relabelled`, the same rollouts with the goal that the policy was shown, and
`old data`, hindsight on the data that the policy was cloned from. `usual` is the policy in the unchanged environment.
Differences are paired by start and seed; the interval resamples starts. Finished rows are kept in --out, so a killed
run continues.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from policy_eval.evaluation import evaluate
from policy_eval.policies.clone import CloneConfig, Demonstrations, clone
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.goal_pictures import write_goals
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from rl_posttrain.adaptation.adapt import ROLLOUTS, adapt, environment, fit_head, rollout_rows
from rl_posttrain.adaptation.config import AdaptConfig
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.training.fit import fit


@dataclass(frozen=True)
class AdaptationConfig:
    """Adapt one policy to one changed environment, with controls."""

    many_goals: Path
    """Demonstrations of many goals, for the clone and for the control `old data`."""
    demos: Path
    """Demonstrations of the task, likewise; they have `next.success`."""
    starts: Path
    """Held-out episodes from whose starts the trials begin."""
    out: Path
    """Folder of the clone, the adapted policies, the trials, and `adaptation.json`."""
    real: str = "pusht-position"
    """The environment."""
    shift: str = "turned-actions"
    """Its change."""
    pictures: int = 8
    """Pictures of the goal."""
    clone_steps: int = 2500
    """Optimiser steps of the clone."""
    trials: int = 100
    """Real trials of every row and seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the rollouts and of the batches."""
    rows: tuple[str, ...] = ("before", "adapted", "not relabelled", "old data", "usual")
    """Rows to do."""
    episodes: int = 20
    """Rollouts."""
    rounds: int = 4
    """Rounds of `worldmodel adapt`."""
    steps: int = 500
    """Optimiser steps after each round."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW at the first step of a round."""


def make_clone(config: AdaptationConfig) -> None:
    """Clone the policy, unless it is there."""
    if (config.out / "clone" / "policy.json").is_file():
        return
    demos = EpisodeCache(open_episodes(config.demos))
    clips = [demos.read(episode, 0, demos.lengths[episode]) for episode in range(config.pictures)]
    pictures = [clip.frames[int(clip.successes.int().argmax()) + 1] for clip in clips]
    write_goals(config.out / "pictures", demos.views, torch.stack(pictures))
    shape = {"head": "flow", "chunk": 8, "replan_after": 4, "views": ("top",), "relative_to": {0: 0, 1: 1}}
    data = config.many_goals, config.demos
    clone(CloneConfig(data, config.out / "clone", goals=config.out / "pictures", steps=config.clone_steps, **shape))


def settings(config: AdaptationConfig, seed: int) -> AdaptConfig:
    """The adaptation of a seed."""
    shared = {name: getattr(config, name) for name in ("real", "shift", "episodes", "rounds", "steps")}
    return AdaptConfig(
        **shared,
        policy=config.out / "clone",
        out=config.out / f"adapted-seed-{seed}",
        learning_rate=config.learning_rate,
        seed=seed,
        device="cpu",
    )


def adapted(config: AdaptConfig) -> ClonedPolicy:
    """The policy that `worldmodel adapt` writes, and how long it takes."""
    if not (config.out / "time.json").is_file():
        began, cpu = time.monotonic(), time.process_time()
        adapt(config)
        write_json(config.out / "time.json", {"wall": time.monotonic() - began, "cpu": time.process_time() - cpu})
    return ClonedPolicy.load(config.out)


def not_relabelled(config: AdaptConfig) -> ClonedPolicy:
    """The head learns from the same rollouts, with the goal that they were made for."""
    policy = ClonedPolicy.load(config.policy)
    rows = rollout_rows(policy, open_episodes(tuple(sorted((config.out / ROLLOUTS).iterdir()))))
    with torch.no_grad():
        features = torch.cat(
            [policy.features(*each) for each in zip(rows.frames.split(256), rows.states.split(256), strict=True)]
        )
    plans = (rows.targets - policy.action_mean) / policy.action_std
    generator = torch.Generator().manual_seed(config.seed)

    def loss_of(step: int) -> Float[Tensor, ""]:
        pick = torch.randint(len(plans), (4 * config.batch,), generator=generator)
        return policy.loss(features[pick], plans[pick], generator).mean()

    fit(policy.head, loss_of, steps=config.steps, learning_rate=config.learning_rate, name="not relabelled")
    return policy


def old_data(config: AdaptConfig, data: tuple[Path, ...]) -> ClonedPolicy:
    """The head learns more from a part of the data that it was cloned from, as many episodes as were rolled out."""
    policy = ClonedPolicy.load(config.policy)
    source = EpisodeCache(open_episodes(data))
    rows = rollout_rows(policy, source)
    fit_head(policy, first_episodes(rows, 10 * config.episodes), config)
    return policy


def first_episodes(rows: Demonstrations, number: int) -> Demonstrations:
    """The rows of the first episodes."""
    lengths = rows.lengths[:number]
    end = sum(lengths)
    return replace(
        rows, frames=rows.frames[:end], states=rows.states[:end], targets=rows.targets[:end], lengths=lengths
    )


def measure(config: AdaptationConfig, row: str, seed: int, make: Callable[[], ClonedPolicy]) -> Scores:
    """Real trials of a row, unless they are there."""
    file = config.out / f"{row.replace(' ', '-')}-seed-{seed}.json"
    if file.is_file():
        return Scores.from_json(read_object(file))
    policy = make()
    how = replace(settings(config, seed), shift="" if row == "usual" else config.shift)
    envs = RealEnvs(
        lambda: environment(how, policy), Starts(open_episodes(config.starts), range(config.trials)), num_envs=10
    )
    scores = evaluate(policy, envs, name=row, horizon=how.horizon)
    envs.close()
    write_json(file, scores.to_json())
    print(f"{row}, seed {seed}: {scores.mean:.2f} of {len(scores)}", flush=True)
    return scores


def gain(config: AdaptationConfig, row: list[Scores], other: list[Scores]) -> tuple[float, tuple[float, float] | None]:
    """Mean difference of two rows, seed by seed, and its interval over starts; a row of one policy has one seed."""
    pairs = zip(row, other * len(row) if len(other) == 1 else other, strict=True)
    gains = np.mean([a.outcomes - b.outcomes for a, b in pairs], axis=0)
    return float(gains.mean()), bootstrap_interval(gains, np.arange(len(gains)), resamples=4000)


def main(config: AdaptationConfig) -> None:
    """Adapt, measure, write, print."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    make_clone(config)
    makers = {
        "before": lambda how: ClonedPolicy.load(how.policy),
        "usual": lambda how: ClonedPolicy.load(how.policy),
        "adapted": adapted,
        "not relabelled": not_relabelled,
        "old data": lambda how: old_data(how, (config.demos, config.many_goals)),
    }
    scores: dict[str, list[Scores]] = {}
    for seed in config.seeds:
        for row in config.rows:
            if row in ("before", "usual", "old data") and seed != config.seeds[0]:
                continue  # the policy is the same, and so are its plans
            scores.setdefault(row, []).append(
                measure(config, row, seed, lambda row=row, seed=seed: makers[row](settings(config, seed)))
            )
    lines, found = [], {}
    for row, each in scores.items():
        points, interval = gain(config, each, scores["before"])
        found[row] = {"trials": [one.to_json() for one in each], "gain": points, "interval": interval}
        shown = "-" if row == "before" else f"{points:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"
        lines.append(
            [row, ", ".join(f"{one.mean:.2f}" for one in each), f"{np.mean([s.mean for s in each]):.2f}", shown]
        )
    print(table(["row", "real success by seed", "mean", "minus before, 95% interval"], lines))
    times = {seed: read_object(config.out / f"adapted-seed-{seed}" / "time.json") for seed in config.seeds}
    write_json(config.out / "adaptation.json", {"shift": config.shift, "times": times, "rows": found})


if __name__ == "__main__":
    main(tyro.cli(AdaptationConfig))
