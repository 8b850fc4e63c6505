"""How well can the pushed block be predicted at all, and where does a world model lose it?

```
worldmodel record pusht --episodes 48 --seed 7 --out data/pusht-heldout48
python benchmarks/predictability.py --data data/pusht-heldout48 --world checkpoints/pusht --out runs/predictability
```

The simulator is brought into the recorded state at the last context frame of the windows that `worldmodel fidelity`
measures. There the block or the agent is put a little off its place, and the recorded actions are replayed. So one sees
which error a perfect simulator of the physics would have later on; moved by nothing, it has to repeat the recording. An
error is measured as in `fidelity`: in the drawn pictures, in pixels of 64, and it counts as moving where the recorded
block is 2 px or more away from its place in the last context frame. Beside that stand the dreams of a world model.

The other tables are about the dreams alone (`predictability_dreams.py`): the error of one frame from recorded frames,
in which frames of a dream the error grows, and the error after 50 frames by how long the block was pushed.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from jaxtyping import Float, Float32, UInt8
from leaderboard import check_settings
from predictability_dreams import Truth, dreams, growth_table, one_frame_table, pushed_table, read_state, recorded
from rivals import listed
from torch import Tensor

from worldmodel.data import EpisodeCache, EpisodeSource, open_episodes
from worldmodel.display.plots import panel, png
from worldmodel.display.progress import ProgressLine
from worldmodel.envs import find_objects
from worldmodel.envs.pusht.env import PushT
from worldmodel.fidelity.comparison import LAST_CONTEXT
from worldmodel.fidelity.scores import ScoreTable, object_scores
from worldmodel.fidelity.windows import Window, evenly_spaced_windows
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.processes import single_thread
from worldmodel.world_model import WorldModel

HORIZONS = (1, 5, 10, 25, 50)
"""Replayed or dreamed frames after which the block is compared with the recording."""
UNITS = 8.0
"""PushT's world units in a pixel of 64."""
AIM = 4.0
"""Pixels that the block may be off after 50 frames."""
FREE = ("out", "quick", "one_frame_starts", "batch")
METRICS = ("error_px", "moving_error_px")
WORLD, COPY = "the world model", "copying the last frame"
FROM_DREAM = "simulator from the world model's first frame"
FROM_RECORDING = "simulator from the recorded first frame"


@dataclass(frozen=True)
class Slip:
    """How far something is put off its place, in a random direction.

    Attributes:
        block: Pixels of 64 by which the block is moved.
        turn: Degrees by which it is turned about its centre of gravity, to either side.
        agent: Pixels of 64 by which the agent is moved.
        again: The same happens, in other directions, after every step in which the block moved.
    """

    block: float = 0.0
    turn: float = 0.0
    agent: float = 0.0
    again: bool = False


SLIPS: dict[str, Slip] = {
    "nothing": Slip(),
    **{f"block by {px:g} px": Slip(block=px) for px in (0.1, 0.25, 0.5, 1.0)},
    "block by 0.5 degrees": Slip(turn=0.5),
    "block by 1 degree": Slip(turn=1.0),
    "block by 2 degrees": Slip(turn=2.0),
    "block by 4 degrees": Slip(turn=4.0),
    **{f"agent by {px:g} px": Slip(agent=px) for px in (0.1, 0.5)},
    "block by 0.1 px after every push": Slip(block=0.1, again=True),
    "block by 0.25 px after every push": Slip(block=0.25, again=True),
    "block by 1 degree after every push": Slip(turn=1.0, again=True),
    "block by 2 degrees after every push": Slip(turn=2.0, again=True),
    "block by 0.33 px and 1 degree, agent by 0.15 px": Slip(0.33, 1.0, 0.15),
    "the same after every push": Slip(0.33, 1.0, 0.15, again=True),
    "a third of it after every push": Slip(0.11, 0.33, 0.05, again=True),
}
"""Rows of the table, by name; the last three have about the errors of one frame of the shipped world in a push."""


