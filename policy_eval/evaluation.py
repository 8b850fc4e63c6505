"""Trials of a policy, in the real environment or in a dream of it: one function for both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from policy_eval.policies.policy import Policy
from policy_eval.policies.remote import Unreachable
from policy_eval.scores import Scores
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.spaces import STATE
from worldmodel.dreams.verdict import Judge, observed
from worldmodel.envs.policy import begin_episodes, optional
from worldmodel.resolve import one_line
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Trial:
    """One finished episode, as `record` gets it.

    Attributes:
        seed: Reset seed of its start.
        outcome: 1 for success.
        frames: What all cameras saw, from the start to the end.
        actions: The actions that were applied.
        states: The robot's states at the frames, where there are any.
    """

    seed: int
    outcome: float
    frames: UInt8[np.ndarray, "t v H W 3"]
    actions: Float64[np.ndarray, "t-1 a"]
    states: Float32[np.ndarray, "t s"] | None = None


@dataclass(frozen=True)
class Fault:
    """Why a trial has no outcome; in the scores it counts as a failure.

    Attributes:
        seed: Seed of its start.
        kind: `policy`: the policy raised an error or returned no action. `judge`: the judge was unsure at the end.
            `dream`: the dream was not to be trusted to its end; only a ranking that abstains says so.
        reason: One line.
    """

    seed: int
    kind: Literal["policy", "judge", "dream"]
    reason: str


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
    faults: list[Fault] | None = None,
) -> Scores:
    """Let a policy act once from every start, until it succeeds or `envs` end the trial.

    The real environment and the dream differ only in `envs`. A trial depends on its start and on the
    policy, not on the other trials of its batch (up to rounding). A policy with a method `keep` is not asked
    about trials that have ended.

    Args:
        policy: The policy that acts; its randomness is seeded by the seed of each trial.
        envs: `RealEnvs` or a `DreamEnv` with autoreset disabled; has `starts`,
            `reset(options={"starts": ...})` begins from the chosen ones, and `info["success"]` of a
            step says which streams have succeeded.
        starts: Indices into `envs.starts`; all of them by default.
        horizon: Maximum number of actions of a trial.
        name: Name of the policy in the scores.
        judge: Decides on reward and success instead of the environment; then only its successes end a trial.
        record: Called with every finished trial that has no fault.
        progress: Called with the number of trials that have just finished.
        faults: Gets the trials in which the policy failed, or at whose end the judge was unsure. Without it,
            such a trial raises an error.

    Raises:
        ValueError: `envs` resets finished streams by itself, a start does not exist or occurs
            twice, a trial has a fault and `faults` is not given, or the server of a policy does not
            answer.
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
        batch = Batch(policy, envs, chosen[first : first + envs.num_envs], judge, faults)
        parts.append(batch.run(horizon, record))
        if progress is not None:
            progress(len(batch.starts))
    outcomes, returns, steps = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Scores(name, np.array(seeds, np.int64), outcomes, returns, steps)


