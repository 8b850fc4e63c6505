"""Where a world model loses the pushed block: in one frame, in which frames of a dream, and in which windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from objects import cell
from torch import Tensor

from worldmodel.data import EpisodeSource
from worldmodel.dreams.context import context_of
from worldmodel.envs import find_objects
from worldmodel.envs.pusht.scene import placed
from worldmodel.fidelity.comparison import LAST_CONTEXT, dream
from worldmodel.fidelity.intervals import statistic_interval
from worldmodel.fidelity.scores import object_scores
from worldmodel.fidelity.windows import Window, read_windows
from worldmodel.model.card import table
from worldmodel.world_model import WorldModel

RESTS_PX, SLOW_PX, CLOSE_PX = 0.05, 0.5, 1.0
"""Motion of the block in a frame below which it rests, and below which it is pushed slowly; an error that is small."""
RESTS = "the block rests"
READINGS, READING_STEPS = 8, np.array([2.0, 2.0, 2.0, 2.0, 0.035])
"""Largest number of steps in which a state is read off a picture, and the changes by which slopes are found."""
PUSHED_FRAMES = ((0, 0), (1, 10), (11, 25), (26, 50))
"""Windows are told apart by how many of their frames the block was pushed in."""
Group = Bool[np.ndarray, "*n"]


class Table(Protocol):
    """Draws states of PushT."""

    def drawn(self, state: Float[np.ndarray, "5"]) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of the top camera; the next one overwrites nothing of it."""
        ...


@dataclass(frozen=True)
class Truth:
    """What really happened in an episode.

    Attributes:
        actions: Row i was applied at frame i.
        states: Agent's x and y and the block's pose at every frame, world units and radians.
        corners: The block's corners in its own frame, world units.
    """

    actions: Float[np.ndarray, "n 2"]
    states: Float[np.ndarray, "t 5"]
    corners: Float[np.ndarray, "c 2"]

    def motion(self, begin: int, frames: int) -> Float[np.ndarray, "m"]:
        """How far the block's corners moved in each of the next frames: the mean, in pixels of 64."""
        places = np.stack([placed(self.corners, state[2:]) for state in self.states[begin : begin + frames + 1]])
        return np.linalg.norm(np.diff(places, axis=0), axis=-1).mean(-1) / 8


def dreams(
    world: WorldModel,
    source: EpisodeSource,
    windows: Sequence[Window],
    horizon: int,
    num_steps: int,
    batch: int,
    seed: int,
) -> UInt8[Tensor, "n m H W 3"]:
    """The pictures of the top camera in all dreamed frames of every window."""
    found, view = [], source.views.index("top")
    for first in range(0, len(windows), batch):
        part = slice(first, first + batch)
        clip = read_windows(source, windows[part], horizon=horizon, stride=1)
        stream = world.stream(context_of(clip), seeds=range(seed, seed + len(windows))[part])
        every, actions = range(1, horizon + 1), clip.actions[:, LAST_CONTEXT:]
        dreamed = dream(stream, actions, horizon=horizon, horizons=every, num_steps=num_steps)
        found.append(dreamed[:, :, view].clone())
        if horizon > 1:
            print(f"dreamed {first + len(clip.frames)} of {len(windows)} windows", flush=True)
    return torch.cat(found)


def recorded(source: EpisodeSource, windows: Sequence[Window], horizon: int) -> UInt8[Tensor, "n t H W 3"]:
    """The recorded pictures of the top camera in the windows, context first."""
    view, span = source.views.index("top"), LAST_CONTEXT + horizon + 1
    return torch.stack([source.read(w.episode, w.start, w.start + span).frames[:, view] for w in windows])


def motions(windows: Sequence[Window], truth: Mapping[int, Truth], horizon: int) -> Float[np.ndarray, "n m"]:
    """Motion of the block in every frame after the context, pixels of 64."""
    return np.stack([truth[w.episode].motion(w.start + LAST_CONTEXT, horizon) for w in windows])


