"""One dream as a plain Gymnasium environment: what `gymnasium.make` makes."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import UInt8

from worldmodel.dreams.make import make_dreams


class Dream(gymnasium.Env):
    """One dream, with the interface of the real environment.

    ```python
    env = gymnasium.make("worldmodel.dreams:worldmodel/Dream-v0", world="world", data="data", judge="judge")
    observation, info = env.reset(seed=0)
    ```

    The start and the noise of the first episode are a pure function of `reset(seed=...)`, and later
    episodes follow from it. `reset(options={"start": index})` chooses the start.

    Args:
        world: As in `make_dreams`.
        data: Likewise.
        judge: Likewise.
        options: The other arguments of `make_dreams`, without `num_envs` and `autoreset_mode`, which a single
            environment does not have.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, world: Any, data: Any, judge: Any, **options: Any):
        several = sorted({"num_envs", "autoreset_mode"} & set(options))
        if several:
            raise ValueError(f"a single dream has no {several[0]}; gymnasium.make_vec makes several")
        self.envs = make_dreams(world, data, judge, num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **options)
        self.metadata = {key: value for key, value in self.envs.metadata.items() if key != "autoreset_mode"}
        self.render_mode = self.envs.render_mode
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin a dream; see the class for `seed` and `options`.

        Raises:
            ValueError: An option is unknown, or there is no such start.
        """
        super().reset(seed=seed)
        unknown = sorted(set(options or {}) - {"start"})
        if unknown:
            raise ValueError(f"reset of a single dream has the option start, got {unknown}")
        chosen = {"starts": [options["start"]]} if options else None
        observation, info = self.envs.reset(seed=seed, options=chosen)
        return _first(observation), _said(info)

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action, clipped to the action space, and dream the next frame.

        Raises:
            ValueError: The action has another shape than the action space, or is not finite.
        """
        observation, rewards, terminated, truncated, info = self.envs.step(np.asarray(action, np.float32)[None])
        return _first(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _said(info)

    def render(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The latest frame, cameras side by side; nothing if `render_mode` is `None`."""
        pictures = self.envs.render()
        return None if pictures is None else pictures[0]

    def close(self) -> None:
        """Close the dream."""
        self.envs.close()


def _first(observation: dict[str, Any]) -> dict[str, Any]:
    """The observation of the only stream."""
    return {name: _first(value) if isinstance(value, dict) else value[0] for name, value in observation.items()}


def _said(info: dict[str, Any]) -> dict[str, Any]:
    """What the only stream says, without the masks."""
    return {name: bool(values[0]) for name, values in info.items() if not name.startswith("_") and info[f"_{name}"][0]}
