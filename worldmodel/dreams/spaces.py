"""The spaces of a dream: the names of its observations, and actions within -1..1."""

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces
from jaxtyping import Float

KEYS = ("lerobot", "gym")
"""`lerobot`: `observation.images.CAMERA` and `observation.state`. `gym`: `pixels` and `agent_pos`, as in gym-pusht."""
IMAGES, STATE = "observation.images.", "observation.state"


def named_space(space: spaces.Dict, views: Sequence[str], keys: str) -> spaces.Dict:
    """The space of observations under the names of `keys`; see `named`."""
    return space if keys == "lerobot" else spaces.Dict(named(space.spaces, views, keys, several=spaces.Dict))


def named(observation: dict, views: Sequence[str], keys: str, *, several: type = dict) -> dict:
    """An observation with LeRobot's keys under the names of `keys`.

    With `gym`, `pixels` is the picture of the only camera, or a dictionary with the pictures of several.
    """
    if keys == "lerobot":
        return dict(observation)
    pictures = {view: observation[IMAGES + view] for view in views}
    found = {"pixels": pictures[views[0]] if len(views) == 1 else several(pictures)}
    return found | ({"agent_pos": observation[STATE]} if STATE in observation else {})


def other_pictures(space: spaces.Space, views: Sequence[str], size: Sequence[int]) -> str | None:
    """How the pictures of an environment differ from those of a dream, as a sentence; `None` if they do not.

    Args:
        space: The environment's space of observations, with LeRobot's keys.
        views: Cameras of the dream.
        size: Height and width of its frames.
    """
    shown = {name: each.shape for name, each in dict(space).items() if name.startswith(IMAGES)}
    for view in views:
        if (found := shown.get(IMAGES + view)) != (*size, 3):
            return f"the environment shows {IMAGES}{view} of shape {found}, the dream {(*size, 3)}"
    return None


def side_by_side(space: spaces.Box, number: int) -> spaces.Box:
    """The space of `number` actions in one vector."""
    return spaces.Box(np.tile(space.low, number), np.tile(space.high, number), dtype=np.float32)


def unit_box(space: spaces.Box, name: str) -> spaces.Box:
    """Actions of the same width within -1..1; `stretched` gives the raw ones.

    Raises:
        ValueError: The raw actions have no bounds.
    """
    if not space.is_bounded():
        raise ValueError(f"{name}: normalise_actions needs actions with bounds, got {space}")
    return spaces.Box(-1.0, 1.0, space.shape, np.float32)


def stretched(
    actions: Float[np.ndarray, "*n a"], low: Float[np.ndarray, "a"], high: Float[np.ndarray, "a"]
) -> Float[np.ndarray, "*n a"]:
    """Raw actions from those within -1..1: -1 becomes `low`, and 1 becomes `high`."""
    return (low + (actions + 1) / 2 * (high - low)).astype(np.float32)
