"""Which episodes and columns of a data set are read: the options of every command that opens data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from worldmodel.data.video.letterbox import FrameBudget
from worldmodel.display.ranges import Weight

SHOWN = 5  # reasons in one message


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns of a data set are read, and what happens to broken episodes."""

    skip_broken: bool = False
    """Leave out broken episodes. By default a data set with a broken episode is refused."""
    action_keys: tuple[str, ...] = ()
    """Columns that hold the action, side by side in this order; by default they are found by their names."""
    state_keys: tuple[str, ...] = ()
    """Columns that hold the state, side by side in this order; by default they are found by their names."""
    cache_gb: Weight | None = None
    """Most GB on the disk for decoded frames, and as many for files fetched from a URL; the least recently used go
    first. By default what the disk holds."""


@dataclass(frozen=True)
class DataOptions(ColumnOptions):
    """Which episodes and columns of a data set are read."""

    episodes: str = ""
    """Episodes to read: `50` means the first 50, `0:50,60` means 0 to 49 and 60; by default all."""


@dataclass(frozen=True)
class Request(DataOptions):
    """What a format is asked to read.

    Attributes:
        size: `(H, W)` of the frames to read, or a rule for it; `None` for the cameras' own.
        views: Names of the cameras to read, in this order; `None` for all. Nothing is required of other cameras.
    """

    size: tuple[int, int] | FrameBudget | None = None
    views: tuple[str, ...] | None = None


def chosen_episodes(name: str, total: int, episodes: str) -> list[int]:
    """The numbers that `episodes` names, each once, in its order.

    Args:
        name: The data set, for messages.
        total: How many episodes it has.
        episodes: As in `DataOptions.episodes`.

    Raises:
        ValueError: It is malformed, names an episode that is not there, or one twice.
    """
    if not episodes.strip():
        return list(range(total))
    chosen: list[int] = []
    for part in episodes.split(","):
        bounds = [bound.strip() for bound in part.split(":")]
        if len(bounds) > 2 or not all(bound.isdecimal() or (not bound and len(bounds) == 2) for bound in bounds):
            raise ValueError(f"--episodes {episodes}: {part.strip()!r} is neither a number nor a range such as 0:50")
        if "," not in episodes and len(bounds) == 1:
            bounds = ["0", *bounds]
        first = int(bounds[0] or 0)
        stop = first + 1 if len(bounds) == 1 else int(bounds[1] or total)
        if not first < stop <= total:
            raise ValueError(f"--episodes {episodes}: {part.strip()} is not within the {total} episodes of {name}")
        chosen += range(first, stop)
    if len(set(chosen)) < len(chosen):
        twice = next(number for number in chosen if chosen.count(number) > 1)
        raise ValueError(f"--episodes {episodes}: episode {twice} is named twice")
    return chosen


def intact_episodes(
    name: str, numbers: Sequence[int], broken: Mapping[int, str], options: DataOptions
) -> tuple[list[int], list[str]]:
    """The episodes to read, and a note about those left out.

    Args:
        name: The data set, for messages.
        numbers: The episodes that were asked for.
        broken: What is wrong with an episode, by its number; the others are whole.
        options: Whether broken episodes are left out.

    Raises:
        ValueError: Episodes are broken and are not to be left out, or all are broken; the message is one
            line that names all of them.
    """
    found = {number: broken[number] for number in numbers if number in broken}
    if not found:
        return list(numbers), []
    named = ranges(sorted(found))
    several = len(found) > 1
    reasons = "; ".join(f"{number}: {found[number]}" for number in sorted(found)[:SHOWN])
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    said = f"episode{'s' if several else ''} {named} of {len(numbers)} {'are' if several else 'is'} broken"
    kept = [number for number in numbers if number not in found]
    if not options.skip_broken or not kept:
        hint = "; --skip-broken leaves them out" if kept else ""
        raise ValueError(f"{name}: {said} ({reasons}{more}){hint}")
    return kept, [f"{said} and left out ({reasons}{more})"]


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: `0-3, 7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


DataPath = Annotated[str | Path | tuple[str | Path, ...], tyro.conf.arg(metavar="DATA [DATA ...]")]
"""The type of a command's `--data`: one data set, or several as one; see `open_episodes`."""
ReadOptions = Annotated[DataOptions, tyro.conf.arg(name="")]
"""The type of a command's field `reading`: its flags have no prefix."""
