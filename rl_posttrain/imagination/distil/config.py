"""Settings of distillation, and the check of their numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DistilConfig:
    """How a policy learns from imagined plans."""

    plans: int = 4
    """Number of plans that are compared at every decision; the first one is the policy's own."""
    sigma: float = 0.7
    """Spread of the plans around those of the policy, in standard deviations of the demonstrated actions."""
    lookahead: int = 8
    """Number of imagined actions after which plans are compared."""
    temperature: float = 0.2
    """Temperature of the soft targets: a plan weighs exp(score / temperature). The scores are measured from the mean
    of the decision's plans, in standard deviations over all decisions of the round."""
    followed: float = 0.5
    """Share of the dreams in which the best plan is carried out; in the others the policy acts by itself."""
    filtered: float = 0.5
    """In dreams that succeed, the share of the target that is the plan that was carried out; the soft target has the
    rest."""
    steps: int = 3000
    """Optimiser steps after each round of dreams, from the clone's head on the plans of all rounds. They take seconds:
    only the head learns. After few steps the policy has hardly learned the plans."""
    learning_rate: float = 5e-4
    """Learning rate of AdamW at the beginning of a round; it falls to 0 by a cosine."""
    batch: int = 256
    """Decisions per optimiser step."""


def check_distil(config: DistilConfig) -> None:
    """Raise a `ValueError` naming the field that is out of range."""
    for name, least in (("plans", 2), ("lookahead", 1), ("steps", 1), ("batch", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"distil.{name} is at least {least}, got {getattr(config, name)}")
    for name in ("sigma", "temperature", "learning_rate"):
        if not getattr(config, name) > 0:
            raise ValueError(f"distil.{name} is above 0, got {getattr(config, name)}")
    for name in ("followed", "filtered"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"distil.{name} is between 0 and 1, got {getattr(config, name)}")
