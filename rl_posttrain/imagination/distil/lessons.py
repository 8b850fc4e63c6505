"""What the planner found, as targets for the policy, and the fit of the policy's head to them."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.distil.config import DistilConfig
from worldmodel.files import read_weights, write_weights
from worldmodel.training.share import average_gradients

FILE = "lessons.safetensors"


@dataclass(frozen=True)
class Lessons:
    """Decisions of all rounds so far, each with the plans that were compared; immutable.

    Attributes:
        features: What the policy saw.
        plans: Normalised plans, the policy's own first.
        weights: How much each plan counts; those of a decision sum to 1.
    """

    features: Float[Tensor, "n f"]
    plans: Float[Tensor, "n m k a"]
    weights: Float[Tensor, "n m"]

    @classmethod
    def empty(cls, policy: ClonedPolicy, plans: int) -> "Lessons":
        """Nothing dreamed yet."""

        def none(*shape: int) -> Tensor:
            return torch.zeros(0, *shape, device=policy.action_mean.device)

        shown = policy.config
        return cls(none(policy.num_features), none(plans, shown.chunk, shown.action_dim), none(plans))

    def add(self, other: "Lessons") -> "Lessons":
        """The decisions of both."""
        return Lessons(**{name: torch.cat([rows, vars(other)[name]]) for name, rows in vars(self).items()})

    def save(self, folder: Path) -> None:
        """Write them into `folder`, for `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder / FILE, vars(self))

    @classmethod
    def load(cls, folder: Path, number: int, device: torch.device) -> "Lessons":
        """Read the first `number` decisions that `save` wrote; rows are only ever added."""
        return cls(**{name: rows[:number].to(device) for name, rows in read_weights(folder / FILE).items()})


def soft_targets(scores: Float[Tensor, "n m"], temperature: float) -> Float[Tensor, "n m"]:
    """`softmax((s - mean_m s) / (sigma temperature))`, where `sigma` is the spread of `s - mean_m s` over all rows.

    Path integral control (MPPI, 1509.01149) with one scale for all decisions: where no plan changes anything, all
    weigh about the same, and the target is their mean, which is the policy's own plan.
    """
    offset = scores - scores.mean(1, keepdim=True)
    return (offset / (offset.square().mean().sqrt().clamp_min(1e-8) * temperature)).softmax(1)


def with_successes(
    weights: Float[Tensor, "n m"], carried: Int64[Tensor, "n"], solved: Bool[Tensor, "n"], filtered: float
) -> Float[Tensor, "n m"]:
    """Targets in which, where the dream succeeded, `filtered` of the weight is on the plan that was carried out."""
    done = one_hot(carried, weights.shape[1]).to(weights)
    return torch.where(solved[:, None], (1 - filtered) * weights + filtered * done, weights)


def fit_head(
    policy: ClonedPolicy, optimizer: torch.optim.Optimizer, lessons: Lessons, config: DistilConfig, *, step: int
) -> float:
    """Some optimiser steps on the decisions of all rounds; returns the mean loss.

    The learning rate falls from `config.learning_rate` to 0 by a cosine, in every round anew. Each step draws a plan
    of each of its decisions with the probability of its weight, so that a regression learns the weighted mean of the
    plans, and a flow their weighted distribution.

    Raises:
        ValueError: The loss is not finite.
    """
    generator = torch.Generator().manual_seed(step)
    device = lessons.features.device
    total = 0.0
    for done in range(config.steps):
        rate = config.learning_rate * (1 + math.cos(math.pi * done / config.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = torch.randint(len(lessons.features), (config.batch,), generator=generator)
        plan = torch.multinomial(lessons.weights[index].cpu(), 1, generator=generator)[:, 0]
        loss = policy.loss(lessons.features[index], lessons.plans[index, plan.to(device)], generator).mean()
        if not torch.isfinite(loss):
            raise ValueError(f"round {step}: loss is {loss.item()}; lower --distil.learning-rate")
        optimizer.zero_grad()
        loss.backward()
        average_gradients(policy.head.parameters())
        optimizer.step()
        total += loss.item()
    return total / config.steps
