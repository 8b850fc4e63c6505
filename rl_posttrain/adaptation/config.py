"""Settings of the adaptation of a policy, and the check of their numbers."""

from dataclasses import dataclass
from pathlib import Path

from worldmodel.display.ranges import Count, Positive, Several, Whole, check_ranges


@dataclass(frozen=True)
class AdaptConfig:
    """Adapt a policy that is shown a goal to a changed environment, by a few real rollouts of its own."""

    policy: str | Path
    """Folder of the policy, or hf://USER/NAME@REV; `worldmodel clone --goals` makes one."""
    real: str
    """The changed environment in which it acts: a name or module:Class."""
    out: Path
    """Folder of the adapted policy, its rollouts and the page `report.html`; a stopped adaptation there goes on."""
    shift: str = ""
    """One controlled change of the environment, see `worldmodel record --help`; by default there is none."""
    episodes: Count = 20
    """Number of real rollouts to learn from, in all rounds together."""
    rounds: Count = 4
    """The policy learns after each round from the rollouts of all rounds so far, and makes the next ones itself."""
    horizon: Several = 60
    """Maximum number of actions of a rollout, and of a trial."""
    steps: Count = 500
    """Optimiser steps after each round, on the policy's head; the encoders stay as they are."""
    learning_rate: Positive = 1e-3
    """Learning rate of AdamW at the first step of a round; it falls to 0."""
    batch: Count = 64
    """Frames per step; each is paired with every later frame drawn from its episode."""
    trials: Whole = 0
    """Real trials of the policy before and after, from the same fresh starts. The old one is kept if the adapted one
    does not succeed more often. Without trials the adapted policy is written unmeasured."""
    seed: Whole = 0
    """Seed of batches and of the starts of rollouts and trials, which differ from those of `worldmodel record` with a
    seed below 1000."""
    device: str = "auto"
    """Where the policy runs: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""


def check_numbers(config: AdaptConfig) -> None:
    """Raise a `ValueError` naming the field that is out of range."""
    check_ranges(config)
    if config.episodes % config.rounds:
        raise ValueError(f"episodes is a multiple of rounds, got {config.episodes} and {config.rounds}")
