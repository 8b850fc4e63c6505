"""Scorers of plans: which of the imagined futures is best."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from policy_eval.steering.proposals import yours
from worldmodel.data import Clip
from worldmodel.dreams.verdict import Judge
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation

DRAW = 1
"""What tells the draws of `at_random` from those of the plans' offsets, which come from the same seeds and steps."""


@dataclass(frozen=True)
class Candidates:
    """`k` plans for each of `n` streams, and where they lead.

    Attributes:
        plans: Raw actions; of each stream the first plan is the policy's own.
        imagined: A clip with one row for every plan, those of a stream side by side: the present
            frame, then the dreamed ones, or of these only the ends of plans. `None` when nothing was imagined.
        seeds: The seed of each stream; for `at_random`.
        step: The step of the episode, from 0.
    """

    plans: Float[Tensor, "n k h a"]
    imagined: Clip | None = None
    seeds: Int[Tensor, "n"] | None = None
    step: int = 0


Scorer = Callable[[Candidates], Float[Tensor, "n k"]]
"""Higher is better; of equal plans the first is taken."""


def by_value(judge: Judge) -> Scorer:
    """The judge's reward of the last imagined frame, in place of the value function of V-GPS.

    V-GPS learns Q(s, a) offline; here the world model predicts the state that the actions lead to.
    """

    def score(candidates: Candidates) -> Float[Tensor, "n k"]:
        clip = _imagined(candidates)
        states = None if clip.states is None else clip.states[:, -1]
        rewards = judge(Observation(clip.frames[:, -1], states, tuple(clip.task))).rewards
        return rewards.reshape(candidates.plans.shape[:2])

    return score


def by_verifier(verify: Callable[[UInt8[Tensor, "b v H W 3"]], Float[Tensor, "b"]]) -> Scorer:
    """The highest score that a verifier gives any imagined frame (RoboMonkey's verifier).

    `LearnedJudge.score` is one, and so is `GoalJudge.score`.
    """

    def score(candidates: Candidates) -> Float[Tensor, "n k"]:
        frames = _imagined(candidates).frames[:, 1:]
        scores = verify(rearrange(frames, "b t v h w c -> (b t) v h w c"))
        best = scores.reshape(frames.shape[:2]).amax(1)
        return best.reshape(candidates.plans.shape[:2])

    return score


def by_agreement(
    decode: Callable[[Clip], Float[Tensor, "b t a"]],
    commanded: Callable[[Clip], Float[Tensor, "b t a"]],
    visible: Callable[[Clip], Bool[Tensor, "b t a"]] | None = None,
) -> Scorer:
    """Whether the imagined frames show the planned actions ("Do What You Say").

    Minus the mean squared difference between the actions that an inverse-dynamics model decodes
    from the imagined frames and those of the plan. The paper asks a vision-language model whether the
    simulated outcome fits the plan in words; here the plan is the actions.

    Args:
        decode: Decodes the actions of a clip, as `InverseDynamics.decode` does.
        commanded: The clip's own actions in the same units, as `InverseDynamics.commanded`.
        visible: Where the frames can show the action, as `InverseDynamics.visible`; other moments and dims count
            nothing. A plan of which nothing is visible is as good as the stream's other plans on average.
    """

    def score(candidates: Candidates) -> Float[Tensor, "n k"]:
        clip = _imagined(candidates)
        error = (decode(clip) - commanded(clip)).square()
        seen = torch.ones_like(error, dtype=torch.bool) if visible is None else visible(clip)
        error = torch.where(seen, error, 0.0).sum((1, 2)) / seen.sum((1, 2))  # NaN where nothing is visible
        error = error.reshape(candidates.plans.shape[:2])
        unknown = error.isnan()
        return -torch.where(unknown, error.nanmean(1, keepdim=True).nan_to_num(), error)

    return score


def nearest_the_mean(candidates: Candidates) -> Float[Tensor, "n k"]:
    """A control without imagination: the plan nearest to the mean of all plans."""
    offset = candidates.plans - candidates.plans.mean(1, keepdim=True)
    return -offset.square().mean((2, 3))


def at_random(candidates: Candidates) -> Float[Tensor, "n k"]:
    """A control without imagination: any of the plans, with equal chances.

    The draw depends only on the seed of the stream and on the step, so it is the same in every batch.
    """
    drawn = [mix_seed(seed, candidates.step, DRAW) for seed in candidates.seeds.tolist()]
    plans = candidates.plans.shape[1]
    return torch.stack([torch.rand(plans, generator=torch.Generator().manual_seed(seed)) for seed in drawn])


SCORERS: dict[str, Callable[[Judge | None], Scorer]] = {"value": by_value, "random": lambda _: at_random}
"""What makes the scorers of this package from a judge, by name; `random` is a control."""


def find_scorer(spec: str, judge: Judge | None) -> Scorer:
    """The scorer of a name in `SCORERS`, or of `module:name`: a callable, or a class that makes one.

    Args:
        spec: The name.
        judge: The judge, for `value`.

    Raises:
        ValueError: There is no such scorer, or it needs a judge.
    """
    if spec == "value" and judge is None:
        raise ValueError("the scorer value needs a judge")
    return SCORERS[spec](judge) if spec in SCORERS else yours(spec, "scorer", SCORERS)


def _imagined(candidates: Candidates) -> Clip:
    if candidates.imagined is None:
        raise ValueError("this scorer looks at imagined frames: give SteeredPolicy a world")
    return candidates.imagined
