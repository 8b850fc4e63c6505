"""Stable-Baselines3 on a dream: a thin adapter between two interfaces for parallel environments.

```python
from stable_baselines3 import PPO

envs = DreamEnv(world, starts, judge, num_envs=16, horizon=60, normalise_actions=True)
agent = PPO("MultiInputPolicy", VecMonitor(StableBaselinesEnv(envs)), n_steps=64).learn(100_000)
policy = AgentPolicy(agent, keys=plain_key, bounds=(envs.action_low, envs.action_high))  # for `evaluate`
```

Needs the extra `rl`: `pip install 'worldmodel[rl]'`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

Observations = dict[str, np.ndarray]


def plain_key(key: str) -> str:
    """A key that torch accepts as the name of a module: `observation.state` loses its dot."""
    return key.replace(".", "_")


class StableBaselinesEnv(VecEnv):
    """A Gymnasium vector environment as a `VecEnv` of Stable-Baselines3 (Raffin et al. 2021).

    Finished streams begin anew in the same step, and the last observation of the old episode is in
    `infos[i]["terminal_observation"]`, as Stable-Baselines3 expects it. `infos[i]["is_success"]` is in
    every step, so that its logger shows the success rate, and
    `VecMonitor(envs, info_keywords=("is_success",))` works. Dots in the keys of observations become
    underscores.

    Args:
        envs: A `DreamEnv`, or another environment with autoreset `SAME_STEP` and a dictionary as
            its observation. Make it with `normalise_actions=True`: Stable-Baselines3 explores with a spread
            of about 1, whatever the bounds are.
        features: Maps a batch of observations to the arrays that the agent sees, for example features of
            the pictures from a frozen network; by default it sees everything.

    Raises:
        ValueError: The environment has another autoreset mode.

    Warns:
        UserWarning: The actions do not lie within -1..1.
    """

    def __init__(self, envs: VectorEnv, features: Callable[[Observations], Observations] | None = None):
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"Stable-Baselines3 needs autoreset {AutoresetMode.SAME_STEP}, envs have {mode}")
        low, high = envs.single_action_space.low, envs.single_action_space.high
        if (low != -1).any() or (high != 1).any():
            warnings.warn(
                f"actions are within {low.tolist()} and {high.tolist()}, but Stable-Baselines3 learns best within "
                "-1..1: make the environment with normalise_actions=True",
                stacklevel=2,
            )
        self.envs, self.features = envs, features
        space = spaces.Dict(envs.single_observation_space.spaces)
        if features is not None:
            space = spaces.Dict(
                {name: _box(value) for name, value in features(envs.observation_space.sample()).items()}
            )
        observation_space = spaces.Dict({plain_key(name): each for name, each in space.spaces.items()})
        super().__init__(envs.num_envs, observation_space, envs.single_action_space)

    def reset(self) -> Observations:
        """Begin all streams; `seed(s)` before it gives stream `i` the seed `s + i`.

        Raises:
            ValueError: Options were set; the streams of a dream take none here.
        """
        if any(self._options):
            raise ValueError(f"streams of a dream take no options from Stable-Baselines3, got {self._options}")
        seeds = None if self._seeds[0] is None else list(self._seeds)
        observation, info = self.envs.reset(seed=seeds)
        self.reset_infos = [_of_stream(info, stream) for stream in range(self.num_envs)]
        self._reset_seeds()
        return self._seen(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> tuple[Observations, np.ndarray, np.ndarray, list[dict]]:
        """Apply the actions; returns observations, rewards, which episodes are over, and the infos."""
        observation, rewards, terminated, truncated, info = self.envs.step(self.actions)
        dones = terminated | truncated
        infos = [_of_stream(info, stream) for stream in range(self.num_envs)]
        for stream, last in self._last(info, dones).items():
            infos[stream] |= _of_stream(info["final_info"], stream)
            infos[stream] |= {
                "terminal_observation": last,
                "TimeLimit.truncated": bool(truncated[stream] and not terminated[stream]),
            }
        return self._seen(observation), rewards.astype(np.float32), dones, infos

    def get_images(self) -> list[np.ndarray]:
        """The latest picture of each stream."""
        return list(self.envs.render())

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Sequence[int] | int | None = None) -> list[Any]:
        """An attribute, the same for every stream.

        Raises:
            AttributeError: The environment does not have it.
        """
        return [getattr(self.envs, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: object, indices: Sequence[int] | int | None = None) -> None:
        """Streams have no attributes of their own.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"streams of a dream have no attribute {attr_name!r} to set")

    def env_method(
        self, method_name: str, *args: object, indices: Sequence[int] | int | None = None, **kwargs: object
    ) -> list[Any]:
        """Streams have no methods of their own.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(f"streams of a dream have no method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: type, indices: Sequence[int] | int | None = None) -> list[bool]:
        """No stream is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def _seen(self, observation: Observations) -> Observations:
        """What the agent sees."""
        seen = observation if self.features is None else self.features(observation)
        return {plain_key(name): value for name, value in seen.items()}

    def _last(self, info: dict[str, Any], dones: np.ndarray) -> dict[int, Observations]:
        """The last observation of the agent in each stream that is over."""
        over = np.flatnonzero(dones)
        if not len(over):
            return {}
        rows = [info["final_obs"][stream] for stream in over]
        seen = self._seen({name: np.stack([row[name] for row in rows]) for name in rows[0]})
        return {int(stream): {name: v[row] for name, v in seen.items()} for row, stream in enumerate(over)}


def _of_stream(info: dict[str, Any], stream: int) -> dict[str, Any]:
    """The `info` of one stream, without masks and without the last observation."""
    names = [name for name in info if not name.startswith(("_", "final_")) and info[f"_{name}"][stream]]
    return {name: bool(info[name][stream]) for name in names}


def _box(values: np.ndarray) -> spaces.Box:
    """A space for the rows of an array: any numbers, or pictures."""
    if values.dtype == np.uint8:
        return spaces.Box(0, 255, values.shape[1:], np.uint8)
    return spaces.Box(-np.inf, np.inf, values.shape[1:], np.float32)
