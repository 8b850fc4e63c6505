"""Names under which actions, states, rewards and successes are found."""

import re
from collections.abc import Sequence

ROLES = {
    "actions": ("actions", "action", "acts", "act"),
    "states": ("states", "state", "observation.state", "observation_state", "proprio", "proprioception"),
    "rewards": ("rewards", "reward", "next.reward"),
    "successes": ("successes", "success", "next.success"),
}
"""The spellings of each column; an upper case letter is the same as a lower case one."""

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.I)
NUMBERED = re.compile(r"[ _.]?[\[(]?(\d+)[\])]?")
INDEX = {"", "index", "idx", "frame", "frames", "frame_index", "frame_id", "step", "steps", "row", "unnamed: 0"}
INDEX_LIKE = re.compile(r"unnamed: ?\d+|__index_level_\d+__")
MARKS = {"episode", "episode_index", "episode_id", "task_index", "done", "dones", "terminal", "terminated", "truncated"}
TIME = re.compile(
    r"t|(time|times|timestamps?|stamp|sec|secs|seconds)"
    r"([ _.\[(-]*(s|sec|secs|seconds|ms|us|ns|utc|unix)?[\])]?)?|elapsed\w*|(ros_)?time_?stamp\w*"
)


def role_of(name: str) -> str:
    """`actions`, `states`, `rewards`, `successes`, or an empty string."""
    return next((role for role, spellings in ROLES.items() if name.lower() in spellings), "")


def is_index(name: str) -> bool:
    """Whether a column is named like a count of rows."""
    name = name.strip().lower()
    return name in INDEX or bool(INDEX_LIKE.fullmatch(name))


def is_time(name: str) -> bool:
    """Whether a column is named like a time."""
    return bool(TIME.fullmatch(name.strip().lower()))


def is_mark(name: str) -> bool:
    """Whether a column is named like a number of the episode, or a mark of its end: no action, whatever its values."""
    return name.strip().lower() in MARKS


def expand(key: str, names: Sequence[str]) -> list[str]:
    """The columns that a key means: the one of this name, else `key_0`, `key_1`, ... in the order of their numbers.

    The numbers must be consecutive from 0 or 1; otherwise no column is meant.
    """
    if not names:
        return []
    key, lowered = key.lower(), {name: name.strip().lower() for name in names}
    same = [name for name in names if lowered[name] == key]
    if same:
        return same
    found = {}
    for name in names:
        match = NUMBERED.fullmatch(lowered[name][len(key) :]) if lowered[name].startswith(key) else None
        if match:
            found[int(match[1])] = name
    numbers = sorted(found)
    consecutive = numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))
    return [found[number] for number in numbers] if numbers and consecutive else []
