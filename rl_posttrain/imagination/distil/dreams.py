"""Dreams side by side: one that succeeds makes room for the next."""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rl_posttrain.imagination.dreams import Setting
from worldmodel.data import Clip, stack_clips
from worldmodel.dreams.world import begin, held
from worldmodel.streaming.noise import mix_seed
from worldmodel.training.share import collected, share


class Dreams:
    """A fixed number of streams, and the dreams that they have gone through, numbered as they begin.

    Args:
        setting: World model and judge.
        starts: What the dreams begin with, without end.
        number: Number of streams, over all processes.
        seed: Seed of the dreams' noise.

    Attributes:
        own: The streams of this process.
        stream: These streams, running.
        current: The dream that each stream is in, of all processes.
        solved: Whether the judge has seen a success, of every dream so far, of all processes.

    Raises:
        ValueError: The streams do not divide by the number of processes.
    """

    def __init__(self, setting: Setting, starts: Iterator[Clip], number: int, seed: int):
        self.setting, self.starts, self.seed = setting, starts, seed
        self.current = torch.arange(number)
        self.solved = torch.zeros(number, dtype=torch.bool)
        self.own = share().equal_rows(number, "--streams")
        self.stream = begin(setting.world, list(islice(starts, number))[self.own], self._seeds(range(number)[self.own]))

    def go_on(self, actions: Float[Tensor, "n h a"], *, num_steps: int) -> None:
        """Carry out some actions in every stream; then the streams of solved dreams begin new ones."""
        solved = torch.zeros(len(actions), dtype=torch.bool, device=actions.device)
        for action in actions.unbind(1):
            seen = self.stream.step(held(action, self.setting.world.stride), num_steps=num_steps)
            solved |= self.setting.judge(seen).successes.to(solved.device)
        self.solved[self.current] |= collected(solved, len(self.current)).cpu()
        free = self.solved[self.current].nonzero()[:, 0].tolist()
        clips = list(islice(self.starts, len(free)))
        for length in {len(clip.frames) for clip in clips}:
            chosen = [i for i, clip in enumerate(clips) if len(clip.frames) == length]
            fresh = range(len(self.solved), len(self.solved) + len(chosen))
            streams = [free[i] for i in chosen]
            self._reset([(s, clips[i], f) for s, i, f in zip(streams, chosen, fresh, strict=True)])
            self.current[streams] = torch.tensor(fresh)
            self.solved = torch.cat([self.solved, torch.zeros(len(chosen), dtype=torch.bool)])

    def _reset(self, begun: list[tuple[int, Clip, int]]) -> None:
        """Begin dreams in the streams of this process: stream, context and number of each."""
        first, stop = self.own.start, self.own.stop
        mine = [(stream - first, clip, dream) for stream, clip, dream in begun if first <= stream < stop]
        if mine:
            streams, clips, dreams = zip(*mine, strict=True)
            self.stream.reset(list(streams), stack_clips(clips), seeds=self._seeds(dreams))

    def shares(self, follows: Bool[Tensor, "n"]) -> dict[str, float]:
        """The share of the streams' first dreams that succeed: `solved`, and `solved_alone` where no planner acts."""
        first = self.solved[: len(follows)].float()
        return {"solved": float(first.mean())} | (
            {} if follows.all() else {"solved_alone": float(first[~follows].mean())}
        )

    def _seeds(self, dreams: Iterable[int]) -> list[int]:
        return [mix_seed(self.seed, dream) for dream in dreams]
