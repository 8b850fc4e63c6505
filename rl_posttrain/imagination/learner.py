"""One update of actor and critic from imagined rollouts."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.actor import Actor
from rl_posttrain.imagination.critic import Critic
from rl_posttrain.imagination.estimators import (
    gaussian_kl,
    gaussian_log_prob,
    lambda_returns,
    plan_rewards,
    pmpo_loss,
    shaped_rewards,
    trust,
)
from rl_posttrain.imagination.rollouts import Imagined
from worldmodel.display.ranges import Count, OpenShare, Positive, Share, Weight, Whole
from worldmodel.training.checkpoint import MovingAverage
from worldmodel.training.share import average_gradients


@dataclass(frozen=True)
class LearnConfig:
    """How actor and critic learn from imagined rollouts."""

    objective: Literal["imitation", "pmpo"] = "imitation"
    """What the actor learns from: its own successes in all dreams so far, or the sign of the advantage
    in the latest dreams (Dreamer 4)."""
    std: Positive = 0.5
    """Initial spread of the actor and of the prior, in standard deviations of the demonstrated actions. With the
    objective imitation every start explores with a random share of this spread."""
    actor_rate: Positive = 5e-4
    """Learning rate of the actor; the objective pmpo needs a fifth of the default."""
    critic_rate: Positive = 1e-3
    """Learning rate of the critic."""
    warmup: Whole = 6
    """Number of first updates in which only the critic learns."""
    epochs: Count = 4
    """Passes over the frames of an update."""
    minibatch: Count = 240
    """Frames per optimiser step."""
    discount: Share = 0.98
    """Discount of each action; of a plan of k actions it is discount^k."""
    decay: Share = 0.95
    """Lambda of the returns: 0 uses only the critic, 1 only the dream."""
    shaping: Weight = 1.0
    """Weight of the judge's reward, as a potential, relative to a success."""
    alpha: Share = 0.5
    """Weight of good actions, 0 to 1; bad actions have the rest. Only for the objective pmpo."""
    beta: Weight = 0.3
    """Weight of the divergence from the prior."""
    imitation_steps: Count = 50
    """Optimiser steps on remembered successes after each update's dreams."""
    average_decay: OpenShare = 0.5
    """Decay of the moving averages: of the critic, as its own target, and of the actor that is measured and kept."""


class Learner(nn.Module):
    """Actor, critic, and the prior that the actor starts from."""

    def __init__(self, policy: ClonedPolicy, config: LearnConfig):
        super().__init__()
        self.actor = Actor(policy, config.std)
        self.critic = Critic(self.actor.num_features, policy.config.width)
        self.prior = Actor(policy, config.std).requires_grad_(False)

    def optimizers(self, config: LearnConfig) -> list[torch.optim.Optimizer]:
        """The optimisers: one for the actor, one for the critic."""
        pairs = ((self.actor, config.actor_rate), (self.critic, config.critic_rate))
        return [
            torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=r, weight_decay=0) for m, r in pairs
        ]


@dataclass(frozen=True)
class Experience:
    """Imagined frames to learn from: the `n` frames of all streams at which a plan was made before a success.

    Attributes:
        features: What actor and critic see.
        actions: Normalised plans made there.
        prior: Most likely plan of the prior.
        returns: Lambda-return of the frame.
        advantages: Return minus the target critic's value.
        weights: Importance weight.
    """

    features: Float[Tensor, "n f"]
    actions: Float[Tensor, "n p"]
    prior: Float[Tensor, "n p"]
    returns: Float[Tensor, "n"]
    advantages: Float[Tensor, "n"]
    weights: Float[Tensor, "n"]

    def rows(self, index: Tensor) -> "Experience":
        """Some of the frames."""
        return Experience(**{name: column[index] for name, column in vars(self).items()})


