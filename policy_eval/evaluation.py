"""Trials of a policy, in the real environment or in a dream of it: one function for both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from jaxtyping import Bool, Float64, Int64, UInt8

from policy_eval.policies.policy import Policy
from policy_eval.scores import Scores
from worldmodel.dreams.verdict import Judge, observed
from worldmodel.envs.policy import begin_episodes


@dataclass(frozen=True)
class Trial:
    """One finished episode, as `record` gets it.

    Attributes:
        seed: Reset seed of its start.
        outcome: 1 for success.
        frames: What all cameras saw, from the start to the end.
        actions: The actions that were applied.
    """

    seed: int
    outcome: float
    frames: UInt8[np.ndarray, "t v H W 3"]
    actions: Float64[np.ndarray, "t-1 a"]


def evaluate(
    policy: Policy,
    envs: VectorEnv,
    *,
    name: str = "policy",
    starts: Sequence[int] | None = None,
    horizon: int,
    judge: Judge | None = None,
    record: Callable[[Trial], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Let a policy act once from every start, until it succeeds or `envs` end the trial.

    The real environment and the dream differ only in `envs`. A trial depends on its start and on the
    policy, not on the other trials of its batch (up to rounding).

    Args:
        policy: The policy that acts; its randomness is seeded by the reset seed of each trial.
        envs: `RealEnvs` or a `DreamEnv` with autoreset disabled; has `starts`,
            `reset(options={"starts": ...})` begins from the chosen ones, and `info["success"]` of a
            step says which streams have succeeded.
        starts: Indices into `envs.starts`; all of them by default.
        horizon: Maximum number of actions of a trial.
        name: Name of the policy in the scores.
        judge: Decides on reward and success instead of the environment; then only its successes end a trial.
        record: Called with every finished trial.
        progress: Called with the number of trials that have just finished.

    Raises:
        ValueError: `envs` resets finished streams by itself, a start does not exist or occurs
            twice, or the policy's actions have the wrong shape or are not finite.
    """
    if envs.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED:
        mode = envs.metadata.get("autoreset_mode")
        raise ValueError(f"evaluate needs autoreset {AutoresetMode.DISABLED}, envs have {mode}")
    if horizon < 1:
        raise ValueError(f"horizon is at least 1, got {horizon}")
    chosen = list(range(len(envs.starts))) if starts is None else list(starts)
    envs.starts.check(chosen)
    seeds = [envs.starts.seeds[start] for start in chosen]
    parts = []
    for first in range(0, len(chosen), envs.num_envs):
        batch = chosen[first : first + envs.num_envs]
        parts.append(_run(policy, envs, batch, horizon, judge, record))
        if progress is not None:
            progress(len(batch))
    outcomes, returns, steps = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Scores(name, np.array(seeds, np.int64), outcomes, returns, steps)


def _run(
    policy: Policy,
    envs: VectorEnv,
    batch: list[int],
    horizon: int,
    judge: Judge | None,
    record: Callable[[Trial], None] | None,
) -> tuple[Float64[np.ndarray, "e"], Float64[np.ndarray, "e"], Int64[np.ndarray, "e"]]:
    """Outcomes, returns and steps of one batch; idle streams repeat its last start."""
    padded = batch + batch[-1:] * (envs.num_envs - len(batch))
    seeds = [envs.starts.seeds[start] for start in padded]
    begin_episodes(policy, seeds, [envs.starts.tasks[start] for start in padded])
    observation, _ = envs.reset(options={"starts": padded})
    history, chosen = [observation], []
    success, done = np.zeros((2, envs.num_envs), bool)
    returns = np.zeros(envs.num_envs)
    steps = np.zeros(envs.num_envs, np.int64)
    for _ in range(horizon):
        running = ~done
        actions = _checked(policy, observation, envs)
        observation, rewards, terminated, truncated, info = envs.step(actions)
        solved, over = info["success"], terminated | truncated
        if judge is not None:
            rewards, solved = _judged(judge, observation, envs.starts.views)
            over = solved
        returns += np.where(running, rewards, 0.0)
        steps += running
        success |= running & solved
        done |= over
        if record is not None:
            history.append(observation)
            chosen.append(actions.astype(np.float64))
        if done.all():
            break
    outcomes = success.astype(np.float64)
    if record is not None:
        for index, seed in enumerate(seeds[: len(batch)]):
            length = int(steps[index])
            seen = [_pictures(step, envs.starts.views, index) for step in history[: length + 1]]
            acted = [actions[index] for actions in chosen[:length]]
            record(Trial(seed, float(outcomes[index]), np.stack(seen), np.stack(acted)))
    kept = len(batch)
    return outcomes[:kept], returns[:kept], steps[:kept]


def _checked(policy: Policy, observation: dict[str, np.ndarray], envs: VectorEnv) -> np.ndarray:
    """The policy's actions within the action space."""
    with torch.no_grad():
        tensors = {name: torch.from_numpy(value) for name, value in observation.items()}
        actions = policy.act(tensors)
    if not isinstance(actions, torch.Tensor):
        raise ValueError(f"a policy returns its actions as a torch.Tensor, got {type(actions).__name__}")
    actions = actions.cpu().float().numpy()
    if actions.shape != envs.action_space.shape:
        raise ValueError(
            f"the policy's actions have the shape {actions.shape}, the environment expects {envs.action_space.shape}"
        )
    if not np.isfinite(actions).all():
        raise ValueError(f"the policy's actions are not finite: {actions.tolist()}")
    return actions.clip(envs.action_space.low, envs.action_space.high)


def _judged(
    judge: Judge, observation: dict[str, np.ndarray], views: Sequence[str]
) -> tuple[Float64[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    verdict = judge(observed(observation, views))
    return verdict.rewards.double().cpu().numpy(), verdict.successes.cpu().numpy()


def _pictures(observation: dict[str, np.ndarray], views: Sequence[str], stream: int) -> UInt8[np.ndarray, "v H W 3"]:
    return np.stack([observation[f"observation.images.{view}"][stream] for view in views])
