"""Does a policy that is shown a goal adapt to a changed PushT by 20 real rollouts of its own, relabelled?

python benchmarks/adaptation.py --policy runs/policy --clone-data data/many-goals data/demos --out runs/adaptation

Rows, each with `--trials` real trials from the same fresh starts, in the changed environment:
`before`, the policy as it is; `adapted`, by `worldmodel adapt`; and two controls with the same optimiser steps on the
same layers: `not relabelled`, the same rollouts with the goal that the policy was shown, and `old data`, hindsight on
the data that the policy was cloned from. `usual` is the policy in the unchanged environment. Differences are paired by
start and seed; the interval resamples starts. Finished rows are kept in --out, so a killed run continues.
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

from policy_eval.policies.clone import Demonstrations
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.scores import Scores
from rl_posttrain.imagination.hindsight.adapt import (
    ROLLOUTS,
    adapt,
    environment,
    first_seed,
    fit_head,
    rollout_rows,
    trials,
)
from rl_posttrain.imagination.hindsight.config import AdaptConfig
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.training.fit import fit


@dataclass(frozen=True)
class AdaptationConfig:
    """Adapt one policy to one changed environment, with controls."""

    policy: Path
    """The policy, made by `worldmodel clone --goals`."""
    clone_data: tuple[Path, ...]
    """The data that it was cloned from, for the control `old data`."""
    out: Path
    """Folder of the adapted policies, the trials, and `adaptation.json`."""
    real: str = "pusht-position"
    """The environment."""
    shift: str = "turned-actions"
    """Its change."""
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
    steps: int = 1000
    """Optimiser steps after each round."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW at the first step of a round."""


def settings(config: AdaptationConfig, seed: int) -> AdaptConfig:
    """The adaptation of a seed."""
    shared = {name: getattr(config, name) for name in ("policy", "real", "shift", "episodes", "rounds", "steps")}
    return AdaptConfig(
        **shared, out=config.out / f"adapted-seed-{seed}", learning_rate=config.learning_rate, seed=seed, device="cpu"
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
    policy, how = make(), settings(config, 0)
    env = environment(replace(how, shift="") if row == "usual" else how, policy)
    first = first_seed(how, how.rounds)
    scores = trials(policy, env, [first + number for number in range(config.trials)], how.horizon)
    env.close()
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
    makers = {
        "before": lambda how: ClonedPolicy.load(how.policy),
        "usual": lambda how: ClonedPolicy.load(how.policy),
        "adapted": adapted,
        "not relabelled": not_relabelled,
        "old data": lambda how: old_data(how, config.clone_data),
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
