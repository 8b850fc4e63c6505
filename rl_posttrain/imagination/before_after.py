"""A policy before and after, from the same real starts, side by side in videos."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from einops import rearrange, repeat
from jaxtyping import UInt8

from policy_eval.evaluation import Trial, evaluate
from policy_eval.policies.find import load_policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.data.video.write import write_video
from worldmodel.dreams.film import PICTURE_HEIGHT, label_strip
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_simulator


def before_after(
    policies: Mapping[str, str | Path],
    real: str,
    starts: Path,
    out: Path,
    *,
    videos: int,
    horizon: int,
    episodes: int | None = None,
    stride: int = 1,
) -> dict[str, Scores]:
    """Let policies act in the real environment from the same starts, and write videos of the first starts.

    Args:
        policies: Folders or `module:name`, by their labels in the videos.
        real: The environment, a name or `module:Class`.
        starts: Recorded episodes whose starts the trials use.
        out: Folder of the videos.
        videos: Number of videos.
        horizon: Maximum number of actions of a trial.
        episodes: Number of trials of each policy; as many as videos when not given.
        stride: Steps of the environment for which an action is held, as in a world model of this stride.

    Returns:
        The trials of every policy, on the same starts.

    Raises:
        ValueError: There are fewer recorded starts than trials.
    """
    source = open_episodes(starts)
    number = videos if episodes is None else episodes
    if number > len(source):
        raise ValueError(f"{starts}: {len(source)} episodes to start from, {number} needed")
    chosen = Starts(source, range(number))
    size = source.size[0]
    limit = horizon * stride
    make = partial(make_simulator, real, size=size, time_limit=limit)
    envs = RealEnvs(make, chosen, num_envs=min(number, 10), stride=stride)
    trials: dict[str, dict[int, Trial]] = {name: {} for name in policies}
    scores = {}
    for name, spec in policies.items():
        kept = trials[name]
        scores[name] = evaluate(
            load_policy(spec),
            envs,
            name=name,
            horizon=horizon,
            record=lambda trial, kept=kept: kept.update({trial.seed: trial}),
        )
    envs.close()
    out.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(chosen.seeds[:videos]):
        film = side_by_side({name: trials[name][seed] for name in policies})
        write_video(out / f"start_{index}.mp4", film, source.fps / stride)
    return scores


def side_by_side(trials: Mapping[str, Trial]) -> UInt8[np.ndarray, "m height width 3"]:
    """Trials from left to right, the first camera above the others; a finished trial shows its last frame."""
    length = max(len(trial.frames) for trial in trials.values())
    columns = []
    for name, trial in trials.items():
        scale = max(1, round(PICTURE_HEIGHT / trial.frames.shape[2]))
        index = np.minimum(np.arange(length), len(trial.frames) - 1)
        large = repeat(trial.frames[index], "m v h w c -> m v (h p) (w q) c", p=scale, q=scale)
        words = f"{name}: {'success' if trial.outcome == 1 else 'failure'}"
        label = repeat(label_strip([words], large.shape[3]), "h w c -> m h w c", m=length)
        columns.append(np.concatenate([label, rearrange(large, "m v h w c -> m (v h) w c")], 1))
    return np.concatenate(columns, axis=2)
