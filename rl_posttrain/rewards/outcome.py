"""Agreement of a judge's verdict on a dream with the recorded outcome, which is what ranking policies in dreams needs.

A policy is ranked by the verdicts of a judge on dreams under its actions. Where recorded actions are replayed, the
verdict should be what was recorded: a dream in which a recorded failure succeeds is optimistic.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from policy_eval.judge.judge import LearnedJudge
from rl_posttrain.rewards.credit import Map
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.dreams.verdict import Judge
from worldmodel.streaming.state import Observation


@dataclass(frozen=True)
class OutcomeAgreement:
    """Minus the Brier score of the judge's verdict on every dreamed frame against the recorded success.

    A learned judge gives a probability, which is moved so that 0.5 is at its threshold; any other judge gives 0 or 1.

    Attributes:
        judge: The judge that ranks.
    """

    judge: Judge

    def __call__(self, rollout: Rollout) -> Map:
        """Scores of the frames, `b t 1 1 1`, from -1 to 0; 0 is best."""
        recorded = rollout.reference.successes
        assert recorded is not None, "check_outcomes"
        said = self.successes(rollout.imagined)
        return -(said - recorded.to(said)).square()[..., None, None, None]

    def successes(self, clip: Clip) -> Float[Tensor, "b t"]:
        """How sure the judge is of a success in every frame but the first, 0 to 1."""
        frames = rearrange(clip.frames[:, 1:], "b t ... -> (b t) ...")
        if isinstance(self.judge, LearnedJudge):
            odds = self.judge.score(frames, _tasks(clip)).logit(1e-6) - torch.tensor(self.judge.threshold).logit(1e-6)
            found = odds.sigmoid()
        else:
            states = None if clip.states is None else rearrange(clip.states[:, 1:], "b t s -> (b t) s")
            found = self.judge(Observation(frames, states, _tasks(clip))).successes.float()
        return rearrange(found, "(b t) -> b t", b=len(clip.frames)).to(clip.frames.device)


def _tasks(clip: Clip) -> tuple[str, ...]:
    """The task of every frame but the first of each clip; empty if it is not known."""
    number, frames = clip.frames.shape[:2]
    tasks = (clip.task,) * number if isinstance(clip.task, str) else clip.task
    return tuple(task for task in tasks for _ in range(frames - 1)) if any(tasks) else ()


def check_outcomes(source: EpisodeSource) -> None:
    """Raise a `ValueError` where the data has no recorded successes to agree with."""
    if source.columns(0).successes is None:
        raise ValueError(
            f"--judge: {source.name} has no next.success, and the reward of outcomes compares verdicts with it"
        )
