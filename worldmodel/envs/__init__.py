"""Real environments with scripted experts, and recording from them.

Importing this package is instant: a simulator is imported when its environment is made.
"""

import gymnasium

from worldmodel.envs.pusht.objects import ObjectTrack, find_objects, object_names, object_view

ENV_NAMES = ("pusht", "pusht-position")
METAWORLD = "metaworld:"  # followed by a task of Meta-World, as in metaworld:push-v3

__all__ = [
    "ENV_NAMES",
    "METAWORLD",
    "ObjectTrack",
    "check_env_name",
    "find_objects",
    "is_embedded",
    "make_env",
    "object_names",
    "object_view",
]


def is_embedded(name: str) -> bool:
    """Whether `name` is an environment of this package; Meta-World checks its tasks."""
    return name in ENV_NAMES or name.startswith(METAWORLD)


def check_env_name(name: str) -> None:
    """Raise a `ValueError` if there is no environment `name`; Meta-World checks its tasks."""
    if not is_embedded(name):
        raise ValueError(f"there is no environment {name!r}; known are {', '.join(ENV_NAMES)}, {METAWORLD}TASK")


def make_env(name: str, **options: int | str) -> gymnasium.Env:
    """Make the environment `name`.

    Args:
        name: One of `ENV_NAMES`, or `metaworld:` and a task.
        options: Passed on: `size` (side of both pictures in pixels, 64), `time_limit` (steps) and
            `shift` (one controlled change, for tests out of distribution).

    Raises:
        ValueError: There is no environment of that name, or what it needs is not installed.
    """
    check_env_name(name)
    if name.startswith(METAWORLD):
        from worldmodel.envs.metaworld.env import MetaWorld

        return MetaWorld(name, **options)
    from worldmodel.envs.pusht.env import PushT, PushTPosition

    return (PushT if name == "pusht" else PushTPosition)(**options)
