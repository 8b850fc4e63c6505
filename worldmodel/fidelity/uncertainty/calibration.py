"""Test on recorded episodes whether noise seeds disagree where the dream is wrong."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.data import EpisodeSource, stack_clips
from worldmodel.dreams.anchors import Anchors, contexts
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import World, begin
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation

QUANTILE = 0.9
"""A reward is multiplied by `1 / e` where the disagreement is as large as this quantile."""
STARTS = 32
"""Largest number of starts from which dreams begin."""
WORTH_USING = 0.1
"""Smallest mean correlation within a step for which disagreement is used."""


@dataclass(frozen=True)
class Calibration:
    """How well disagreement predicts the error, under recorded actions.

    Attributes:
        starts: Number of anchors from which dreams began.
        horizon: Steps of each dream.
        spearman: Rank correlation of disagreement and picture error over all steps. Both grow with the horizon, which
            makes this value too high.
        spearman_within: Mean over steps of the rank correlation over starts, at that step.
        spearman_judge: The same against the error of the judge's reward.
        spearman_within_judge: Likewise, within steps.
        scale: The disagreement at which a reward is multiplied by `1 / e`.
        used: Whether rewards are weighted by it.
    """

    starts: int
    horizon: int
    spearman: float
    spearman_within: float
    spearman_judge: float
    spearman_within_judge: float
    scale: float
    used: bool

    def to_json(self) -> dict:
        """A dictionary that JSON can hold."""
        return asdict(self)

    @property
    def sentence(self) -> str:
        """The result in one sentence, for the terminal."""
        verdict = "so rewards are weighted by it" if self.used else "so it is not used"
        return (
            f"disagreement of noise seeds and picture error over {self.starts} starts: rank "
            f"correlation {self.spearman:.2f}, within a step {self.spearman_within:.2f} (judge's "
            f"reward {self.spearman_within_judge:.2f}), {verdict}"
        )


@torch.no_grad()
def calibrate(
    world: World,
    judge: Judge,
    source: EpisodeSource,
    anchors: Anchors,
    *,
    horizon: int,
    context: int,
    noise_seeds: int,
    seed: int,
    num_steps: int,
) -> Calibration:
    """Dream recorded actions from real frames, and compare disagreement with the true error.

    Args:
        world: The world model that dreams.
        judge: Its reward is compared, too.
        source: The episodes.
        anchors: Where dreams begin; those too close to an episode's end are left out, and only the
            first 32 of the others are used.
        horizon: Steps.
        context: Real frames before each dream.
        noise_seeds: Dreams of every start, at least 2.
        seed: Of the noise.
        num_steps: Denoising steps per frame.

    Raises:
        ValueError: Fewer than three anchors have `horizon` recorded actions after them.
    """
    ends = np.array(source.lengths)[anchors.episodes]
    anchors = anchors.pick(np.flatnonzero(anchors.frames + horizon * world.stride < ends)[:STARTS])
    if len(anchors) < 3:
        raise ValueError(
            f"{source.name}: {len(anchors)} of the drawn frames have {horizon} recorded actions "
            "after them, at least 3 are needed; lower --horizon"
        )
    pairs = zip(anchors.episodes.tolist(), anchors.frames.tolist(), strict=True)
    truth = stack_clips([source.read(e, f, f + horizon * world.stride + 1, world.stride) for e, f in pairs])
    clips = contexts(source, anchors, context=context, stride=world.stride) * noise_seeds
    stream = begin(world, clips, [mix_seed(seed, i) for i in range(len(clips))])
    spreads, errors, judged = [], [], []
    for i in range(horizon):
        actions = truth.actions[:, i].repeat(noise_seeds, 1)
        seen = stream.step(actions, num_steps=num_steps)
        real = truth.frames[:, i + 1].to(seen.frames.device)
        states = None if truth.states is None else truth.states[:, i + 1]
        spreads.append(disagreement(seen.frames[:, None], noise_seeds)[: len(real), 0])
        squares = (seen.frames.float() - real.repeat(noise_seeds, 1, 1, 1, 1).float()) / 255
        errors.append(_over_seeds(squares.square().flatten(1).mean(1), noise_seeds).sqrt())
        wrong = judge(seen).rewards - judge(Observation(real, states)).rewards.repeat(noise_seeds)
        judged.append(_over_seeds(wrong.abs(), noise_seeds))
    spread, error, reward = (torch.stack(c, 1) for c in (spreads, errors, judged))
    within = mean_correlation(spread, error)
    return Calibration(
        starts=len(anchors),
        horizon=horizon,
        spearman=correlation(spread.flatten(), error.flatten()),
        spearman_within=within,
        spearman_judge=correlation(spread.flatten(), reward.flatten()),
        spearman_within_judge=mean_correlation(spread, reward),
        scale=max(float(spread.quantile(QUANTILE)), 1e-6),
        used=within >= WORTH_USING,
    )


def mean_correlation(x: Float[Tensor, "n t"], y: Float[Tensor, "n t"]) -> float:
    """Mean over steps of the rank correlation over starts."""
    columns: Sequence[float] = [correlation(x[:, i], y[:, i]) for i in range(x.shape[1])]
    return float(np.mean(columns))


def correlation(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Spearman's rank correlation; 0 where one of them does not vary."""
    from torchmetrics.functional import spearman_corrcoef  # slow to import

    return float(spearman_corrcoef(x.double(), y.double()))


def _over_seeds(values: Float[Tensor, "b"], noise_seeds: int) -> Float[Tensor, "n"]:
    return rearrange(values, "(k n) -> k n", k=noise_seeds).mean(0)


def disagreement(frames: UInt8[Tensor, "b t v H W 3"], noise_seeds: int) -> Float[Tensor, "b t"]:
    """Standard deviation over noise seeds, root mean square over pixels, on the scale 0..1.

    Vista's uncertainty (2405.17398, section 3.4) is the mean variance; its root is in grey levels,
    as the error is.
    """
    if noise_seeds == 1:
        return torch.zeros(frames.shape[:2], device=frames.device)
    grouped = rearrange(frames, "(k n) t v h w c -> k n t (v h w c)", k=noise_seeds)
    spread = torch.stack([grouped[:, i].float().div(255).var(0) for i in range(grouped.shape[1])])
    return repeat(spread.mean(-1).sqrt(), "n t -> (k n) t", k=noise_seeds)