@torch.no_grad()
def learn_from(
    learner: Learner,
    average: MovingAverage,
    imagined: Imagined,
    importance: Float[Tensor, "n"],
    config: LearnConfig,
    trust_scale: float | None,
) -> tuple[Experience, Float[Tensor, "n"], dict[str, float]]:
    """Returns and advantages of imagined rollouts, under the target critic.

    Args:
        learner: Its critic gives the values of the starts, the moving average of its critic those of all frames.
        average: The moving average.
        imagined: Rollouts, stream `j * n + i` from start `i`.
        importance: Weight of every start.
        config: Discount, lambda and shaping.
        trust_scale: Disagreement at which a reward counts `1 / e`; `None` trusts all dreams.

    Returns:
        Experience, absolute TD error of every start (mean over its noise seeds), and figures to
        show: `return` (discounted, trusted rewards only), `solved` and `value_error`, the root mean
        square of return minus value.
    """
    with average.shown(learner):
        values = learner.critic.value(imagined.features)
    weights = torch.ones_like(imagined.disagreement)
    if trust_scale is not None:
        weights = trust(imagined.disagreement, trust_scale)
    rewards = shaped_rewards(
        imagined.successes, imagined.potentials, weights, shaping=config.shaping, discount=config.discount
    )
    rewards = rewards + weights * imagined.extra
    gained, continues = plan_rewards(rewards, imagined.successes, imagined.chunk, discount=config.discount)
    per_plan = config.discount**imagined.chunk
    returns = lambda_returns(gained, values, continues, discount=per_plan, decay=config.decay)
    number = len(importance)
    errors = (returns[:, 0] - learner.critic.value(imagined.features[:, 0])).abs()
    running = imagined.planning
    spread = repeat(importance, "n -> (k n) t", k=len(running) // number, t=running.shape[1])
    spread = spread.to(running.device)
    experience = Experience(
        features=imagined.features[:, :-1][running],
        actions=imagined.actions[running],
        prior=imagined.prior[running],
        returns=returns[running],
        advantages=(returns - values[:, :-1])[running],
        weights=spread[running],
    )
    shown = {
        "return": float(imagined_return(rewards, imagined.running, config.discount).mean()),
        "solved": float(imagined.solved.float().mean()),
        "value_error": float((returns - values[:, :-1])[running].square().mean().sqrt()),
        "trust": float(weights[imagined.running].mean()),
    }
    return experience, rearrange(errors, "(k n) -> k n", n=number).mean(0), shown


def imagined_return(rewards: Float[Tensor, "b t"], running: Bool[Tensor, "b t"], discount: float) -> Float[Tensor, "b"]:
    """Discounted sum of the rewards up to the first success."""
    factors = discount ** torch.arange(rewards.shape[1], device=rewards.device)
    return (rewards * running * factors).sum(1)


def update(
    learner: Learner, optimizers: list[torch.optim.Optimizer], experience: Experience, config: LearnConfig, *, step: int
) -> dict[str, float]:
    """A few passes over the experience of one update; returns mean losses and the divergence.

    Raises:
        ValueError: A loss is not finite.
    """
    generator = torch.Generator().manual_seed(step)
    number = len(experience.returns)
    totals: list[dict[str, Tensor]] = []
    for _ in range(config.epochs):
        order = torch.randperm(number, generator=generator)
        for index in order.split(config.minibatch):
            rows = experience.rows(index)
            moves = config.objective == "pmpo" and step >= config.warmup
            losses = losses_of(learner, rows, config, actor_moves=moves)
            loss = losses["critic_loss"] + losses["actor_loss"]
            if not torch.isfinite(loss):
                raise ValueError(f"update {step}: loss is {loss.item()}; lower the learning rates")
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            average_gradients(learner.parameters())  # equal but for rounding; so the processes stay equal, too
            nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
            for optimizer in optimizers:
                optimizer.step()
            totals.append({name: value.detach() for name, value in losses.items()})
    return {name: float(torch.stack([t[name] for t in totals]).mean()) for name in totals[0]}


def losses_of(
    learner: Learner, rows: Experience, config: LearnConfig, *, actor_moves: bool
) -> dict[str, Float[Tensor, ""]]:
    """Losses of actor and critic on some frames, and the divergence from the prior in nats."""
    critic_loss = learner.critic.loss(rows.features, rows.returns, rows.weights)
    if not actor_moves:
        zero = torch.zeros(())
        return {"critic_loss": critic_loss, "actor_loss": zero, "kl": zero}
    mean = learner.actor(rows.features)
    std = learner.actor.std
    log_probs = gaussian_log_prob(rows.actions, mean, std)
    kl = gaussian_kl(mean, std, rows.prior, learner.prior.std)
    actor_loss = pmpo_loss(log_probs, rows.advantages, kl, rows.weights, alpha=config.alpha, beta=config.beta)
    return {"critic_loss": critic_loss, "actor_loss": actor_loss, "kl": kl.mean()}
