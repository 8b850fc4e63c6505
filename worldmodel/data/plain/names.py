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
MARKS = {"episode", "episode_index", "episode_id", "task_index", "done", "dones", "terminal", "terminated", "truncated"}
INDEX_LIKE = re.compile(r"|unnamed: ?\d+|__index_level_\d+__")
INDEX = {"index", "idx", "frame", "frames", "step", "steps", "row", "rows", "timestep", "timesteps"}
MAYBE_INDEX = {
    "i",
    "n",
    "k",
    "id",
    "ids",
    "no",
    "nr",
    "num",
    "number",
    "count",
    "counter",
    "seq",
    "sequence",
    "sample",
    "samples",
    "iter",
    "iteration",
    "tick",
    "ticks",
    "line",
}
TIME = {"t", "time", "times", "timestep", "timesteps", "timestamp", "timestamps", "stamp", "stamps", "elapsed"}
TIME |= {"sec", "secs", "seconds"}
MAYBE_TIME = {
    "clock",
    "epoch",
    "date",
    "datetime",
    "utc",
    "second",
    "nsec",
    "usec",
    "msec",
    "millis",
    "micros",
    "nanos",
}
UNITS = {"s", "ms", "us", "ns", "of", "from", "since", "in", "start", "begin"}
SOURCES = {
    "wall",
    "ros",
    "unix",
    "posix",
    "system",
    "sys",
    "sim",
    "monotonic",
    "header",
    "log",
    "rec",
    "recording",
    "recorded",
}
SOURCES |= {"camera", "cam", "image", "img", "video", "robot", "env", "episode", "data", "msg"}
BESIDE = UNITS | SOURCES | {"relative", "rel", "abs", "absolute", "global", "local"}
"""Words that may stand beside a word for an index or a time without changing its meaning."""
DIGIT = re.compile(r"(?<!ros)\d", re.I)  # `t1` and `step_0` may be anything
JOINED = re.compile(r"(?:index|idx|frame|step|row|count(?:er)?|number|num|id|time|stamp|secs?|ros|unix|wall|sim)")


def role_of(name: str) -> str:
    """`actions`, `states`, `rewards`, `successes`, or an empty string."""
    return next((role for role, spellings in ROLES.items() if name.lower() in spellings), "")


def words_of(name: str) -> list[str]:
    """The words of a name: of `frame_idx`, `frameIdx` and `frameidx` they are `frame` and `idx`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words: list[str] = []
    for word in re.findall(r"[a-z]+", spaced.lower()):
        known = word in INDEX | TIME
        parts = JOINED.findall(word)
        words += [word] if known or "".join(parts) != word else parts
    return words


def is_index(name: str) -> bool:
    """Whether a column is named like a count of rows, and like nothing else."""
    if INDEX_LIKE.fullmatch(name.strip().lower()):
        return True
    words = set() if DIGIT.search(name) else set(words_of(name))
    return bool(words & INDEX) and words <= INDEX | MAYBE_INDEX | BESIDE


def is_time(name: str) -> bool:
    """Whether a column is named like a time, and like nothing else."""
    words = set() if DIGIT.search(name) else set(words_of(name))
    return bool(words & TIME) and words <= INDEX | MAYBE_INDEX | TIME | MAYBE_TIME | BESIDE


def may_be_index(name: str) -> bool:
    """Whether a word of the name may mean a count of rows; the values decide."""
    return bool(set(words_of(name)) & (INDEX | MAYBE_INDEX))


def may_be_time(name: str) -> bool:
    """Whether a word of the name may mean a time; the values decide."""
    return bool(set(words_of(name)) & (TIME | MAYBE_TIME))


def is_mark(name: str) -> bool:
    """Whether a column is named like the number of the episode or a mark of its end, so that it is never an action."""
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
