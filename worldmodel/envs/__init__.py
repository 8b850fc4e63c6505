"""Real environments with scripted experts, and recording from them.

Importing this package is instant: a simulator is imported when its environment is made.
"""

import gymnasium

from worldmodel.envs.objects import ObjectTrack, find_objects, object_names, object_view

ENV_NAMES = ("pusht", "pusht-position")

__all__ = [
    "ENV_NAMES",
    "ObjectTrack",
    "find_objects",
    "make_env",
    "object_names",
    "object_view",
]


def make_env(name: str, **options: int) -> gymnasium.Env:
    """Make the environment `name`.

    Args:
        name: One of `ENV_NAMES`.
        options: Passed on: `size` (side of both pictures in pixels, 64) and `time_limit` (steps).

    Raises:
        ValueError: There is no environment of that name.
    """
    if name not in ENV_NAMES:
        raise ValueError(f"there is no environment {name!r}; known are {', '.join(ENV_NAMES)}")
    from worldmodel.envs.pusht import PushT, PushTPosition

    return (PushT if name == "pusht" else PushTPosition)(**options)
