"""Several data sets of the same robot as one."""

import hashlib
from collections.abc import Sequence

from jaxtyping import Bool
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource

AGREE = ("views", "size", "action_dim", "state_dim", "robot_type")


class JoinedSource:
    """The episodes of several sources, one after the other; satisfies `EpisodeSource`.

    Args:
        sources: Of the same robot, with the same views, frame size, frame rate, action and state width.

    Raises:
        ValueError: Two sources differ in one of these, only one of them has rewards or successes, or an episode is
            in both.
    """

    def __init__(self, sources: Sequence[EpisodeSource]):
        first = sources[0]
        for other in sources[1:]:
            _check_agreement(first, other)
        _check_different(sources)
        self.sources = tuple(sources)
        self.name = ", ".join(source.name for source in sources)
        self.views, self.size, self.fps = first.views, first.size, first.fps
        self.action_dim, self.state_dim = first.action_dim, first.state_dim
        self.robot_type = first.robot_type
        self.own_size = max(source.own_size for source in sources)
        self.lengths = tuple(length for source in sources for length in source.lengths)
        self.origins = tuple(origin for source in sources for origin in source.origins)
        self.fingerprint = hashlib.sha256("".join(source.fingerprint for source in sources).encode()).hexdigest()
        self._places = [(source, episode) for source in sources for episode in range(len(source))]

    @property
    def pixel_mask(self) -> Bool[Tensor, "v H W"]:
        """False on letterbox padding."""
        return self.sources[0].pixel_mask

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """Read frames `start, start + stride, ... < stop` of an episode, without a batch axis."""
        source, number = self._place(episode)
        return source.read(number, start, stop, stride)

    def columns(self, episode: int, stride: int = 1) -> Clip:
        """The tables of a whole episode as in `read`, without decoding a picture: `frames` has no pixels."""
        source, number = self._place(episode)
        return source.columns(number, stride)

    def task(self, episode: int) -> str:
        """The task in words, or an empty string."""
        source, number = self._place(episode)
        return source.task(number)

    def reset_seed(self, episode: int) -> int | None:
        """The simulator seed of the episode's start, when it was recorded."""
        source, number = self._place(episode)
        return source.reset_seed(number)

    def _place(self, episode: int) -> tuple[EpisodeSource, int]:
        if not 0 <= episode < len(self):
            raise ValueError(f"{self.name}: episode {episode} is not within 0..{len(self) - 1}")
        return self._places[episode]


def _check_different(sources: Sequence[EpisodeSource]) -> None:
    seen: dict[tuple[str, int], EpisodeSource] = {}
    for source in sources:
        for origin in source.origins:
            before = seen.setdefault((origin.fingerprint, origin.number), source)
            if before is not source:
                raise ValueError(f"{source.name}: episode {origin.number} is in {before.name}, too")


def _check_agreement(first: EpisodeSource, other: EpisodeSource) -> None:
    facts = [(name, getattr(first, name), getattr(other, name)) for name in AGREE]
    facts.append(("frames per second", round(first.fps, 2), round(other.fps, 2)))
    facts.append(("letterbox", first.pixel_mask.tolist(), other.pixel_mask.tolist()))
    clips = [source.columns(0) for source in (first, other)]
    facts += [(f"column {name}", *(getattr(c, name) is not None for c in clips)) for name in ("rewards", "successes")]
    for name, mine, theirs in facts:
        if mine != theirs:
            values = "" if name == "letterbox" else f" {theirs}, in {first.name} it is {mine}"
            raise ValueError(f"{other.name}: {name} is{values or f' another one than in {first.name}; pass --size'}")
