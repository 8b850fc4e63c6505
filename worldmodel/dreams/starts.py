"""Where trials start: frames of recorded episodes whose reset seeds are known."""

from collections.abc import Sequence

import torch
from gymnasium import spaces
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.data import Clip, EpisodeSource, stack_clips


class Starts:
    """The first frames of recorded episodes.

    Args:
        source: The episodes.
        episodes: Which of them; all by default.

    Attributes:
        seeds: Reset seed of each start, with which the simulator begins the same episode.
        frames: The frames of each start.
        states: The proprioceptive states, or `None`.

    Raises:
        ValueError: An episode does not exist, has no reset seed, or shares it with another.
    """

    def __init__(self, source: EpisodeSource, episodes: Sequence[int] | None = None):
        self.source = source
        self.episodes = tuple(range(len(source)) if episodes is None else episodes)
        if not self.episodes:
            raise ValueError(f"{source.name}: no episode to start from")
        self.seeds = tuple(self._seed(episode) for episode in self.episodes)
        if len(set(self.seeds)) < len(self.seeds):
            twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
            raise ValueError(f"{source.name}: episodes share the reset seeds {twice}")
        clips = stack_clips([source.read(episode, 0, 1) for episode in self.episodes])
        self.frames: UInt8[Tensor, "e v H W 3"] = clips.frames[:, 0]
        self.states: Float[Tensor, "e s"] | None = None
        if clips.states is not None:
            self.states = clips.states[:, 0]
        self.pixel_mask = clips.pixel_mask

    views = property(lambda self: tuple(self.source.views))

    def __len__(self) -> int:
        """Number of starts."""
        return len(self.episodes)

    def check(self, starts: Sequence[int]) -> None:
        """Raise a `ValueError` if there is no such start."""
        wrong = [start for start in starts if not 0 <= start < len(self)]
        if wrong:
            raise ValueError(f"{self.source.name}: starts {wrong} are not within 0..{len(self) - 1}")

    def clip(self, starts: Sequence[int]) -> Clip:
        """The chosen starts as a batch of clips of one frame each; indices are into `episodes`.

        Raises:
            ValueError: There is no such start.
        """
        self.check(starts)
        index = torch.tensor(list(starts))
        return Clip(
            frames=self.frames[index][:, None],
            states=None if self.states is None else self.states[index][:, None],
            pixel_mask=None if self.pixel_mask is None else self.pixel_mask[index],
            task=tuple(self.source.task(self.episodes[start]) for start in starts),
        )

    def spaces(self) -> tuple[spaces.Dict, spaces.Box]:
        """Spaces of one observation and of one action, derived from the data.

        Actions lie within the range of the data; states are not bounded.
        """
        rows = [self.source.columns(episode).actions for episode in self.episodes]
        actions = torch.cat(rows)
        named = {
            f"observation.images.{view}": spaces.Box(0, 255, (*self.source.size, 3), "uint8") for view in self.views
        }
        if self.states is not None:
            named["observation.state"] = spaces.Box(-float("inf"), float("inf"), (self.states.shape[-1],), "float32")
        low, high = actions.amin(0).numpy(), actions.amax(0).numpy()
        return spaces.Dict(named), spaces.Box(low, high, dtype="float32")

    def _seed(self, episode: int) -> int:
        if not 0 <= episode < len(self.source):
            raise ValueError(f"{self.source.name}: episode {episode} is not within 0..{len(self.source) - 1}")
        seed = self.source.reset_seed(episode)
        if seed is None:
            raise ValueError(f"{self.source.name}: episode {episode} has no reset_seed recorded")
        return seed
