"""Adapt a policy by its own real rollouts, each frame that they reached taken as a goal. `worldmodel adapt`.

As the online adaptation of Act2Goal (arXiv 2512.23541): a policy that is shown a goal acts, and the frames that it
reached, whatever they are, become the goals of the actions that led there. No reward and no success is read, so
failures teach as well. Only the head learns, so the keypoints of a rollout are computed once and a round takes seconds.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from policy_eval.policies.clone import CloneConfig, Demonstrations, read_demonstrations
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.hindsight import draw_pairs, hindsight_loss
from policy_eval.policies.needs import check_fits
from policy_eval.real_rollouts import record_rollouts, roll_out
from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from rl_posttrain.adaptation.config import AdaptConfig, check_numbers
from rl_posttrain.adaptation.page import meaning, write_page
from worldmodel.data import EpisodeSource, open_episodes
from worldmodel.display.progress import ProgressLine
from worldmodel.envs import accepted_options, make_env
from worldmodel.envs.record import SEED_STRIDE
from worldmodel.files import write_json
from worldmodel.model.folder import fingerprint
from worldmodel.model.precision import command_device
from worldmodel.processes.alone import alone_in_out
from worldmodel.training.checkpoint import claim_folder, settings_of
from worldmodel.training.fit import fit

ROLLOUTS = "rollouts"
LOOKED_AT = 256
"""Frames whose keypoints are computed at once."""
STARTS = 1000
"""Starts of rollouts and trials lie apart from those of recordings with small seeds, see `first_seed`."""


@alone_in_out
def adapt(config: AdaptConfig) -> dict[str, Any]:
    """Adapt the policy and write it to `config.out`; returns the report, which is `adaptation.json`, too.

    A run that was killed goes on when it is called again: rollouts that were made are kept, and a round is a pure
    function of the rollouts and the seed.

    Raises:
        ValueError: A number is out of range, the policy is shown no goal or does not fit the environment, or the
            folder holds something else.
    """
    check_numbers(config)
    device = command_device(config.device)
    clone = policy = ClonedPolicy.load(config.policy, device)
    if not clone.config.goals:
        raise ValueError(f"{config.policy}: is shown no goal, so nothing can take its place; clone it with --goals")
    env = environment(config, clone)
    settings = settings_of(config, {"policy": fingerprint(config.policy)})
    claim_folder(config.out, settings, "an adaptation", free=("device",))
    began, rounds, folders = time.monotonic(), [], []
    for number in range(config.rounds):
        folders.append(make_rollouts(config, policy, env, number))
        source = open_episodes(tuple(folders))
        policy = ClonedPolicy.load(config.policy, device)
        loss = fit_head(policy, rollout_rows(policy, source), config)
        rounds.append({"episodes": len(source), "success": success(open_episodes(folders[-1])), "loss": loss})
    report: dict[str, Any] = {"policy": str(config.policy), "seconds": time.monotonic() - began, "rounds": rounds}
    report |= {"kept": "adapted", "trials": None}
    if config.trials:
        report |= try_both(config, env, clone, policy)
    env.close()
    (policy if report["kept"] == "adapted" else clone).save(config.out, dtype=torch.float32)
    write_json(config.out / "adaptation.json", report)
    write_page(report, open_episodes(tuple(folders)), config.out / "report.html")
    print("\n".join([*meaning(report), str(config.out / "report.html")]))
    return report


def environment(config: AdaptConfig, policy: ClonedPolicy) -> gymnasium.Env:
    """The changed environment, with pictures of the size that the policy sees, if it can make them.

    Raises:
        ValueError: There is no such environment or shift, or the policy does not fit.
    """
    options: dict[str, int | str] = {"shift": config.shift} if config.shift else {}
    accepted = accepted_options(config.real)
    if accepted is None or "size" in accepted:
        options["size"] = policy.config.size[0]
    env = make_env(config.real, **options)
    check_fits(policy, env.observation_space, env.action_space, str(config.policy))
    return env


def make_rollouts(config: AdaptConfig, policy: ClonedPolicy, env: gymnasium.Env, number: int) -> Path:
    """The rollouts of a round as a data set, recorded unless they are there; each round has starts of its own."""
    each = config.episodes // config.rounds
    with ProgressLine(f"rollouts of round {number + 1}", each, unit="episodes") as progress:
        return record_rollouts(
            {"adapted": policy},
            env,
            config.out / ROLLOUTS / f"round-{number}",
            episodes=each,
            horizon=config.horizon,
            seed=first_seed(config, number) // SEED_STRIDE,
            name=config.real,
            progress=lambda _: progress.advance(),
        )


def success(source: EpisodeSource) -> float | None:
    """Share of the episodes with a success; `None` where nobody said."""
    columns = [source.columns(episode).successes for episode in range(len(source))]
    return None if columns[0] is None else float(np.mean([bool(each.any()) for each in columns]))


def rollout_rows(policy: ClonedPolicy, source: EpisodeSource) -> Demonstrations:
    """All frames of the rollouts as rows to learn from, with the plans that the policy would have to make."""
    shown = policy.config
    reading = CloneConfig(
        data=Path(source.name),
        out=Path(),
        goals=Path(),
        chunk=shown.chunk,
        relative_to=shown.relative_to,
        proprioception=shown.state_dim > 0,
    )
    return read_demonstrations(reading, source, shown.views)


def fit_head(policy: ClonedPolicy, rows: Demonstrations, config: AdaptConfig) -> float:
    """Train the head in place to reach the later frames of the rollouts; returns the mean loss of the last steps.

    Raises:
        ValueError: The loss is not finite.
    """
    device = policy.action_mean.device
    with torch.no_grad():
        looked = torch.cat([policy.look(frames.to(device)) for frames in rows.frames.split(LOOKED_AT)])
    states = rows.states.to(device) if policy.config.state_dim else None
    plans = (rows.targets.to(device) - policy.action_mean) / policy.action_std
    generator = torch.Generator().manual_seed(config.seed)

    def loss_of(step: int) -> Float[Tensor, ""]:
        pairs = draw_pairs(rows.lengths, config.batch, generator)
        at = pairs.rows.to(device)
        return hindsight_loss(policy, looked[at], None if states is None else states[at], plans[at], pairs, generator)

    return fit(policy.head, loss_of, steps=config.steps, learning_rate=config.learning_rate, name="adapt")


def try_both(config: AdaptConfig, env: gymnasium.Env, clone: ClonedPolicy, adapted: ClonedPolicy) -> dict[str, Any]:
    """Real trials of both policies from the same starts, and which of the two is kept."""
    seeds = [first_seed(config, config.rounds) + number for number in range(config.trials)]
    before, after = (trials(policy, env, seeds, config.horizon) for policy in (clone, adapted))
    order = pair_order(after, before)
    kept = "adapted" if order.difference > 0 else "clone"
    found = {"n": config.trials, "clone": before.mean, "adapted": after.mean, "low": order.low, "high": order.high}
    return {"kept": kept, "trials": found | {"difference": order.difference}}


def first_seed(config: AdaptConfig, part: int) -> int:
    """Reset seed of the first start of a round, or, after the last round, of the trials."""
    return (STARTS * (config.seed + 1) + part) * SEED_STRIDE


def trials(policy: ClonedPolicy, env: gymnasium.Env, seeds: Sequence[int], horizon: int) -> Scores:
    """A real trial from each start, until the first success."""
    episodes = [roll_out(policy, env, seed, horizon) for seed in seeds]
    return Scores(
        "policy",
        np.array(seeds, np.int64),
        np.array([float(each.successes.any()) for each in episodes]),
        np.array([float(each.rewards.sum()) for each in episodes]),
        np.array([len(each.actions) for each in episodes], np.int64),
    )
