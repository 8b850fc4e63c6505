"""An environment is a `gymnasium.Env` with LeRobot's keys. All other facts about it are derived here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

IMAGES = "observation.images."
STATE = "observation.state"
EXPECTED = f"a Dict with {IMAGES}CAMERA (uint8, height width 3) and, if there is a state, {STATE} (float32, one axis)"
SUCCESS_KEYS = ("success", "is_success")


@dataclass(frozen=True)
class EnvFacts:
    """The facts about an environment besides its spaces.

    An environment can have an attribute of the same name, which replaces the default; `episode_steps`
    can also be a method that takes the name of the behaviour and returns the number of steps.

    Attributes:
        name: The name with which `worldmodel.envs.make_env` makes it again; `module:Class` by default.
        task: The task in words; empty by default.
        fps: Frames per second, `metadata["render_fps"]`.
        views: Height and width in pixels of each camera, from the observation space.
        action_names: A name for each dim of an action; `action_0` and so on by default.
        state_names: Likewise of `observation.state`; empty where there is none.
        stops_on_success: By default `None`: an episode ends when `step` returns terminated or
            truncated. If an environment allows more steps after it has terminated, its recordings
            can last to their full length (`False`) or end three steps after the first success
            (`True`).
    """

    name: str
    task: str
    fps: int
    views: Mapping[str, tuple[int, int]]
    action_names: tuple[str, ...]
    state_names: tuple[str, ...]
    stops_on_success: bool | None


def describe(env: gymnasium.Env, name: str = "") -> EnvFacts:
    """Check an environment, and derive the facts that it does not state itself.

    Args:
        env: The environment; need not have been reset.
        name: The name with which it was made; by default its own `name` or `module:Class`.

    Raises:
        ValueError: A part of an environment is missing or wrong; the message says what was found.
    """
    name = name or name_of(env)
    _check_methods(env, name)
    views, state_dim = _check_observations(env, name)
    action = getattr(env, "action_space", None)
    if not isinstance(action, spaces.Box) or len(action.shape) != 1 or action.dtype.kind != "f":
        raise ValueError(f"environment {name}: action_space is {action}, expected a Box of floats with one axis")
    task = _own(env, "task", "")
    if not isinstance(task, str):
        raise ValueError(f"environment {name}: its attribute task is {task!r}, expected the task in words")
    return EnvFacts(
        name=name,
        task=task,
        fps=_fps(env, name),
        views=views,
        action_names=_names(env, "action", action.shape[0], name),
        state_names=_names(env, "state", state_dim, name),
        stops_on_success=_own(env, "stops_on_success", None),
    )


def name_of(env: gymnasium.Env) -> str:
    """The name with which `worldmodel.envs.make_env` makes an environment again: its own, or `module:Class`."""
    return _own(env, "name", f"{type(env).__module__}:{type(env).__qualname__}")


def episode_limit(env: gymnasium.Env, behaviour: str) -> int | None:
    """Largest number of steps of a recorded episode, `None` where the environment does not state one.

    It is the first that exists of the environment's own `episode_steps`, its `time_limit`, and the
    `max_episode_steps` of its `gymnasium` registration.

    Raises:
        ValueError: It is not a whole number of at least 1.
    """
    registered = None if env.spec is None else env.spec.max_episode_steps
    steps = _own(env, "episode_steps", _own(env, "time_limit", registered))
    steps = steps(behaviour) if callable(steps) else steps
    if steps is not None and (not isinstance(steps, int | np.integer) or steps < 1):
        raise ValueError(
            f"environment {name_of(env)}: the most steps of an episode, episode_steps or time_limit, are {steps!r}, "
            "expected a whole number of at least 1"
        )
    return steps


def succeeded(terminated: bool, info: Mapping[str, Any]) -> bool:
    """Whether the task is solved after a step.

    This is `info["success"]` or `info["is_success"]`; in an environment that has neither, an episode
    that terminates is a success.
    """
    said = [bool(info[key]) for key in SUCCESS_KEYS if key in info]
    return any(said) if said else bool(terminated)


def begin(env: gymnasium.Env, seed: int, name: str = "") -> dict[str, np.ndarray]:
    """Reset an environment with a seed, check its observation, and return it.

    Raises:
        ValueError: The observation does not fit the observation space.
    """
    observation, _ = env.reset(seed=seed)
    where = f"environment {name or name_of(env)}"
    expected = env.observation_space.spaces
    if not isinstance(observation, dict) or set(observation) != set(expected):
        found = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
        raise ValueError(f"{where}: reset returns {found}, its observation space has {sorted(expected)}")
    for key, space in expected.items():
        value = observation[key]
        if not isinstance(value, np.ndarray) or (value.shape, value.dtype) != (space.shape, space.dtype):
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"{where}: {key} is {found}, its observation space says {space.dtype} {space.shape}")
    return observation


def _own(env: gymnasium.Env, name: str, default: Any) -> Any:
    """An optional attribute of an environment, also of one inside wrappers."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def _check_methods(env: gymnasium.Env, name: str) -> None:
    for method in ("reset", "step"):
        if getattr(type(env), method) is getattr(gymnasium.Env, method):
            raise ValueError(
                f"environment {name}: an environment has reset and step; the class {type(env).__name__} has no {method}"
            )


def _check_observations(env: gymnasium.Env, name: str) -> tuple[dict[str, tuple[int, int]], int]:
    """Height and width of each camera, and the width of the state."""
    space = getattr(env, "observation_space", None)
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"environment {name}: observation_space is {space}, expected {EXPECTED}")
    views, state_dim = {}, 0
    for key, part in space.spaces.items():
        kind = (part.dtype, len(part.shape)) if isinstance(part, spaces.Box) else None
        if key.startswith(IMAGES) and kind == (np.uint8, 3) and part.shape[2] == 3:
            views[key.removeprefix(IMAGES)] = part.shape[:2]
        elif key == STATE and kind == (np.float32, 1):
            state_dim = part.shape[0]
        else:
            raise ValueError(f"environment {name}: observation_space has {key!r}: {_short(part)}, expected {EXPECTED}")
    if not views:
        raise ValueError(f"environment {name}: observation_space has {list(space.spaces)}, expected {EXPECTED}")
    return views, state_dim


def _short(space: spaces.Space) -> str:
    return f"{type(space).__name__} of {space.dtype} {space.shape}"


def _fps(env: gymnasium.Env, name: str) -> int:
    fps = env.metadata.get("render_fps")
    if fps is None or fps != int(fps) or fps < 1:
        raise ValueError(
            f'environment {name}: metadata["render_fps"], the frames per second, is {fps}, expected a whole number '
            "of at least 1"
        )
    return int(fps)


def _names(env: gymnasium.Env, what: str, width: int, name: str) -> tuple[str, ...]:
    names = tuple(_own(env, f"{what}_names", [f"{what}_{dim}" for dim in range(width)]))
    if len(names) != width:
        raise ValueError(f"environment {name}: {what}_names are {names}, but there are {width} dims")
    return names
