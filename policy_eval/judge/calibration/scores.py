"""What a judge says of the trials that set its thresholds: of dreams from their starts, or of their own frames.

The score of a trial is the highest one of its frames, since a trial succeeds with the first frame that is called a
success. The first frame, at which no action was applied yet, is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Float64

from policy_eval.evaluation import evaluate
from policy_eval.judge.goals.judge import GoalJudge
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.policy import Policy
from worldmodel.data import EpisodeSource
from worldmodel.display.progress import ProgressLine
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel


class Listener:
    """A judge that never calls a success and remembers the highest score of every stream."""

    def __init__(self, judge: LearnedJudge | GoalJudge):
        self.judge = judge
        self.highest: Float64[np.ndarray, "n"] | None = None

    def __call__(self, observation: Observation) -> Verdict:
        """The judge's reward, and no success."""
        tasks = [observation.task] if _is_told(self.judge) else []
        scores, rewards = self.judge.predict(observation.frames, *tasks)
        heard = scores.double().cpu().numpy()
        self.highest = heard if self.highest is None else np.maximum(self.highest, heard)
        return Verdict(rewards, scores > 1)


@dataclass(frozen=True)
class Dreaming:
    """How the policies dream.

    Attributes:
        num_envs: Number of dreams that run side by side.
        horizon: Number of actions of a dream.
        num_steps: Denoising steps per frame.
        seed: Seed of the dreams.
        log: File of the progress.
    """

    num_envs: int
    horizon: int
    num_steps: int
    seed: int
    log: Path


class Dreamer:
    """Lets the policies dream from the starts of their own rollouts, some at a time.

    Args:
        dreaming: How they dream.
        world: The world model.
        judge: Scores the dreamed frames.
        policies: The policies by name.
        source: The rollouts.
        rows: The episodes that each policy acted in.
    """

    def __init__(
        self,
        dreaming: Dreaming,
        world: WorldModel,
        judge: LearnedJudge | GoalJudge,
        policies: Mapping[str, Policy],
        source: EpisodeSource,
        rows: Mapping[str, Sequence[int]],
    ):
        self.dreaming, self.world, self.judge = dreaming, world, judge
        self.policies, self.source, self.rows = policies, source, rows
        self._now: tuple[str, DreamEnv, Listener] | None = None

    @property
    def parts(self) -> list[tuple[str, int]]:
        """The name of the policy and the first of its rollouts in each batch of dreams, in the order of the scores."""
        size = self.dreaming.num_envs
        return [(name, first) for name, mine in self.rows.items() for first in range(0, len(mine), size)]

    def scores(self, part: tuple[str, int]) -> Float64[np.ndarray, "e"]:
        """Scores of one batch of dreams; they do not depend on the other batches."""
        name, first = part
        dream, listener = self._opened(name)
        rows = range(first, min(first + dream.num_envs, len(self.rows[name])))
        listener.highest = None
        evaluate(self.policies[name], dream, starts=rows, horizon=self.dreaming.horizon)
        return listener.highest[: len(rows)]

    def _opened(self, name: str) -> tuple[DreamEnv, Listener]:
        """The dreams of a policy; those of the last one are kept."""
        if self._now is None or self._now[0] != name:
            mine, listener = self.rows[name], Listener(self.judge)
            dream = DreamEnv(
                self.world,
                Starts(self.source, mine),
                listener,
                num_envs=min(self.dreaming.num_envs, len(mine)),
                horizon=self.dreaming.horizon,
                num_steps=self.dreaming.num_steps,
                seed=self.dreaming.seed,
                autoreset_mode=AutoresetMode.DISABLED,
            )
            self._now = (name, dream, listener)
        return self._now[1:]


def dreamt_scores(
    dreamer: Dreamer, results: Iterable[tuple[int, Float64[np.ndarray, "_"]]]
) -> Float64[np.ndarray, "e"]:
    """Score of a dream from the start of every rollout, by the policy that acted there; shows the progress.

    Args:
        dreamer: Knows the parts.
        results: The number of each part and its scores, in any order.
    """
    found: dict[int, Float64[np.ndarray, "_"]] = {}
    total, log = sum(map(len, dreamer.rows.values())), dreamer.dreaming.log
    with ProgressLine("calibrate", total, unit="dreams", log=log) as progress:
        for number, scores in results:
            found[number] = scores
            progress.advance(len(scores), dreamer.parts[number][0])
    return np.concatenate([found[number] for number in range(len(dreamer.parts))])


def recorded_scores(
    judge: LearnedJudge | GoalJudge, source: EpisodeSource, episodes: Sequence[int], horizon: int, log: Path
) -> Float64[np.ndarray, "e"]:
    """Scores of rollouts by their recorded frames, up to the frame after `horizon` actions.

    Raises:
        ValueError: A rollout has no action.
    """
    highest = []
    with ProgressLine("calibrate", len(episodes), unit="rollouts", log=log) as progress:
        for episode in episodes:
            length = min(source.lengths[episode], horizon + 1)
            if length < 2:
                raise ValueError(f"{source.name}: rollout {episode} has {source.lengths[episode]} frame, expected 2")
            frames = source.read(episode, 0, length).frames[1:]
            tasks = [(source.task(episode),) * len(frames)] if _is_told(judge) else []
            highest.append(float(judge.score(frames, *tasks).max()))
            progress.advance()
    return np.array(highest)


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


def _is_told(judge: LearnedJudge | GoalJudge) -> bool:
    """Whether a judge is told the task in words."""
    return isinstance(judge, LearnedJudge) and judge.told