NAMES = (*SLIPS, FROM_RECORDING, FROM_DREAM, WORLD, COPY)
TITLES = {
    "error_px": "Error of the block in pixels of 64, all windows",
    "moving_error_px": "Error of the block in pixels of 64, while it moves",
}


@dataclass(frozen=True)
class Predictability:
    """What is replayed and dreamed."""

    data: Path
    """Episodes of PushT that the world model was not trained on."""
    out: Path
    """Folder of the figures and of `predictability.png`."""
    world: Path | None = None
    """Folder of a world model; without it only the simulator is measured."""
    episodes: int = 48
    """Episodes, the first ones."""
    starts: int = 4
    """Windows of each episode."""
    draws: int = 2
    """Random directions of every slip in every window."""
    one_frame_starts: int = 24
    """Frames of each episode that are dreamed one by one from recorded frames."""
    num_steps: int = 2
    """Denoising steps of the dreams."""
    batch: int = 16
    """Dreams side by side."""
    seed: int = 0
    """Seed of the directions, of the dreams' noise and of the bootstrap."""
    quick: bool = False
    """Five episodes with a window each, to see that everything runs."""


Change = Callable[["Physics"], None]
"""Changes the state of the simulator."""


class Physics(PushT):
    """PushT without pictures and scores, so that a step is its physics alone."""

    def get_obs(self) -> dict:
        """Nothing."""
        return {}

    def _get_coverage(self) -> float:
        return 0.0

    @property
    def state(self) -> Float[np.ndarray, "5"]:
        """The agent's x and y, and the block's pose, in world units and radians."""
        return np.array([*self.agent_position, *self.block_pose])

    def put(self, state: Float[np.ndarray, "5"]) -> None:
        """Move agent and block to where `state` says; the agent keeps its velocity."""
        self.agent.position = tuple(state[:2])
        self.block.angle = float(state[4])
        self.block.position = tuple(state[2:4])

    def drawn(self, state: Float[np.ndarray, "5"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of the top camera in a state."""
        self.scene.draw(state[:2], state[2:])
        return self.scene.top()


def slip(env: Physics, how: Slip, rng: np.random.Generator) -> None:
    """Put block and agent off their places."""
    block, agent = (
        UNITS * px * np.array([np.cos(angle), np.sin(angle)])
        for px, angle in zip((how.block, how.agent), rng.uniform(0, 2 * np.pi, 2), strict=True)
    )
    env.block.position = tuple(env.block.position + block)
    env.block.angle += float(rng.choice([-1, 1])) * np.radians(how.turn)
    env.agent.position = tuple(env.agent.position + agent)


def replay(
    env: Physics, seed: int, actions: Float32[np.ndarray, "n a"], begin: int, change: Change, *, again: bool = False
) -> Float[np.ndarray, "m 5"]:
    """The states from frame `begin` on, where something is changed.

    Args:
        env: The simulator.
        seed: Reset seed of the episode.
        actions: Recorded actions from the first frame on.
        begin: Frame of the change.
        change: What it is; called with the simulator.
        again: Change it also after every step in which the block moved.
    """
    env.reset(seed=seed)
    for action in actions[:begin]:
        env.step(action)
    change(env)
    states = [env.state]
    for action in actions[begin:]:
        env.step(action)
        if again and not np.allclose(env.state[2:], states[-1][2:], atol=0.01):
            change(env)
        states.append(env.state)
    return np.stack(states)


def truth_of(env: Physics, source: EpisodeSource, episodes: Sequence[int]) -> dict[int, Truth]:
    """Actions and states of every episode.

    Raises:
        ValueError: A replay does not show what was recorded.
    """
    found = {}
    for episode in episodes:
        clip = source.read(episode, 0, source.lengths[episode])
        states = replay(env, source.reset_seed(episode), clip.actions.numpy(), 0, lambda env: None)
        recorded = clip.states.numpy()
        if not np.allclose(states[:, :2], recorded, atol=1e-3):
            apart = np.abs(states[:, :2] - recorded).max()
            raise ValueError(f"{source.name}: the replay of episode {episode} is up to {apart:.3g} units off")
        found[episode] = Truth(clip.actions.numpy(), states, env.block_corners)
    return found


def replayed(
    env: Physics,
    source: EpisodeSource,
    windows: Sequence[Window],
    truth: Mapping[int, Truth],
    changes: Sequence[Change],
    *,
    again: bool = False,
    late: int = 0,
) -> UInt8[Tensor, "n h H W 3"]:
    """The pictures of the top camera at the horizons, where something changes `late` frames after the context."""
    pictures = []
    for window, change in zip(windows, changes, strict=True):
        last = window.start + LAST_CONTEXT
        actions = truth[window.episode].actions[: last + HORIZONS[-1]]
        states = replay(env, source.reset_seed(window.episode), actions, last + late, change, again=again)
        pictures.append(np.stack([env.drawn(states[horizon - late]) for horizon in HORIZONS]))
    return torch.from_numpy(np.stack(pictures))


class Rows:
    """The errors of the block in every window by row. They are kept on the disk; a row that is there is not made again.

    Args:
        config: Where they are kept, and the seed of the bootstrap.
        source: The recordings.
        windows: Where they are measured.
    """

    def __init__(self, config: Predictability, source: EpisodeSource, windows: Sequence[Window]):
        self.config, self.windows, self.scores = config, windows, ScoreTable()
        self.frames = recorded(source, windows, HORIZONS[-1])
        self.truth = find_objects("pusht", self.frames)["block"]

    def add(self, name: str, pictures: Callable[[int], UInt8[Tensor, "n h H W 3"]], draws: int = 1) -> None:
        """Add a row: the mean over the draws of every window; `pictures` gives those of a draw at the horizons."""
        file = self.config.out / "rows" / f"{name.replace(' ', '-')}.json"
        if not file.exists():
            found = [self.errors(pictures(draw)) for draw in range(draws)]
            means = {metric: listed(torch.stack([each[metric] for each in found]).mean(0)) for metric in METRICS}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, means)
        for metric, values in read_object(file).items():
            self.scores.add_horizons((name, metric), HORIZONS, torch.tensor(np.array(values, float)))

    def errors(self, pictures: UInt8[Tensor, "n h H W 3"]) -> dict[str, Float32[Tensor, "n h"]]:
        """Errors of the block at the horizons."""
        return object_scores(self.truth, find_objects("pusht", pictures)["block"], LAST_CONTEXT, HORIZONS)

    def report(self) -> dict:
        """Means and intervals over episodes, by row, metric and horizon."""
        return self.scores.summary(np.array([window.episode for window in self.windows]), seed=self.config.seed)


def add_slips(rows: Rows, env: Physics, source: EpisodeSource, truth: Mapping[int, Truth]) -> None:
    """Add a row for each of `SLIPS`; all have the same random directions."""
    config, number = rows.config, len(rows.windows)
    with ProgressLine("replaying", len(SLIPS), unit="rows") as progress:
        for name, how in SLIPS.items():

            def pictures(draw: int, how: Slip = how) -> UInt8[Tensor, "n h H W 3"]:
                rngs = [np.random.default_rng([config.seed, draw, index]) for index in range(number)]
                changes = [partial(slip, how=how, rng=rng) for rng in rngs]
                return replayed(env, source, rows.windows, truth, changes, again=how.again)

            rows.add(name, pictures, config.draws if how != Slip() else 1)
            progress.advance()


def add_world(
    rows: Rows, env: Physics, source: EpisodeSource, truth: Mapping[int, Truth], dreamed: UInt8[Tensor, "n m H W 3"]
) -> None:
    """Add the dreams, and the simulator that goes on from what was dreamed, or recorded, in the first frame."""
    rows.add(WORLD, lambda _: dreamed[:, [h - 1 for h in HORIZONS]])
    for name, first in ((FROM_DREAM, dreamed[:, 0]), (FROM_RECORDING, rows.frames[:, LAST_CONTEXT + 1])):

        def pictures(_: int, first: Tensor = first) -> UInt8[Tensor, "n h H W 3"]:
            changes = []
            for window, picture in zip(rows.windows, first, strict=True):
                state = read_state(env, picture.numpy(), truth[window.episode].states[window.start + LAST_CONTEXT + 1])
                changes.append(partial(Physics.put, state=state))
            return replayed(env, source, rows.windows, truth, changes, late=1)

        rows.add(name, pictures)


def slip_tables(
    report: Mapping[str, Mapping], names: Sequence[str], horizons: Sequence[int], titles: Mapping[str, str]
) -> str:
    """Markdown: for each metric that has a title a table with a row for each name that was measured."""
    sections = []
    for metric, title in titles.items():
        rows = []
        for name in (name for name in names if name in report):
            values, ends = report[name][metric], report["intervals"][name][metric]
            rows.append([name, *(cell(values[str(h)], ends[str(h)]) for h in horizons)])
        sections.append(f"## {title}\n\n{table(['moved at the start', *(f'at {h}' for h in horizons)], rows)}\n")
    return "\n".join(sections)


def cell(value: float | None, ends: Sequence[float] | None) -> str:
    """A mean with its interval."""
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]")


def plot(report: Mapping[str, Mapping], file: Path) -> None:
    """Draw the error of the block over the frames: slips of the block, and the world model."""
    figure, axes = panel(5.6, 4.6)
    shown = [name for name, how in SLIPS.items() if how.block and not how.turn]
    for name in [name for name in (*shown, FROM_DREAM, WORLD, COPY) if name in report]:
        style = {WORLD: {"color": "black", "lw": 2.5}, COPY: {"color": "0.6"}}.get(name, {})
        line = "--" if "every" in name else "-"
        axes.plot(HORIZONS, [report[name]["error_px"][str(h)] for h in HORIZONS], line, marker=".", label=name, **style)
    axes.axhline(AIM, color="0.5", lw=1, ls=":")
    axes.set_xlabel("frames after the context", fontsize=9)
    axes.set_ylabel("error of the block, px of 64", fontsize=9)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    figure.legend(fontsize=7, loc="outside lower center", ncols=2)
    file.write_bytes(png(figure))


def main(config: Predictability) -> None:
    """Replay, dream, print the tables."""
    if config.quick:
        config = replace(config, episodes=5, starts=1, draws=1, one_frame_starts=4)
    check_settings(config, FREE)
    with single_thread():
        source = EpisodeCache(open_episodes(config.data, (64, 64)))
        chosen, env = range(min(config.episodes, len(source))), Physics()
        windows = evenly_spaced_windows(source, starts=config.starts, horizon=HORIZONS[-1], stride=1, episodes=chosen)
        truth, parts = truth_of(env, source, chosen), []
        rows = Rows(config, source, windows)
        add_slips(rows, env, source, truth)
        rows.add(COPY, lambda _: rows.frames[:, [LAST_CONTEXT] * len(HORIZONS)])
        if config.world is not None:
            world, options = WorldModel.load(config.world, "cpu"), (config.num_steps, config.batch, config.seed)
            dreamed = dreams(world, source, windows, HORIZONS[-1], *options)
            add_world(rows, env, source, truth, dreamed)
            ones = evenly_spaced_windows(source, starts=config.one_frame_starts, horizon=1, stride=1, episodes=chosen)
            first = dreams(world, source, ones, 1, *options)
            parts.append(one_frame_table(source, ones, truth, first, env, config.seed))
            parts.append(growth_table(source, windows, truth, dreamed, config.seed))
            parts.append(pushed_table(source, windows, truth, dreamed, config.seed))
    report = rows.report()
    write_json(config.out / "predictability.json", report)
    print("\n".join([slip_tables(report, NAMES, HORIZONS, TITLES), *parts]), flush=True)
    plot(report, config.out / "predictability.png")


if __name__ == "__main__":
    main(tyro.cli(Predictability, description=__doc__))
