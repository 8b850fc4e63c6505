"""Where the limit of a signal lies: recorded episodes, and the world model's dreams of the same actions, set it.

The limit should not call a faithful dream unsure. The recordings themselves are faithful, and of their dreams those
that end as the recording did, success or failure, count as such. The others do not, so that a bad world model does
not get a high limit from its own mistakes. At most a share `error` of each of the two kinds exceeds the limit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch.nn.utils.rnn import pad_sequence

from policy_eval.abstention.signals import Signal
from policy_eval.abstention.verdicts import find_limit
from policy_eval.evaluation import Trial
from worldmodel.data import Clip
from worldmodel.display.progress import ProgressLine
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import World
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation

BATCH = 32
"""Trials whose signal is computed together."""


@dataclass(frozen=True)
class Limit:
    """The limit of a signal, and what set it.

    Attributes:
        value: A trial is unsure from the first step whose signal is above it.
        error: Share of faithful trials that may exceed it.
        recordings: Number of recorded episodes.
        faithful: Number of those whose dreams end as they did.
        exceeded: Share of the other dreams that exceed the limit; `None` if there is none. If it is not well above
            `error`, the signal does not tell wrong dreams from right ones.
    """

    value: float
    error: float
    recordings: int
    faithful: int
    exceeded: float | None

    def to_json(self) -> dict:
        """A dictionary that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class Replays:
    """Recorded episodes as trials, and the dreams of their actions, in the same order."""

    recorded: list[Trial]
    dreamed: list[Trial]


def replay(
    world: World, judge: Judge, starts: Starts, *, horizon: int, num_steps: int, seed: int, batch: int, log: Path
) -> Replays:
    """Dream the recorded actions of every start; a trial ends with its first success, or after `horizon` actions.

    Args:
        world: The world model.
        judge: Judges the dreamed frames; the recording tells its own successes.
        starts: The recorded episodes.
        horizon: Most actions of a trial.
        num_steps: Denoising steps per frame.
        seed: Seed of the noise.
        batch: Dreams side by side.
        log: File of the progress.

    Raises:
        ValueError: The recordings have no `next.success`, or one has no action.
    """
    found = Replays([], [])
    with ProgressLine("recordings", len(starts), unit="episodes", log=log) as progress:
        for first in range(0, len(starts), batch):
            rows = range(first, min(first + batch, len(starts)))
            clips = [_recorded(starts, row, horizon, world.stride) for row in rows]
            seeds = [starts.seeds[row] for row in rows]
            stream = world.stream(starts.clip(rows), seeds=[mix_seed(seed, each) for each in seeds])
            actions = pad_sequence([clip.actions for clip in clips], batch_first=True)
            tasks = tuple(starts.tasks[row] for row in rows)
            seen, successes = [], []
            for action in actions.unbind(1):
                each = stream.step(action, num_steps=num_steps)
                successes.append(judge(Observation(each.frames, each.states, tasks)).successes.cpu())
                seen.append(Observation(each.frames.cpu(), None if each.states is None else each.states.cpu()))
            for row, (number, clip) in enumerate(zip(seeds, clips, strict=True)):
                called = torch.stack([step[row] for step in successes])[: len(clip.actions)]
                found.recorded.append(_trial(number, clip))
                found.dreamed.append(_trial(number, replace(_shown(clip, seen[: len(called)], row), successes=called)))
            progress.advance(len(clips))
    return found


def calibrate(signal: Signal, replays: Replays, error: float, name: str) -> Limit:
    """Set the limit of a signal; arguments and errors as for `limit_by`."""
    same = [a.outcome == b.outcome for a, b in zip(replays.recorded, replays.dreamed, strict=True)]
    recorded = peaks(signal, replays.recorded) if signal.reads_recordings else None
    return limit_by(peaks(signal, replays.dreamed), np.array(same), recorded, error, name)


def limit_by(
    dreamed: Float64[np.ndarray, "e"],
    same: Bool[np.ndarray, "e"],
    recorded: Float64[np.ndarray, "e"] | None,
    error: float,
    name: str,
) -> Limit:
    """Set a limit by the highest signal of every trial.

    Args:
        dreamed: Of the dreams of recorded actions.
        same: Which of these end as the recording did.
        recorded: Of the recordings themselves; `None` for a signal that only dreams have.
        error: Largest share of faithful trials that exceeds the limit.
        name: Of the recordings, for messages.

    Raises:
        ValueError: The error is out of range, or too few dreams end as the recording did.
    """
    value = find_limit([dreamed[same]] if recorded is None else [dreamed[same], recorded], error, name)
    others = dreamed[~same]
    exceeded = float((others > value).mean()) if len(others) else None
    return Limit(value, error, len(dreamed), int(same.sum()), exceeded)


def peaks(signal: Signal, trials: Sequence[Trial]) -> Float64[np.ndarray, "e"]:
    """The highest signal of every trial."""
    found = []
    for first in range(0, len(trials), BATCH):
        found += [trace.max() for trace in signal(trials[first : first + BATCH])]
    return np.array(found)


def _recorded(starts: Starts, row: int, horizon: int, stride: int) -> Clip:
    """The first `horizon` steps of a recorded episode."""
    source, episode = starts.source, starts.episodes[row]
    clip = source.read(episode, 0, min(source.lengths[episode], horizon * stride + 1), stride)
    if clip.successes is None:
        raise ValueError(f"{source.name}: no next.success, which tells the dreams that end as the recording did")
    if not len(clip.actions):
        raise ValueError(f"{source.name}: episode {episode} has no action")
    return clip


def _shown(clip: Clip, seen: Sequence[Observation], row: int) -> Clip:
    """A recording with the frames and states of one stream in place of its own, but for the first."""
    frames = torch.stack([clip.frames[0], *(each.frames[row] for each in seen)])
    states = None if clip.states is None else torch.stack([clip.states[0], *(each.states[row] for each in seen)])
    return Clip(frames, clip.actions, states)


def _trial(seed: int, clip: Clip) -> Trial:
    """A clip up to its first success as a trial; frames beyond its actions are left out."""
    solved = torch.nonzero(clip.successes)
    steps = int(solved[0]) + 1 if len(solved) else len(clip.actions)
    states = None if clip.states is None else clip.states[: steps + 1].numpy()
    actions = clip.actions[:steps].double().numpy()
    return Trial(seed, float(len(solved) > 0), clip.frames[: steps + 1].numpy(), actions, states)