class Batch:
    """Trials side by side; streams without a trial repeat the last start, and count as ended.

    Args:
        policy: As in `evaluate`, like all others.
        envs: Has at least as many streams as there are starts.
        starts: A trial each.
        judge: Decides instead of `envs`.
        faults: Gets the trials with a fault.
    """

    def __init__(
        self, policy: Policy, envs: VectorEnv, starts: list[int], judge: Judge | None, faults: list[Fault] | None
    ):
        self.policy, self.envs, self.starts, self.judge, self.faults = policy, envs, starts, judge, faults
        self.padded = starts + starts[-1:] * (envs.num_envs - len(starts))
        self.seeds = [envs.starts.seeds[start] for start in self.padded]
        self.tasks = [envs.starts.tasks[start] for start in self.padded]
        self.success, self.done, self.faulty, self.unsure = np.zeros((4, envs.num_envs), bool)
        self.doubts_last = getattr(judge or getattr(envs, "judge", None), "doubts_last", False)
        self.done[len(starts) :] = True
        self.asked = np.arange(envs.num_envs)
        world = envs.world if isinstance(envs, DreamEnv) else None
        in_chunks = isinstance(world, WorldModel) and world.chunk > 1  # worlds of other kinds need not know chunks
        self.looks_ahead = in_chunks and optional(policy, "ahead") is not None
        self.ahead: list[np.ndarray] = []

    def run(
        self, horizon: int, record: Callable[[Trial], None] | None
    ) -> tuple[Float64[np.ndarray, "e"], Float64[np.ndarray, "e"], Int64[np.ndarray, "e"]]:
        """Outcomes, returns and steps of the trials."""
        envs, chosen = self.envs, []
        returns, steps = np.zeros(envs.num_envs), np.zeros(envs.num_envs, np.int64)
        try:
            begin_episodes(self.policy, self.seeds, self.tasks)
        except Unreachable:
            raise
        except Exception as error:
            self._fail(~self.done, one_line(error), error)
        observation, _ = envs.reset(options={"starts": self.padded})
        history = [observation]
        for _ in range(horizon):
            if self.done.all():
                break
            steps += ~self.done
            actions = self._actions(observation)
            running = ~self.done
            told = {"ahead": self.ahead} if self.ahead else {}
            observation, rewards, terminated, truncated, info = envs.step(actions, **told)
            solved, over, unsure = info["success"], terminated | truncated, info.get("unsure", np.zeros_like(running))
            if self.judge is not None:
                rewards, solved, unsure = self._judged(observation)
                over = solved
            returns += np.where(running, rewards, 0.0)
            self.success |= running & solved
            doubted = unsure | (self.unsure & self.doubts_last)
            self.unsure = np.where(running, doubted & ~solved, self.unsure)
            self.done |= over
            if record is not None:
                history.append(observation)
                chosen.append(actions.astype(np.float64))
        self._doubt()
        kept = len(self.starts)
        if record is not None:
            self._record(record, history, chosen, steps)
        return self.success[:kept].astype(np.float64), returns[:kept], steps[:kept].clip(1)

    def _actions(self, observation: dict[str, np.ndarray]) -> Float[np.ndarray, "n a"]:
        """The policy's actions within the action space; where it fails or is not asked what it planned, or zeros."""
        space = self.envs.action_space
        actions = self.ahead.pop(0) if self.ahead else np.zeros(space.shape, np.float32)
        try:
            self._keep()
            tensors = {name: torch.from_numpy(value[self.asked]) for name, value in observation.items()}
            with torch.no_grad():
                actions[self.asked] = _checked(self.policy.act(tensors), (len(self.asked), *space.shape[1:]))
            self._look_ahead()
        except Unreachable:
            raise
        except Exception as error:
            self._fail(~self.done, one_line(error), error)
        lost = ~np.isfinite(actions).all(1)
        shown = actions[int(lost.argmax())].tolist()
        self._fail(lost & ~self.done, f"the policy's actions are not finite: {shown}", None)
        return np.where(lost[:, None], 0, actions).astype(np.float32).clip(space.low, space.high)

    def _look_ahead(self) -> None:
        """Ask a policy that plans for the rest of its plan, if the dream can use it; ended trials keep theirs."""
        if not self.looks_ahead:
            return
        space, known = self.envs.action_space, self.ahead
        self.ahead = []
        for index, planned in enumerate(self.policy.ahead()):
            actions = known[index] if index < len(known) else np.zeros(space.shape, np.float32)
            actions[self.asked] = np.nan_to_num(_checked(planned, (len(self.asked), *space.shape[1:])))
            self.ahead.append(actions.clip(space.low, space.high))

    def _keep(self) -> None:
        """Let the policy forget the trials that have ended, if it can."""
        keep = optional(self.policy, "keep")
        running = np.flatnonzero(~self.done[self.asked])
        if keep is not None and len(running) < len(self.asked):
            keep(running.tolist())
            self.asked = self.asked[running]

    def _fail(self, streams: Bool[np.ndarray, "n"], reason: str, cause: Exception | None) -> None:
        """End the trials of these streams because of the policy."""
        if streams.any() and self.faults is None:
            raise cause if isinstance(cause, ValueError) else ValueError(reason) from cause
        for stream in np.flatnonzero(streams[: len(self.starts)]):
            self.faults.append(Fault(self.seeds[stream], "policy", reason))
        self.faulty |= streams
        self.done |= streams

    def _doubt(self) -> None:
        """Note the trials at whose end the judge was unsure."""
        unsure = np.flatnonzero((self.unsure & ~self.success & ~self.faulty)[: len(self.starts)])
        if len(unsure) and self.faults is None:
            raise ValueError(
                f"the judge was unsure at the end of the trials with the seeds {[self.seeds[i] for i in unsure]}; "
                "pass faults=[] to get such trials"
            )
        for stream in unsure:
            self.faults.append(Fault(self.seeds[stream], "judge", "the judge was unsure at the end"))
        self.faulty[unsure] = True

    def _judged(
        self, observation: dict[str, np.ndarray]
    ) -> tuple[Float64[np.ndarray, "n"], Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
        verdict = self.judge(observed(observation, self.envs.starts.views, self.tasks))
        solved = verdict.successes.cpu().numpy()
        unsure = np.zeros_like(solved) if verdict.unsure is None else verdict.unsure.cpu().numpy()
        return verdict.rewards.double().cpu().numpy(), solved, unsure

    def _record(
        self,
        record: Callable[[Trial], None],
        history: Sequence[dict[str, np.ndarray]],
        chosen: Sequence[Float64[np.ndarray, "n a"]],
        steps: Int64[np.ndarray, "n"],
    ) -> None:
        for index in np.flatnonzero(~self.faulty[: len(self.starts)]).tolist():
            length = int(steps[index])
            seen = [_pictures(step, self.envs.starts.views, index) for step in history[: length + 1]]
            acted = [actions[index] for actions in chosen[:length]]
            rows = [step[STATE][index] for step in history[: length + 1] if STATE in step]
            states = np.stack(rows).astype(np.float32) if rows else None
            record(Trial(self.seeds[index], float(self.success[index]), np.stack(seen), np.stack(acted), states))


def _checked(actions: object, shape: tuple[int, ...]) -> Float[np.ndarray, "n a"]:
    """The actions that a policy returned, after a check.

    Raises:
        ValueError: They are not a tensor, or have another shape.
    """
    if not isinstance(actions, torch.Tensor):
        raise ValueError(f"a policy returns its actions as a torch.Tensor, got {type(actions).__name__}")
    if tuple(actions.shape) != shape:
        raise ValueError(f"the policy's actions have the shape {tuple(actions.shape)}, the environment expects {shape}")
    return actions.cpu().float().numpy()


def _pictures(observation: dict[str, np.ndarray], views: Sequence[str], stream: int) -> UInt8[np.ndarray, "v H W 3"]:
    return np.stack([observation[f"observation.images.{view}"][stream] for view in views])