def groups_of(motion: Float[np.ndarray, "*n"], before: Float[np.ndarray, "*n"]) -> dict[str, Group]:
    """Kinds of frames, by the motion in the frame and in the one before; a push that begins is in both kinds."""
    rests = motion < RESTS_PX
    return {
        RESTS: rests,
        "a push begins": ~rests & (before < RESTS_PX),
        f"it is pushed by less than {SLOW_PX:g} px": ~rests & (motion < SLOW_PX),
        f"it is pushed by {SLOW_PX:g} px or more": motion >= SLOW_PX,
    }


def one_frame_table(
    source: EpisodeSource,
    windows: Sequence[Window],
    truth: Mapping[int, Truth],
    dreamed: UInt8[Tensor, "n 1 H W 3"],
    drawing: Table,
    seed: int,
) -> str:
    """Markdown: errors of one frame that is dreamed from recorded frames.

    `share of the motion` is how much of the block's true motion the dream makes, by least squares; 1 is right, and less
    means that the block falls behind. `turn` is the error of the block's angle, and `reading` that of `read_state` in
    the recorded pictures.
    """
    frames = recorded(source, windows, 1)[:, LAST_CONTEXT:]
    last, now = (find_objects("pusht", frames[:, index]) for index in (0, 1))
    then = find_objects("pusht", dreamed[:, 0])
    moved, made = (each["block"].position - last["block"].position for each in (now, then))
    apart = {name: np.linalg.norm(then[name].position - now[name].position, axis=-1) for name in then}
    states = [truth[w.episode].states[w.start + LAST_CONTEXT + 1] for w in windows]
    turned, reading = (turns(drawing, each, states) for each in (dreamed[:, 0], frames[:, 1]))
    before = np.array([truth[w.episode].motion(w.start + LAST_CONTEXT - 1, 1)[0] for w in windows])
    episodes, rows = np.array([window.episode for window in windows]), []
    known = np.isfinite(made).all(-1) & np.isfinite(moved).all(-1)
    for name, group in groups_of(motions(windows, truth, 1)[:, 0], before).items():
        kept = group & known
        columns = (apart["block"], turned, reading, apart["agent"])
        cells = [cell(values[kept], episodes[kept], 2, seed) for values in columns]
        true = cell(np.linalg.norm(moved, axis=-1)[kept], episodes[kept], 2, seed)
        share = "-" if name == RESTS else share_cell(made[kept], moved[kept], episodes[kept], seed)
        rows.append([name, str(kept.sum()), true, cells[0], share, *cells[1:]])
    head = ["frames in which", "frames", "true motion, px", "block, px", "share of the motion"]
    head += ["turn, degrees", "reading, degrees", "agent, px"]
    return f"## Error of one frame that is dreamed from recorded frames\n\n{table(head, rows)}\n"


def turns(
    drawing: Table, pictures: UInt8[Tensor, "n H W 3"], states: Sequence[Float[np.ndarray, "5"]]
) -> Float[np.ndarray, "n"]:
    """By how many degrees the block's angle in each picture differs from that of its state."""
    pairs = zip(pictures.numpy(), states, strict=True)
    return np.array([abs(np.degrees(read_state(drawing, picture, state)[4] - state[4])) for picture, state in pairs])


def read_state(
    drawing: Table, picture: UInt8[np.ndarray, "H W 3"], guess: Float[np.ndarray, "5"]
) -> Float[np.ndarray, "5"]:
    """Read agent and block off a picture: the state that the simulator draws most like it, by Gauss-Newton.

    Args:
        drawing: Draws states.
        picture: A picture of the top camera.
        guess: A state near by; world units and radians.
    """
    state, best, least = guess.copy(), guess, np.inf
    for _ in range(READINGS):
        drawn = drawing.drawn(state).astype(float).ravel()
        apart = picture.astype(float).ravel() - drawn
        if apart @ apart >= least:
            break
        best, least = state, apart @ apart
        columns = []
        for step in np.diag(READING_STEPS):
            ahead, behind = (drawing.drawn(state + sign * step).astype(float).ravel() for sign in (1, -1))
            columns.append((ahead - behind) / 2)
        state = state + np.linalg.lstsq(np.stack(columns, 1), apart, rcond=None)[0].clip(-3, 3) * READING_STEPS
    return best


