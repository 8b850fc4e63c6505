"""Real frames of recorded episodes, before a success, from which imagined rollouts begin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from worldmodel.data import Clip, EpisodeSource


@dataclass(frozen=True)
class Anchors:
    """Real frames from which rollouts begin, before the first success of their episodes.

    Attributes:
        episodes: Episode of each frame.
        frames: Index of each frame in its episode.
    """

    episodes: Int64[np.ndarray, "n"]
    frames: Int64[np.ndarray, "n"]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @classmethod
    def of(
        cls,
        source: EpisodeSource,
        episodes: Sequence[int],
        *,
        context: int,
        first_frames: bool = False,
        stride: int = 1,
    ) -> "Anchors":
        """All frames of the episodes that lie before a success, with `context - 1` before them.

        Frames of the context lie `stride` frames of the data apart. The first frame of an episode is among
        them, although no frames precede it; with `first_frames` there are no others.

        Raises:
            ValueError: There is no such frame.
        """
        found = []
        for episode in episodes:
            length = source.lengths[episode]
            successes = source.columns(episode).successes
            if successes is not None and successes.any():
                length = min(length, int(successes.int().argmax()) + 1)
            frames = [0] if first_frames else [0, *range(max((context - 1) * stride, 1), length)]
            found += [(episode, frame) for frame in frames]
        if not found:
            raise ValueError(f"{source.name}: episodes {list(episodes)} hold no frame to start from")
        columns = np.array(found, np.int64)
        return cls(columns[:, 0], columns[:, 1])

    def pick(self, index: Int64[np.ndarray, "m"]) -> "Anchors":
        """The anchors with the given indices, in their order."""
        return Anchors(self.episodes[index], self.frames[index])


def contexts(source: EpisodeSource, anchors: Anchors, *, context: int, stride: int = 1) -> list[Clip]:
    """The context of a dream from each anchor: `context` real frames, `stride` apart, or one for a first frame."""
    clips = []
    for episode, frame in zip(anchors.episodes.tolist(), anchors.frames.tolist(), strict=True):
        first = frame - (context - 1) * stride if frame else 0
        clips.append(source.read(episode, first, frame + 1, stride))
    return clips
