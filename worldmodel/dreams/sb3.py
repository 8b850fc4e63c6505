"""Stable-Baselines3 on a dream: a thin adapter between two interfaces for parallel environments.

```python
from stable_baselines3 import PPO

envs = DreamEnv(world, starts, judge, num_envs=16, horizon=60)
agent = PPO("MultiInputPolicy", StableBaselinesEnv(envs), n_steps=64).learn(100_000)
policy = AgentPolicy(agent, keys=plain_key)        # for `evaluate`
```

Needs the extra `rl`: `pip install 'worldmodel[rl]'`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv


def plain_key(key: str) -> str:
    """A key that torch accepts as the name of a module: `observation.state` loses its dot."""
    return key.replace(".", "_")


class StableBaselinesEnv(VecEnv):
    """A Gymnasium vector environment as a `VecEnv` of Stable-Baselines3 (Raffin et al. 2021).

    Finished streams begin anew in the same step, and the last observation of the old episode is in
    `infos[i]["terminal_observation"]`, as Stable-Baselines3 expects it. Dots in the keys of
    observations become underscores.

    Args:
        envs: A `DreamEnv`, or another environment with autoreset `SAME_STEP` and a dictionary as
            its observation.

    Raises:
        ValueError: The environment has another autoreset mode.
    """

    def __init__(self, envs: VectorEnv):
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"Stable-Baselines3 needs autoreset {AutoresetMode.SAME_STEP}, envs have {mode}")
        self.envs = envs
        single = envs.single_observation_space.spaces
        observation_space = spaces.Dict({plain_key(name): s for name, s in single.items()})
        super().__init__(envs.num_envs, observation_space, envs.single_action_space)

    def reset(self) -> dict[str, np.ndarray]:
        """Begin all streams; `seed(s)` before it gives stream `i` the seed `s + i`."""
        seeds = None if self._seeds[0] is None else list(self._seeds)
        observation, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        return _renamed(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[dict]]:
        """Apply the actions; returns observations, rewards, which episodes are over, and the infos."""
        observation, rewards, terminated, truncated, info = self.envs.step(self.actions)
        dones = terminated | truncated
        infos: list[dict] = [{} for _ in dones]
        for stream in np.flatnonzero(dones):
            infos[stream] = {
                "terminal_observation": _renamed(info["final_obs"][stream]),
                "TimeLimit.truncated": bool(truncated[stream] and not terminated[stream]),
                "success": bool(terminated[stream]),
            }
        return _renamed(observation), rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Sequence[int] | int | None = None) -> list[Any]:
        """An attribute, the same for every stream."""
        return [getattr(self.envs, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: Sequence[int] | int | None = None) -> None:
        """Streams have no attributes of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"streams of a dream have no attribute {attr_name!r} to set")

    def env_method(
        self, method_name: str, *args: object, indices: Sequence[int] | int | None = None, **kwargs: object
    ) -> list[Any]:
        """Streams have no methods of their own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"streams of a dream have no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Sequence[int] | int | None = None) -> list[bool]:
        """No stream is wrapped."""
        return [False for _ in self._get_indices(indices)]


def _renamed(observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {plain_key(name): value for name, value in observation.items()}
