"""Videos of the trials that ended differently in the dream and in reality."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from policy_eval.evaluation import Trial
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import Cell, play
from policy_eval.scores import Scores
from worldmodel.data.video.write import write_video
from worldmodel.dreams.film import compare
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Disagreement:
    """One start of one policy.

    Attributes:
        policy: Name of the policy.
        seed: Reset seed of the start.
        dream: Outcome of the dream.
        real: Outcome in reality.
    """

    policy: str
    seed: int
    dream: float
    real: float

    @property
    def caption(self) -> str:
        """What happened, in words."""
        words = {True: "success", False: "failure"}
        return (
            f"{self.policy}, reset seed {self.seed}: {words[self.real > 0.5]} in reality (above), "
            f"{words[self.dream > 0.5]} in the dream (below)"
        )


def worst(dream: Mapping[str, Scores], real: Mapping[str, Scores], number: int) -> list[Disagreement]:
    """The disagreements to look at first.

    Policies take turns; the policy whose score the dream gets most wrong comes first. Within a policy,
    outcomes that are wrong in the same direction as its score come first.
    """
    order = sorted(set(dream) & set(real), key=lambda name: (-abs(dream[name].mean - real[name].mean), name))
    columns = []
    for name in order:
        _, mine, other = np.intersect1d(dream[name].seeds, real[name].seeds, return_indices=True)
        gap = dream[name].outcomes[mine] - real[name].outcomes[other]
        direction = 1.0 if dream[name].mean >= real[name].mean else -1.0
        rows = [i for i in np.argsort(-direction * gap, kind="stable") if gap[i] != 0]
        found = []
        for i in rows:
            ends = float(dream[name].outcomes[mine[i]]), float(real[name].outcomes[other[i]])
            found.append(Disagreement(name, int(dream[name].seeds[mine[i]]), *ends))
        columns.append(found)
    turns = [each for turn in zip_longest(*columns) for each in turn if each is not None]
    return turns[:number]


def film(
    setup: TrialSetup, policies: Mapping[str, str | Path], found: Sequence[Disagreement], out: Path
) -> list[tuple[Path, str]]:
    """Run the trials once more and write reality above dream; returns files and captions."""
    videos = []
    setup = replace(setup, num_envs=1)  # one dream at a time, since there is one start
    for each in found:
        file = out / "videos" / f"{each.policy}-{each.seed}.mp4"
        if not file.exists():
            start = setup.loaded_starts.seeds.index(each.seed)
            trials = {}
            for place in ("real", "dream"):
                kept: list[Trial] = []
                cell = Cell(place, each.policy, policies[each.policy], (start,))
                play(setup, cell, out, kept.append, [])
                trials[place] = kept[0].frames
            length = max(map(len, trials.values()))
            shown = [torch.from_numpy(_held(trials[p], length)) for p in ("real", "dream")]
            world = setup.loaded_world
            write_film(file, compare(*shown, world.views), world)
        videos.append((file, each.caption))
    return videos


def write_film(file: Path, frames: UInt8[np.ndarray, "t H W 3"], world: WorldModel) -> None:
    """Write the frames of trials at the speed of the world model, whose stride they have."""
    write_video(file, frames, world.fps / world.stride)


def _held(frames: np.ndarray, length: int) -> np.ndarray:
    """The frames, with the last one repeated up to `length` frames."""
    rest = np.repeat(frames[-1:], length - len(frames), axis=0)
    return np.concatenate([frames, rest])
