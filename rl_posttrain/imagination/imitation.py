"""Learning from successes: the actor repeats its own successes in all dreams so far."""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from rl_posttrain.imagination.estimators import gaussian_kl, gaussian_log_prob, pmpo_loss
from rl_posttrain.imagination.learner import LearnConfig, Learner
from rl_posttrain.imagination.rollouts import Imagined
from worldmodel.files import read_weights, write_weights
from worldmodel.training.share import average_gradients

FILE = "memory.safetensors"
MOST_NATS = 5.0
"""Extra rewards make the weight of a dream at most this many powers of e larger or smaller."""


@dataclass(frozen=True)
class Memory:
    """Every frame with a plan, up to the success, of the dreams that succeeded; immutable.

    Attributes:
        features: What the actor saw.
        actions: Normalised plans made there, exploration included.
        weights: Share of the noise seeds under which the same exploration succeeded, above 0: a
            success that depends on the dream's noise counts for less. With extra rewards, it is multiplied by
            `exp` of their sum up to the success, as in reward-weighted regression (Peters and Schaal 2007).
    """

    features: Float[Tensor, "n f"]
    actions: Float[Tensor, "n p"]
    weights: Float[Tensor, "n"]

    @classmethod
    def empty(cls, learner: Learner) -> "Memory":
        """Nothing dreamed yet."""

        def none(*shape: int) -> Tensor:
            return torch.zeros(0, *shape, device=learner.actor.log_std.device)

        return cls(none(learner.actor.num_features), none(len(learner.actor.std)), none())

    def add(self, imagined: Imagined, noise_seeds: int) -> "Memory":
        """A memory that also has the successes of these dreams; stream `j * n + i` is of start `i`."""
        kept = imagined.planning & imagined.solved[:, None]
        solved = rearrange(imagined.solved.float(), "(k n) -> k n", k=noise_seeds)
        share = repeat(solved.mean(0), "n -> (k n)", k=noise_seeds)
        gained = (imagined.extra * imagined.running).sum(1).clamp(-MOST_NATS, MOST_NATS)
        share = repeat(share * gained.exp(), "b -> b t", t=kept.shape[1])
        return Memory(
            torch.cat([self.features, imagined.features[:, :-1][kept]]),
            torch.cat([self.actions, imagined.actions[kept]]),
            torch.cat([self.weights, share[kept]]),
        )

    def save(self, folder: Path) -> None:
        """Write it into `folder`, for `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder / FILE, vars(self))

    @classmethod
    def load(cls, folder: Path, number: int, device: torch.device) -> "Memory":
        """Read the first `number` frames that `save` wrote; rows are only ever added."""
        return cls(**{name: rows[:number].to(device) for name, rows in read_weights(folder / FILE).items()})


def imitate(
    learner: Learner, optimizer: torch.optim.Optimizer, memory: Memory, config: LearnConfig, *, step: int
) -> dict[str, float]:
    """Some optimiser steps on remembered successes; returns mean loss and divergence.

    The objective is `pmpo_loss` with `alpha = 1` and success in the place of the advantage's sign:
    `-mean ln pi + beta mean KL(pi || prior)` over what led to success. It is self-imitation
    (Oh et al. 2018, 1806.05635) with the outcome as filter; VLAW clones a policy on its imagined
    successes in the same way. Failures are not used, so nothing pushes the actor to where it has
    never been, and the successes to learn from add up over the updates.

    Raises:
        ValueError: The loss is not finite.
    """
    number = len(memory.actions)
    if number == 0:
        return {"actor_loss": 0.0, "kl": 0.0, "remembered": 0.0}
    generator = torch.Generator().manual_seed(step)
    losses, divergences = [], []
    for _ in range(config.imitation_steps):
        index = torch.randint(number, (config.minibatch,), generator=generator)
        features, weights = memory.features[index], memory.weights[index]
        mean, std = learner.actor(features), learner.actor.std.detach()
        kl = gaussian_kl(mean, std, learner.prior(features), learner.prior.std)
        log_probs = gaussian_log_prob(memory.actions[index], mean, std)
        good = torch.ones_like(weights)
        loss = pmpo_loss(log_probs, good, kl, weights, alpha=1.0, beta=config.beta)
        if not torch.isfinite(loss):
            raise ValueError(f"update {step}: loss is {loss.item()}; lower --learn.actor-rate")
        optimizer.zero_grad()
        loss.backward()
        average_gradients(learner.actor.parameters())
        optimizer.step()
        losses.append(loss.item())
        divergences.append(kl.mean().item())
    count = len(losses)
    return {"actor_loss": sum(losses) / count, "kl": sum(divergences) / count, "remembered": float(number)}
