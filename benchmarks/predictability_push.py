"""How well can the object of push-v3 be predicted at all? As `predictability.py`, with the simulator alone.

```
python benchmarks/predictability_push.py --out runs/predictability-push
```

The episodes are those of `worldmodel record metaworld:push-v3 --behaviour play --episodes 12 --seed 7`, on which
`arm.py` measures a world model. They are simulated here, without pictures: the object's place is that of the
simulator, in pixels of 64 of the scene camera's picture. In every window the object is moved a little on the table, in
a random direction, and the same actions are applied again.
"""

import os
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from jaxtyping import Float, Float32, Int64
from predictability import slip_tables

from worldmodel.display.progress import ProgressLine
from worldmodel.dreams.context import CONTEXT_FRAMES
from worldmodel.envs.metaworld.env import MetaWorld
from worldmodel.envs.metaworld.points import image_points
from worldmodel.envs.record import SEED_STRIDE
from worldmodel.envs.scripts import behave
from worldmodel.fidelity.scores import MOVED_PX, ScoreTable
from worldmodel.files import write_json

HORIZONS = (1, 5, 10, 25)
"""Frames after the context after which the object is compared with the first run."""
SLIPS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Pixels of 64 by which the object is moved."""
PLACE = slice(9, 11)
"""The object's x and y among the simulator's coordinates."""
MILLIMETRE = 1e-3
TITLES = {
    "error_px": "Error of the object of push-v3 in pixels of 64, all windows",
    "moving_error_px": "Error of the object of push-v3 in pixels of 64, where it has moved by 2 px",
}


@dataclass(frozen=True)
class PushPredictability:
    """What is simulated."""

    out: Path
    """Folder of `push.json`."""
    episodes: int = 12
    """Episodes of play."""
    starts: int = 4
    """Windows of each episode."""
    draws: int = 2
    """Random directions in every window."""
    recording: int = 7
    """Seed of the recording, which gives the reset seeds."""
    seed: int = 0
    """Seed of the directions and of the bootstrap."""
    quick: bool = False
    """Two episodes with a window each, to see that everything runs."""


class Physics(MetaWorld):
    """Meta-World without pictures."""

    def get_obs(self) -> dict:
        """Nothing."""
        return {}

    @property
    def place(self) -> Float[np.ndarray, "2"]:
        """The object in the scene camera's picture, px of 64."""
        return image_points(self)[1]

    def push_aside(self, px: float, angle: float) -> None:
        """Move the object on the table in a direction, by so much that the picture shows it `px` away."""
        data, way = self.simulator.data, np.array([np.cos(angle), np.sin(angle)])
        before = self.place
        data.qpos[PLACE] += MILLIMETRE * way
        shown = self.vector[4:6].copy()
        self.vector[4:6] += MILLIMETRE * way
        per_millimetre = np.linalg.norm(self.place - before)
        self.vector[4:6] = shown
        data.qpos[PLACE] += MILLIMETRE * way * (px / per_millimetre - 1)


def played(env: Physics, seed: int) -> tuple[Float32[np.ndarray, "n 4"], Float[np.ndarray, "t 2"]]:
    """Actions of an episode of play, and the object's place in every frame."""
    env.reset(seed=seed)
    actions, places = [], [env.place]
    for action in islice(behave("play", env, np.random.default_rng([seed, 1])), env.episode_steps("play")):
        actions.append(np.asarray(action, np.float32).clip(-1, 1))
        env.step(actions[-1])
        places.append(env.place)
    return np.stack(actions), np.stack(places)


def replayed(
    env: Physics, seed: int, actions: Float32[np.ndarray, "n 4"], begin: int, px: float, angle: float
) -> Float[np.ndarray, "m 2"]:
    """The object's places after frame `begin`, where it is moved."""
    env.reset(seed=seed)
    for action in actions[:begin]:
        env.step(action)
    if px:
        env.push_aside(px, angle)
    places = []
    for action in actions[begin:]:
        env.step(action)
        places.append(env.place)
    return np.stack(places)


def measure(config: PushPredictability, env: Physics) -> tuple[ScoreTable, Int64[np.ndarray, "n"]]:
    """Errors of the object by row and window, means over the draws; and the episode of every window."""
    scores, found, episodes = ScoreTable(), {px: [] for px in SLIPS}, []
    truths = []
    with ProgressLine("replaying", config.episodes, unit="episodes") as progress:
        for index in range(config.episodes):
            seed = config.recording * SEED_STRIDE + index
            actions, places = played(env, seed)
            last = len(actions) - HORIZONS[-1] - CONTEXT_FRAMES
            for start in np.linspace(0, last, config.starts).round().astype(int):
                begin = int(start) + CONTEXT_FRAMES - 1
                truths.append(places[begin : begin + HORIZONS[-1] + 1])
                angles = np.random.default_rng([config.seed, index, begin]).uniform(0, 2 * np.pi, config.draws)
                for px in SLIPS:
                    cut = actions[: begin + HORIZONS[-1]]
                    again = [replayed(env, seed, cut, begin, px, angle) for angle in (angles if px else angles[:1])]
                    found[px].append(np.mean([np.linalg.norm(each - truths[-1][1:], axis=-1) for each in again], 0))
                episodes.append(index)
            progress.advance()
    travelled = np.linalg.norm(np.stack(truths)[:, 1:] - np.stack(truths)[:, :1], axis=-1)
    at = [horizon - 1 for horizon in HORIZONS]
    errors = {f"object by {px:g} px": np.stack(found[px]) for px in SLIPS} | {"copying the last frame": travelled}
    for name, values in errors.items():
        moving = np.where(travelled >= MOVED_PX, values, np.nan)
        for metric, each in (("error_px", values), ("moving_error_px", moving)):
            scores.add_horizons((name, metric), HORIZONS, torch.from_numpy(each[:, at]))
    return scores, np.array(episodes)


def main(config: PushPredictability) -> None:
    """Replay and print the tables."""
    if config.quick:
        config = replace(config, episodes=2, starts=1, draws=1)
    scores, episodes = measure(config, Physics("metaworld:push-v3", time_limit=10**6))
    report = scores.summary(episodes, seed=config.seed)
    config.out.mkdir(parents=True, exist_ok=True)
    write_json(config.out / "push.json", report)
    names = [name for name in report if name not in ("intervals", "n")]
    print(slip_tables(report, names, HORIZONS, TITLES), flush=True)


if __name__ == "__main__":
    main(tyro.cli(PushPredictability, description=__doc__))
