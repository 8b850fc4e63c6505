"""Train the network of a `GoalJudge` on recorded episodes, without labels."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import cross_entropy

from policy_eval.judge.disturb import disturb
from policy_eval.judge.goals.judge import GoalNetwork, first_steps
from policy_eval.judge.goals.pairs import FRAMES, draw_batch, label_pairs
from worldmodel.data import EpisodeSource
from worldmodel.model.precision import autocast
from worldmodel.training.fit import fit
from worldmodel.training.share import share


def half_disturbed(frames: UInt8[Tensor, "n v H W 3"], generator: torch.Generator) -> UInt8[Tensor, "n v H W 3"]:
    """The frames, every second one as a dream would show it: goals are real pictures, the frames to judge dreamed."""
    mixed = frames.clone()
    mixed[::2] = disturb(frames[::2], generator)
    return mixed


def fit_goals(
    network: GoalNetwork,
    source: EpisodeSource,
    episodes: range,
    *,
    farthest: int,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    log: Path | None = None,
) -> float:
    """Train in place by classifying the steps between pairs of frames; returns the mean loss of the last steps.

    Args:
        network: The network to train.
        source: Episodes of any kind; only the frames are read.
        episodes: Those to learn from.

    Other Arguments:
        farthest: That of the network's shape.
        steps: Optimiser steps.
        batch: Frames per step, a multiple of 8: 8 frames of each drawn episode.
        learning_rate: At the first step.
        seed: Seed of the batches.
        log: File of the progress.

    Raises:
        ValueError: `batch` holds fewer than two episodes, or the loss is not finite.
    """
    if batch < 2 * FRAMES:
        raise ValueError(f"--batch is at least {2 * FRAMES}, {FRAMES} frames of two episodes, got {batch}")
    generator = torch.Generator().manual_seed(seed)
    device, bins = next(network.parameters()).device, first_steps(farthest)

    def loss_of(step: int) -> Float[Tensor, ""]:
        drawn = draw_batch(source, episodes, batch // FRAMES, farthest, generator)
        pairs = torch.stack(label_pairs(drawn.times, bins))
        frames = half_disturbed(drawn.frames, generator)
        own = share().rows(len(drawn.times))
        mine = pairs[:, (pairs[0] >= FRAMES * own.start) & (pairs[0] < FRAMES * own.stop)]
        used, index = mine[:2].unique(return_inverse=True)
        with autocast(device):
            features = network.features(frames[used].to(device))
            logits = network.compare(features[index[0]], features[index[1]])
        return cross_entropy(logits.float(), mine[2].to(device)) * share().weight(mine.shape[1], pairs.shape[1])

    return fit(network, loss_of, steps=steps, learning_rate=learning_rate, name="judge of goals", log=log)
