"""Choose the windows of held-out episodes that are dreamed, and the actions under which they are dreamed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource, stack_clips
from worldmodel.dreams.context import CONTEXT_FRAMES

Alteration = Literal["shuffled", "hold", "mirrored"]
ALTERATIONS: tuple[Alteration, ...] = ("shuffled", "hold", "mirrored")


@dataclass(frozen=True)
class Window:
    """Where a dream starts: `start` is the first context frame, counted in frames of the data."""

    episode: int
    start: int


def trained_episodes(train_data: Sequence[Mapping[str, Any]], source: EpisodeSource) -> list[int]:
    """Episodes of `source` that a world model was trained on.

    An episode counts when its number is listed under the fingerprint of its data set, or when the training
    data was recorded from the same environment with the same reset seed, whatever file it lies in.

    Args:
        train_data: `WorldModel.train_data`: `fingerprint`, `episodes`, `reset_seeds`, `robot_type`.
        source: The data to measure on.

    Returns:
        Their indices, in order.
    """
    listed, seeds = set(), set()
    for data in train_data:
        listed.update((data["fingerprint"], number) for number in data["episodes"])
        if data["robot_type"] == source.robot_type and data["reset_seeds"] is not None:
            seeds.update(data["reset_seeds"])
    seeds.discard(None)
    known = [(origin.fingerprint, origin.number) in listed for origin in source.origins]
    return [e for e in range(len(source)) if known[e] or source.reset_seed(e) in seeds]


def evenly_spaced_windows(
    source: EpisodeSource, *, starts: int, horizon: int, stride: int, episodes: Sequence[int] | None = None
) -> list[Window]:
    """`starts` windows of every episode, from its beginning to the last one that fits.

    There are fewer where an episode does not have that many different starts.

    Args:
        source: The data to measure on.
        starts: Windows per episode.
        horizon: Dreamed frames.
        stride: Frames of the data per frame of the world model.
        episodes: Which ones; all when not given.

    Raises:
        ValueError: An episode is too short for the context and the horizon.
    """
    span = (CONTEXT_FRAMES + horizon - 1) * stride + 1
    windows = []
    for episode in range(len(source)) if episodes is None else episodes:
        length = source.lengths[episode]
        if length < span:
            raise ValueError(
                f"{source.name}: episode {episode} has {length} frames, but {CONTEXT_FRAMES} of "
                f"context and a horizon of {horizon} at stride {stride} take {span}; lower "
                "the --horizon"
            )
        spaced = np.linspace(0, length - span, starts).round().astype(int)
        windows += [Window(episode, start) for start in dict.fromkeys(spaced.tolist())]
    return windows


def read_windows(source: EpisodeSource, windows: Sequence[Window], *, horizon: int, stride: int) -> Clip:
    """Read context and horizon of every window, stacked along a batch axis."""
    span = (CONTEXT_FRAMES + horizon - 1) * stride + 1
    return stack_clips([source.read(w.episode, w.start, w.start + span, stride) for w in windows])


def shuffled_partners(windows: Sequence[Window], *, seed: int) -> list[Window] | None:
    """For every window, a window of another episode whose actions it gets.

    The episodes are put in a random circular order, and each takes the actions of the next one, from
    the window of the same rank. So no episode keeps its own actions, and none is used twice.

    Returns:
        The partners in the order of `windows`, or `None` when there is only one episode.
    """
    by_episode: dict[int, list[Window]] = {}
    for window in windows:
        by_episode.setdefault(window.episode, []).append(window)
    if len(by_episode) < 2:
        return None
    ring = np.random.default_rng(seed).permutation(list(by_episode)).tolist()
    following = dict(zip(ring, ring[1:] + ring[:1], strict=True))
    partners = []
    for window in windows:
        others = by_episode[following[window.episode]]
        partners.append(others[by_episode[window.episode].index(window) % len(others)])
    return partners


def holding_actions(
    actions: Float32[Tensor, "b m a"],
    state: Float32[Tensor, "b s"] | None,
    *,
    relative_to: Mapping[int, int],
    stride: int,
) -> Float32[Tensor, "b m a"]:
    """The action that asks the robot to stay where it is: its own state, or zero.

    Args:
        actions: Recorded actions, for their shape; the actions of a stride are concatenated.
        state: State of the last context frame; needed where `relative_to` is not empty.
        relative_to: `{action dim: state dim}` of the actions that are absolute targets. The other
            ones are assumed to be velocities or displacements, which are zero at rest.
        stride: Actions concatenated in one.
    """
    hold = torch.zeros_like(rearrange(actions, "b m (k a) -> b m k a", k=stride))
    for action_dim, state_dim in relative_to.items():
        hold[..., action_dim] = rearrange(state[:, state_dim], "b -> b 1 1")
    return rearrange(hold, "b m k a -> b m (k a)")


def mirrored_actions(actions: Float32[Tensor, "b m a"], hold: Float32[Tensor, "b m a"]) -> Float32[Tensor, "b m a"]:
    """Recorded actions reflected about the holding action: `2 hold - action`.

    A displacement changes its sign; an absolute target is reflected about the state of the last
    context frame, so that the whole path, not only its first step, is the point reflection of the
    recorded one.
    """
    return 2 * hold - actions
