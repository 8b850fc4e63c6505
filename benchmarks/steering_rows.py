"""What `benchmarks/steering.py` compares: other ways to propose and to score plans, tried beside those of the package.

Each is a subclass of `SteeredPolicy` or a proposal. What gains is moved to `policy_eval/steering`; this did not.
"""

from collections.abc import Sequence

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.policy import Observations
from policy_eval.steering.proposals import Planner, Proposal, Sigma, jitter
from policy_eval.steering.scorers import Candidates
from policy_eval.steering.steered import Choice, SteeredPolicy
from worldmodel.data import EpisodeSource

NOISES = 3
"""Dreams of each plan for `Certain`, each with noise of its own."""
KAPPA = 1.0
"""How much their spread counts against a plan."""


class Certain(SteeredPolicy):
    """Scores by the mean over noise seeds minus `KAPPA` times the spread, so that a lucky dream counts less."""

    def choose(self, observation: Observations) -> Choice:
        """Dream each plan several times."""
        own = self.seeds
        plans = self.proposal(self.policy, observation, self.k, self.sigma, own, self.step)
        scores = []
        for noise in range(NOISES):
            self.seeds = own + 1_000_003 * noise
            scores.append(self.scorer(Candidates(plans, self.imagine(plans))))
        self.seeds = own
        drawn = torch.stack(scores)
        careful = drawn.mean(0) - KAPPA * drawn.std(0)
        return Choice(Candidates(plans), careful, careful.argmax(1))


class PastConsistent(SteeredPolicy):
    """Takes the plan that continues best what the last plan intended.

    Past-token prediction (Torne et al., arXiv 2505.09561) lets the policy predict the past actions, too, and takes the
    sample that fits them. A policy without a memory predicts no past; but the dream of the last plan went on beyond its
    end, and those actions are the intention that the new plan is compared with.
    """

    def choose(self, observation: Observations) -> Choice:
        """Compare each plan with the continuation that was imagined for the last one."""
        if self.step == 0:
            self.intended: dict[int, Float[Tensor, "m a"]] = {}
        plans = self.proposal(self.policy, observation, self.k, self.sigma, self.seeds, self.step)
        imagined = self.imagine(plans)
        scores = torch.zeros(plans.shape[:2])
        for row, seed in enumerate(self.seeds.tolist()):
            if seed in self.intended:
                length = min(plans.shape[2], len(self.intended[seed]))
                gap = plans[row, :, :length] - self.intended[seed][:length]
                scores[row] = -gap.square().mean((1, 2))
        best = scores.argmax(1)
        actions = imagined.actions.unflatten(0, plans.shape[:2])
        for row, seed in enumerate(self.seeds.tolist()):
            self.intended[seed] = actions[row, best[row], plans.shape[2] :]
        return Choice(Candidates(plans, imagined), scores, best)


class KeepsTheOffset(SteeredPolicy):
    """Tries the offset that won last time again, in the place of one of the new ones, as a planner starts warm."""

    def choose(self, observation: Observations) -> Choice:
        """Propose the policy's plan, the same with the last offset, and new ones."""
        if self.step == 0:
            self.offsets: dict[int, Float[Tensor, "1 a"]] = {}
        plans = self.proposal(self.policy, observation, self.k, self.sigma, self.seeds, self.step)
        for row, seed in enumerate(self.seeds.tolist()):
            if seed in self.offsets:
                plans[row, 1] = plans[row, 0] + self.offsets[seed]
        candidates = Candidates(plans, self.imagine(plans))
        scores = self.scorer(candidates)
        choice = Choice(candidates, scores, scores.argmax(1))
        for row, seed in enumerate(self.seeds.tolist()):
            offset = (choice.plans[row] - plans[row, 0]).mean(0, keepdim=True)
            if offset.abs().sum() > 0:
                self.offsets[seed] = offset
        return choice


class TwoRounds(SteeredPolicy):
    """The cross-entropy method: a second round of plans near the mean of the better half of the first, half as far."""

    def choose(self, observation: Observations) -> Choice:
        """Propose, imagine and score twice; the best plan of both rounds is taken."""
        first = super().choose(observation)
        plans = first.candidates.plans
        elite = first.scores.topk(max(1, self.k // 2), dim=1).indices
        mean = torch.stack([plans[row, index].mean(0) for row, index in enumerate(elite)])
        second = jitter(mean, self.k, self.sigma / 2, self.seeds, 1000 + self.step)
        scores = self.scorer(Candidates(second, self.imagine(second)))
        together, every = torch.cat([plans, second], 1), torch.cat([first.scores, scores], 1)
        return Choice(Candidates(together), every, every.argmax(1))


def side_by_side(others: Sequence[Planner]) -> Proposal:
    """The policy's plan, one of each other policy, and jittered ones up to `k`; a short plan holds its last action."""

    def propose(
        policy: Planner, observation: Observations, k: int, sigma: Sigma, seeds: Int[Tensor, "n"], step: int
    ) -> Float[Tensor, "n k h a"]:
        own = policy.plan(observation)
        length = own.shape[1]
        plans = [own, *(_stretched(other.plan(observation), length) for other in others)][:k]
        near = jitter(own, k - len(plans) + 1, sigma, seeds, step)[:, 1:]
        return torch.cat([torch.stack(plans, 1), near], 1)

    return propose


def _stretched(plans: Float[Tensor, "n h a"], length: int) -> Float[Tensor, "n m a"]:
    index = torch.arange(length).clamp(max=plans.shape[1] - 1)
    return plans[:, index]


def memory(policy: ClonedPolicy, source: EpisodeSource, share: float = 0.5) -> Proposal:
    """Segments of successful episodes whose frames look like the present one (Retrieve-then-Steer).

    Args:
        policy: Its features say how similar two observations are.
        source: Recorded episodes; those without a success are left out.
        share: Share of the plans that are remembered, apart from the policy's own; the others are jittered.
    """
    chunk = policy.config.chunk
    features, segments = [], []
    for episode in range(len(source)):
        clip = source.read(episode, 0, source.lengths[episode])
        if clip.successes is None or not clip.successes.any():
            continue
        last = len(clip.actions) - chunk + 1
        columns = [source.views.index(view) for view in policy.config.views]
        states = clip.states[:last] if policy.config.state_dim else None
        with torch.no_grad():
            features.append(policy.features(clip.frames[:last, columns], states))
        rows = clip.actions.unfold(0, chunk, 1)[:last].transpose(1, 2).clone()
        for action, state in policy.config.relative_to.items():
            rows[..., action] -= clip.states[:last, None, state]
        segments.append(rows)
    known, kept = torch.cat(features), torch.cat(segments)
    scale = known.std(0).clamp(min=1e-3)

    def propose(
        policy: ClonedPolicy, observation: Observations, k: int, sigma: Sigma, seeds: Int[Tensor, "n"], step: int
    ) -> Float[Tensor, "n k h a"]:
        near = jitter(policy.plan(observation), k, sigma, seeds, step)
        remembered = round(share * (k - 1))
        frames, states = policy._read(observation)
        gap = torch.cdist(policy.features(frames, states) / scale, known / scale)
        found = kept[gap.topk(remembered, largest=False).indices]
        for action, state in policy.config.relative_to.items():
            found[..., action] += repeat(states[:, state], "n -> n k h", k=remembered, h=chunk)
        near[:, 1 : 1 + remembered] = found
        return near

    return propose
