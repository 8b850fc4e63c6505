"""The film of a dreamed trial, where no disagreement with reality can be shown."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from policy_eval.evaluation import Trial
from policy_eval.ranking.disagreements import write_film
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import Cell, play
from policy_eval.scores import Scores
from worldmodel.dreams.film import side_by_side


def film_best(
    setup: TrialSetup, policies: Mapping[str, str | Path], dream: Mapping[str, Scores], out: Path
) -> tuple[Path, str]:
    """Dream the first trial of the best policy once more, and write it; returns the file and its caption."""
    name = min(dream, key=lambda name: (-dream[name].mean, name))
    seed = int(dream[name].seeds[0])
    file = out / "videos" / f"dream-{name}-{seed}.mp4"
    if not file.exists():
        setup = replace(setup, num_envs=1)  # one dream at a time, since there is one start
        trials: list[Trial] = []
        cell = Cell("dream", name, policies[name], (setup.loaded_starts.seeds.index(seed),))
        play(setup, cell, out, trials.append, [])
        world = setup.loaded_world
        write_film(file, side_by_side({"dream": torch.from_numpy(trials[0].frames)}, world.views), world)
    ending = "success" if dream[name].outcomes[0] > 0.5 else "failure"
    return file, f"A dream of {name}, the first in the leaderboard: its first trial, a {ending}"
