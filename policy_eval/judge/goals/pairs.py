"""Pairs of frames to learn from: several frames of each of a few episodes, compared with each other."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from worldmodel.data import EpisodeSource

FRAMES = 8
"""Frames of each drawn episode."""


@dataclass(frozen=True)
class Batch:
    """`f` frames of each of `e` episodes, in the order of time.

    Attributes:
        frames: The pictures, those of an episode side by side.
        times: Index of each in its episode.
    """

    frames: UInt8[Tensor, "n v H W 3"]
    times: Int64[Tensor, "e f"]


def draw_times(length: int, farthest: int, generator: torch.Generator) -> Int64[Tensor, " f"]:
    """A frame, uniformly, and frames after it whose distances are log-uniform, up to a quarter more than `farthest`.

    All distances between them occur, and near ones about as often as far ones.
    """
    first = torch.randint(length, (1,), generator=generator)
    reach = min(length - 1 - int(first), round(1.25 * farthest))
    steps = torch.expm1(torch.rand(FRAMES - 1, generator=generator) * torch.tensor(reach + 2.0).log())
    return torch.cat([first, first + steps.long().clamp(max=reach)]).sort().values


def draw_batch(source: EpisodeSource, episodes: range, number: int, farthest: int, generator: torch.Generator) -> Batch:
    """Frames of `number` episodes, drawn with replacement."""
    frames, times = [], []
    for place in torch.randint(len(episodes), (number,), generator=generator).tolist():
        episode = episodes[place]
        drawn = draw_times(source.lengths[episode], farthest, generator)
        first = int(drawn[0])
        frames.append(source.read(episode, first, int(drawn[-1]) + 1).frames[drawn - first])
        times.append(drawn)
    return Batch(torch.cat(frames), torch.stack(times))


def label_pairs(
    times: Int64[Tensor, "e f"], bins: Int64[Tensor, " bins"]
) -> tuple[Int64[Tensor, " pairs"], Int64[Tensor, " pairs"], Int64[Tensor, " pairs"]]:
    """Which frames are compared, and the bin of the steps between them.

    Within an episode every frame is compared with itself and with each later one. Besides, it is compared with the
    frame at its place in the next episode of the batch, which is in the last bin, that of another episode.

    Args:
        times: Of frames in the order of time.
        bins: Lowest number of steps of each bin, see `first_steps`.

    Returns:
        Index of the frame, index of the goal, and the bin; indices are of the frames, those of an episode side by side.
    """
    number, each = times.shape
    index = torch.arange(number * each).view(number, each)
    later: Bool[Tensor, "f f"] = torch.ones(each, each, dtype=torch.bool).triu()
    start, goal = (
        grid[:, later].flatten()
        for grid in (index[:, :, None].expand(-1, -1, each), index[:, None].expand(-1, each, -1))
    )
    steps = times.flatten()[goal] - times.flatten()[start]
    within = torch.bucketize(steps, bins, right=True) - 1
    elsewhere = torch.full((number * each,), len(bins))
    start = torch.cat([start, index.flatten()])
    goal = torch.cat([goal, index.roll(-1, 0).flatten()])
    return start, goal, torch.cat([within, elsewhere])
