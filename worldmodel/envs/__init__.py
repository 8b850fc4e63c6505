"""Real environments: those of this package by name, any other one as `module:Class`.

Importing this package is instant: a simulator is imported when its environment is made.
"""

import functools
import inspect

import gymnasium

from worldmodel.envs.protocol import describe
from worldmodel.envs.pusht.objects import ObjectTrack, find_objects, object_masks, object_names, object_view
from worldmodel.resolve import absent, has_module, is_spec, kind_of, missing_extra, nearest, resolve

ENVIRONMENTS = {
    "pusht": "worldmodel.envs.pusht.env:PushT",
    "pusht-position": "worldmodel.envs.pusht.env:PushTPosition",
    "pusht-rope": "worldmodel.envs.materials.rope:PushTRope",
    "pusht-sand": "worldmodel.envs.materials.sand:PushTSand",
}
"""The environments of this package: a name and where its class is."""
ENV_NAMES = tuple(ENVIRONMENTS)
METAWORLD = "metaworld:"  # followed by a task of Meta-World, as in metaworld:push-v3
LIBERO = "libero:"  # followed by a suite and a task of LIBERO, as in libero:libero_object/0
FAMILIES = {
    METAWORLD: "worldmodel.envs.metaworld.env:MetaWorld",
    f"{LIBERO}libero_object": "worldmodel.envs.libero.env:LiberoObject",
    LIBERO: "worldmodel.envs.libero.env:Libero",
}
"""The beginning of a name and where the class is that is made with the name; the first one counts."""
PUSHT_MODULES = ("gym_pusht", "pymunk", "cv2")
MODULES = {METAWORLD: ("metaworld", "mujoco"), LIBERO: ("libero", "robosuite", "mujoco")}
"""Modules that the environments of this package need and that a plain installation lacks."""

__all__ = [
    "ENV_NAMES",
    "LIBERO",
    "METAWORLD",
    "ObjectTrack",
    "check_env_name",
    "find_objects",
    "has_simulator",
    "is_foreign",
    "lacks",
    "make_env",
    "make_simulator",
    "object_masks",
    "object_names",
    "object_view",
]


def is_foreign(name: str) -> bool:
    """Whether `name` has the form `module:Class`, so that it is not an environment of this package."""
    return is_spec(name) and not name.startswith(tuple(FAMILIES))


def check_env_name(name: str) -> None:
    """Raise a `ValueError` if `name` is neither an environment of this package nor `module:Class`.

    The packages that an environment of this package needs have to be installed. Whether Meta-World or LIBERO has the
    task, or the module has the class, is only checked when the environment is made.
    """
    if lacking := lacks(name):
        raise ValueError(f"environment {name} {lacking}")
    if name in ENVIRONMENTS or name.startswith(tuple(FAMILIES)) or is_foreign(name):
        return
    near = nearest(name, ENV_NAMES)
    raise ValueError(
        f"there is no environment {name!r}; known are {', '.join(ENV_NAMES)}, {METAWORLD}TASK, {LIBERO}SUITE/TASK, "
        f"and module:Class for one of yours{f'; {near}' if near.startswith('did') else ''}"
    )


def has_simulator(name: str) -> bool:
    """Whether `name` is an environment that can be made here, so that a simulator can run beside a dream.

    For `module:Class` only the module is searched for: it may be missing on another machine. So may be the
    packages that PushT, Meta-World and LIBERO need.
    """
    if is_foreign(name):
        return has_module(name)
    return (name in ENVIRONMENTS or name.startswith(tuple(FAMILIES))) and lacks(name) is None


def lacks(name: str) -> str | None:
    """Which package an environment of this package needs that is not installed, as the end of a message.

    `None` where all are installed, and for any other name.
    """
    if name in ENVIRONMENTS:
        return missing_extra(absent(*PUSHT_MODULES))
    modules = next((needed for prefix, needed in MODULES.items() if name.startswith(prefix)), ())
    return missing_extra(absent(*modules))


def make_env(name: str, **options: int | str) -> gymnasium.Env:
    """Make the environment `name`.

    Args:
        name: One of `ENV_NAMES`, `metaworld:` and a task, `libero:` and a suite and a task, or `module:Class` for any
            class derived from `gymnasium.Env`; see `docs/extend/environment.md`.
        options: Passed to the class. The environments here take `size` (side of the pictures in pixels),
            `time_limit` (steps) and `shift` (one controlled change, for tests out of distribution).

    Raises:
        ValueError: There is no environment of that name, a package that it needs is not installed,
            its class does not take an option, or the class is not a complete environment.
    """
    kind = env_class(name)
    accepted = accepted_options(name)
    if accepted is not None and (unknown := sorted(set(options) - accepted)):
        takes = f"takes {', '.join(sorted(accepted))}" if accepted else "takes no options"
        raise ValueError(f"environment {name}: you asked for {unknown[0]}, but the class {kind.__name__} {takes}")
    arguments = (name,) if name.startswith(tuple(FAMILIES)) else ()
    try:
        inspect.signature(kind).bind(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"environment {name}: {kind.__name__}({_written(options)}) fails: {error}") from error
    env = kind(*arguments, **options)
    describe(env, name)
    return env


def make_simulator(name: str, **wishes: int) -> gymnasium.Env:
    """Make the environment `name` with those of the options that its class takes.

    Args:
        name: As for `make_env`.
        wishes: `size` and `time_limit`. A class that does not take them has pictures of its own
            size, and ends episodes by its own rule; a caller that needs a size has to check it.

    Raises:
        ValueError: As `make_env`.
    """
    accepted = accepted_options(name)
    return make_env(name, **{key: value for key, value in wishes.items() if accepted is None or key in accepted})


def env_class(name: str) -> type[gymnasium.Env]:
    """The class behind the name of an environment.

    Raises:
        ValueError: There is none, a package that it needs is not installed, or it is not derived from
            `gymnasium.Env`.
    """
    check_env_name(name)
    ours = (path for prefix, path in FAMILIES.items() if name.startswith(prefix))
    path = next(ours, ENVIRONMENTS.get(name, name))
    found = resolve(path, "environment")
    if not (isinstance(found, type) and issubclass(found, gymnasium.Env)):
        raise ValueError(f"environment {name}: expected a class derived from gymnasium.Env, found {kind_of(found)}")
    return found


@functools.cache
def accepted_options(name: str) -> frozenset[str] | None:
    """Names of the options that the class of an environment takes; `None` where it takes any."""
    parameters = inspect.signature(env_class(name)).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    named = {each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)}
    return frozenset(named - ({"name"} if name.startswith(tuple(FAMILIES)) else set()))


def _written(options: dict[str, int | str]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())