def growth_table(
    source: EpisodeSource,
    windows: Sequence[Window],
    truth: Mapping[int, Truth],
    dreamed: UInt8[Tensor, "n m H W 3"],
    seed: int,
) -> str:
    """Markdown: by how much the error of the block grows in a frame, by what truly happens to the block there."""
    errors = block_errors(source, windows, dreamed)
    errors = np.concatenate([np.zeros((len(errors), 1)), errors], axis=1)
    growth, motion = np.diff(errors, axis=1), motions(windows, truth, dreamed.shape[1])
    before = np.stack([truth[w.episode].motion(w.start + LAST_CONTEXT - 1, dreamed.shape[1]) for w in windows])
    episodes = np.repeat(np.array([w.episode for w in windows])[:, None], growth.shape[1], axis=1)
    known, rows = np.isfinite(growth), []
    for name, group in groups_of(motion, before).items():
        kept, close = group & known, group & known & (errors[:, :-1] < CLOSE_PX)
        row = [name, f"{kept.sum() / known.sum():.0%}", cell(growth[kept], episodes[kept], 2, seed)]
        row += [cell(growth[close], episodes[close], 2, seed), f"{growth[kept].sum() / len(windows):+.2f}"]
        rows.append(row)
    head = ["frames of a dream in which truly", "share of them", "growth of the error, px"]
    head += [f"growth where it was below {CLOSE_PX:g} px", f"growth in all {growth.shape[1]} frames, px"]
    return f"## In which frames of a dream the error of the block grows\n\n{table(head, rows)}\n"


def pushed_table(
    source: EpisodeSource,
    windows: Sequence[Window],
    truth: Mapping[int, Truth],
    dreamed: UInt8[Tensor, "n m H W 3"],
    seed: int,
) -> str:
    """Markdown: the error of the block in the last frame, by how many frames it was pushed in."""
    last = block_errors(source, windows, dreamed)[:, -1]
    copied = recorded(source, windows, dreamed.shape[1])[:, [LAST_CONTEXT]]
    stays = block_errors(source, windows, copied.expand_as(dreamed))[:, -1]
    pushed = (motions(windows, truth, dreamed.shape[1]) >= RESTS_PX).sum(1)
    episodes, rows = np.array([window.episode for window in windows]), []
    for low, high in PUSHED_FRAMES:
        kept = (pushed >= low) & (pushed <= high) & np.isfinite(last)
        cells = [cell(values[kept], episodes[kept], 1, seed) for values in (last, stays)]
        median = f"{np.median(last[kept]):.1f}" if kept.any() else "-"
        rows.append([f"{low} to {high}" if high else "0", str(kept.sum()), *cells, median])
    head = ["pushed in so many frames", "windows", f"error at {dreamed.shape[1]}, px", "copying", "median error"]
    return f"## The error of the block by how long it is pushed\n\n{table(head, rows)}\n"


def block_errors(
    source: EpisodeSource, windows: Sequence[Window], dreamed: UInt8[Tensor, "n m H W 3"]
) -> Float[np.ndarray, "n m"]:
    """Error of the block at every frame as in `worldmodel fidelity`; NaN where it is occluded in truth."""
    horizon = dreamed.shape[1]
    truth = find_objects("pusht", recorded(source, windows, horizon))["block"]
    found = find_objects("pusht", dreamed)["block"]
    return object_scores(truth, found, LAST_CONTEXT, range(1, horizon + 1))["error_px"].double().numpy()


def share_cell(made: Float[np.ndarray, "n 2"], true: Float[np.ndarray, "n 2"], episodes: Any, seed: int) -> str:
    """How much of the true motion is made, by least squares, with its interval over episodes."""
    if not len(made):
        return "-"

    def share(rows: np.ndarray) -> float:
        return float((made[rows] * true[rows]).sum() / (true[rows] ** 2).sum())

    ends = statistic_interval(share, episodes, seed=seed)
    around = "" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
    return f"{share(np.arange(len(made))):.2f}{around}"
