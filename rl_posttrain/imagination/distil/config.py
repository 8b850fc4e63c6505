"""Settings of distillation, and the check of their numbers."""

from dataclasses import dataclass

from worldmodel.display.ranges import Count, Positive, Several, Share


@dataclass(frozen=True)
class DistilConfig:
    """How a policy learns from imagined plans."""

    plans: Several = 4
    """Number of plans that are compared at every decision; the first one is the policy's own."""
    sigma: Positive = 0.7
    """Spread of the plans around those of the policy, in standard deviations of the demonstrated actions."""
    lookahead: Count = 8
    """Number of imagined actions after which plans are compared."""
    temperature: Positive = 0.2
    """Temperature of the soft targets: a plan weighs exp(score / temperature). The scores are measured from the mean
    of the decision's plans, in standard deviations over all decisions of the round."""
    followed: Share = 0.5
    """Share of the dreams in which the best plan is carried out; in the others the policy acts by itself."""
    filtered: Share = 0.5
    """In dreams that succeed, the share of the target that is the plan that was carried out; the soft target has the
    rest."""
    steps: Count = 3000
    """Optimiser steps after each round of dreams, from the clone's head on the plans of all rounds. They take seconds:
    only the head learns. After few steps the policy has hardly learned the plans."""
    learning_rate: Positive = 5e-4
    """Learning rate of AdamW at the beginning of a round; it falls to 0 by a cosine."""
    batch: Count = 256
    """Decisions per optimiser step."""
