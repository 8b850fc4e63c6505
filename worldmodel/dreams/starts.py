"""Where trials start: the first frames of recorded episodes."""

from collections.abc import Sequence
from functools import cached_property

import torch
from gymnasium import spaces
from jaxtyping import Float, UInt8
from torch import Tensor

from worldmodel.data import Clip, EpisodeSource, stack_clips


class Starts:
    """The first frames of recorded episodes of any data set.

    Args:
        source: The episodes.
        episodes: Which of them; all by default.

    Attributes:
        seeds: The seed of each start, from which the noise of its dreams and of a policy is made, and by
            which trials of one start are paired. It is the reset seed, with which the simulator begins
            the same episode; if an episode has none, it is the number of each episode in its data set (its
            place in `source` if several sets share numbers).
        resettable: Whether the seeds are reset seeds.
        frames: The frames of each start.
        states: The proprioceptive states, or `None`.
        tasks: The task of each start in words; empty where the data has none.

    Raises:
        ValueError: An episode does not exist, or shares its reset seed with another.
    """

    def __init__(self, source: EpisodeSource, episodes: Sequence[int] | None = None):
        self.source = source
        self.episodes = tuple(range(len(source)) if episodes is None else episodes)
        if not self.episodes:
            raise ValueError(f"{source.name}: no episode to start from")
        wrong = [episode for episode in self.episodes if not 0 <= episode < len(source)]
        if wrong:
            raise ValueError(f"{source.name}: episode {wrong[0]} is not within 0..{len(source) - 1}")
        self.seeds, self.resettable = _seeds(source, self.episodes)
        if len(set(self.seeds)) < len(self.seeds):
            twice = sorted({seed for seed in self.seeds if self.seeds.count(seed) > 1})
            raise ValueError(f"{source.name}: episodes share the reset seeds {twice}")
        clips = stack_clips([source.read(episode, 0, 1) for episode in self.episodes])
        self.frames: UInt8[Tensor, "e v H W 3"] = clips.frames[:, 0]
        self.states: Float[Tensor, "e s"] | None = None
        if clips.states is not None:
            self.states = clips.states[:, 0]
        self.pixel_mask = clips.pixel_mask
        self.tasks = tuple(source.task(episode) for episode in self.episodes)

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
            task=tuple(self.tasks[start] for start in starts),
        )

    def spaces(self) -> tuple[spaces.Dict, spaces.Box]:
        """Spaces of one observation and of one action, derived from the data.

        Actions lie within the range of all episodes of the data set, wherever the starts are from; states
        are not bounded.
        """
        named = {
            f"observation.images.{view}": spaces.Box(0, 255, (*self.source.size, 3), "uint8") for view in self.views
        }
        if self.states is not None:
            named["observation.state"] = spaces.Box(-float("inf"), float("inf"), (self.states.shape[-1],), "float32")
        low, high = self.action_range
        return spaces.Dict(named), spaces.Box(low.numpy(), high.numpy(), dtype="float32")

    @cached_property
    def action_range(self) -> tuple[Float[Tensor, "a"], Float[Tensor, "a"]]:
        """The lowest and the highest value of each dim of the actions in the data set; no picture is read.

        Raises:
            ValueError: The data has no actions.
        """
        rows = [self.source.columns(episode).actions for episode in range(len(self.source))]
        if not self.source.action_dim:
            raise ValueError(f"{self.source.name}: has no actions, so the range of actions is not known")
        return torch.cat(rows).amin(0), torch.cat(rows).amax(0)


def _seeds(source: EpisodeSource, episodes: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """A number for each start, and whether these numbers are reset seeds."""
    seeds = tuple(source.reset_seed(episode) for episode in episodes)
    if all(seed is not None for seed in seeds):
        return seeds, True
    numbers = tuple(source.origins[episode].number for episode in episodes)
    return (numbers if len(set(numbers)) == len(numbers) else tuple(episodes)), False
