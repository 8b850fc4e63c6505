"""Train a matcher of cameras on recorded frames, or load one: `worldmodel fidelity --cross-view`."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from worldmodel.data import Clip, EpisodeCache, EpisodeSource, open_episodes, stack_clips
from worldmodel.data.options import DataOptions, ranges
from worldmodel.fidelity.cross_view.matcher import DESCRIPTION, CrossViewMatcher, MatcherConfig, check_cameras
from worldmodel.fidelity.windows import trained_episodes
from worldmodel.model.folder import find_optional
from worldmodel.model.precision import autocast
from worldmodel.training.build import data_notes
from worldmodel.training.fit import fit

MOMENTS = 64
"""Moments of a batch; each has to be told from the others."""
OF_EPISODE = 2
"""How many moments of a batch are of one episode, so that the scene alone does not tell them apart."""
LEARNING_RATE = 1e-3


def find_matcher(
    path: str | Path,
    source: EpisodeSource,
    measured: Sequence[int],
    *,
    steps: int,
    seed: int,
    device: torch.device,
    columns: DataOptions | None = None,
) -> CrossViewMatcher:
    """Load the matcher of a folder, or train one on recordings.

    Args:
        path: A folder with `matcher.json`, or a data set with the same cameras.
        source: The data that it will look at.
        measured: Episodes of it that are measured; the matcher must not have seen them.
        steps: Training steps on recordings.
        seed: Seed of weights and batches.
        device: Where it runs.
        columns: How recordings are read.

    Raises:
        ValueError: There is only one camera, the matcher does not fit the data, or it was trained on what is measured.
    """
    check_cameras(source.name, source.views)
    if is_matcher(path):
        matcher = CrossViewMatcher.load(path, device)
        matcher.check(source)
        check_unseen(str(path), matcher.train_data, source, measured)
        return matcher
    recordings = EpisodeCache(open_episodes(path, tuple(source.size), source.views, columns))
    CrossViewMatcher(MatcherConfig.of(recordings)).check(source)
    notes = data_notes(recordings, range(len(recordings)))
    check_unseen(recordings.name, notes, source, measured)
    return train_matcher(recordings, steps=steps, seed=seed, device=device)


def is_matcher(path: str | Path) -> bool:
    """Whether there is a trained matcher, and not recordings."""
    return find_optional(path, DESCRIPTION) is not None


def check_unseen(name: str, notes: Sequence[dict], source: EpisodeSource, measured: Sequence[int]) -> None:
    """Raise a `ValueError` where episodes that are measured are among those that a matcher was trained on."""
    seen = sorted(set(trained_episodes(notes, source)) & set(measured))
    if seen:
        raise ValueError(
            f"{name}: episodes {ranges(seen)} of {source.name} are to be measured, but the network that compares "
            "cameras would be trained on them, or was; pass other recordings as --cross-view"
        )


def train_matcher(source: EpisodeSource, *, steps: int, seed: int, device: torch.device | str) -> CrossViewMatcher:
    """Train by InfoNCE (van den Oord et al. 2018, 1807.03748; between views: Tian et al. 2019, 1906.05849).

    A batch has 64 moments, two of each drawn episode. Of a picture of one camera, the network has to find the picture
    that another camera took at the same moment, among those of the batch.

    Raises:
        ValueError: There is only one camera or one episode, `steps` is not positive, or the loss is not finite.
    """
    check_cameras(source.name, source.views)
    if len(source) < 2 or steps < 1:
        raise ValueError(
            f"{source.name}: {len(source)} episodes and --cross-view-steps {steps}; a matcher needs at least 2 and 1"
        )
    torch.manual_seed(seed)
    matcher = CrossViewMatcher(MatcherConfig.of(source)).to(device)
    matcher.train_data = data_notes(source, range(len(source)))

    def loss_of(step: int) -> Float[Tensor, ""]:
        clip = draw_moments(source, seed=seed, index=step)
        with autocast(device):
            codes = matcher(clip.frames[:, 0].to(device))
        return matching_loss(codes.float(), clip.view_mask, matcher.log_scale.exp())

    fit(matcher, loss_of, steps=steps, learning_rate=LEARNING_RATE, name="cross-view matcher")
    return matcher


def draw_moments(source: EpisodeSource, *, seed: int, index: int) -> Clip:
    """Batch `index`: 64 single frames, two of each drawn episode; a function of `seed` and `index`."""
    rng = np.random.default_rng((seed, index))
    episodes = rng.integers(len(source), size=MOMENTS // OF_EPISODE).repeat(OF_EPISODE)
    frames = [int(rng.integers(source.lengths[episode])) for episode in episodes]
    pairs = zip(episodes.tolist(), frames, strict=True)
    return stack_clips([source.read(episode, frame, frame + 1) for episode, frame in pairs])


def matching_loss(
    codes: Float[Tensor, "n v c"], view_mask: Bool[Tensor, "n v"] | None, scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean over all pairs of cameras, in both directions, of the cross-entropy of the right moment.

    Args:
        codes: Vectors of length 1 of the pictures of `n` moments.
        view_mask: False where a camera is missing; such moments are left out of the pairs with it.
        scale: Factor of the similarities.
    """
    losses = []
    for first, second in combinations(range(codes.shape[1]), 2):
        both = slice(None) if view_mask is None else view_mask[:, first] & view_mask[:, second]
        alike = scale * codes[both, first] @ codes[both, second].T
        right = torch.arange(len(alike), device=alike.device)
        losses += [cross_entropy(alike, right), cross_entropy(alike.T, right)] if len(right) > 1 else []
    return torch.stack(losses).mean() if losses else 0 * codes.sum()
