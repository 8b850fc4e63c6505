"""The real environment, reset to the starts of recorded episodes, with the interface of the dream."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import UInt8
from torch.nn.functional import adaptive_avg_pool2d

from worldmodel.dreams.starts import Starts
from worldmodel.envs.protocol import begin, succeeded

START_TOLERANCE = 8.0
"""How far a stored start may differ from the simulator's, in grey levels (0..255); see `largest_difference`.

Video compression of the recordings stays below 3; another start differs by more than 50.
"""
STATE_TOLERANCE = 1e-3


class RealEnvs(VectorEnv):
    """`num_envs` simulators that start recorded episodes again and let a policy act in them.

    `reset(options={"starts": indices})` resets simulator `i` with the reset seed of start
    `indices[i]`. A finished stream stands still, with reward 0, until it is reset.

    An episode ends with a success, or when the simulator says that it is terminated or truncated.
    `info["success"]` of a step says which streams have succeeded.

    Args:
        make: Makes one simulator; see `docs/extend/environment.md` for what it needs.
        starts: The recorded starts.
        num_envs: Number of simulators, stepped one after the other.
        stride: Steps of a simulator for which an action is held, as in a world model of this stride; rewards add up.

    Raises:
        ValueError: `num_envs` is not positive, or the episodes have no reset seeds.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], starts: Starts, *, num_envs: int, stride: int = 1):
        super().__init__()
        if num_envs < 1:
            raise ValueError(f"num_envs is at least 1, got {num_envs}")
        if not starts.resettable:
            raise ValueError(
                f"{starts.source.name}: episodes have no reset_seed, so a simulator cannot begin them again; "
                "trials in it need data that `worldmodel record` made in it"
            )
        self.envs = [make() for _ in range(num_envs)]
        self.starts, self.num_envs, self.stride = starts, num_envs, stride
        self.metadata = dict(self.envs[0].metadata) | {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin the episodes `options["starts"]`, one per stream.

        Raises:
            ValueError: There are no starts, there is not one start per stream, or a simulator does
                not begin with the stored frame and state.
        """
        if seed is not None or set(options or {}) != {"starts"}:
            raise ValueError(f"reset takes options={{'starts': ...}}, got {seed=} and {options}")
        chosen = list(options["starts"])
        if len(chosen) != self.num_envs:
            raise ValueError(f"got {len(chosen)} starts for {self.num_envs} streams")
        self.starts.check(chosen)
        self._current = []
        for env, start in zip(self.envs, chosen, strict=True):
            observation = begin(env, self.starts.seeds[start])
            check_start(self.starts, start, observation)
            self._current.append(observation)
        self._finished = np.zeros((2, self.num_envs), bool)
        self._successes = np.zeros(self.num_envs, bool)
        return self._stacked(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply one action per simulator, for `stride` steps."""
        rewards = np.zeros(self.num_envs)
        for index, env in enumerate(self.envs):
            for _ in range(self.stride):
                if self._finished[:, index].any():
                    break
                self._current[index], reward, terminated, truncated, info = env.step(actions[index])
                rewards[index] += reward
                self._successes[index] = succeeded(terminated, info)
                self._finished[:, index] = terminated or self._successes[index], truncated
        terminated, truncated = self._finished.copy()
        info = {"success": self._successes.copy(), "_success": np.ones(self.num_envs, bool)}
        return self._stacked(), rewards, terminated, truncated, info

    def _stacked(self) -> dict[str, np.ndarray]:
        return {name: np.stack([each[name] for each in self._current]) for name in self._current[0]}

    def close_extras(self, **kwargs: object) -> None:
        """Close the simulators."""
        for env in self.envs:
            env.close()


def check_start(starts: Starts, start: int, observation: dict[str, np.ndarray]) -> None:
    """Check that a simulator begins where the recorded episode does.

    Raises:
        ValueError: The frame differs by more than video compression can explain, or the state differs.
    """
    where = f"{starts.source.name}: episode {starts.episodes[start]}"
    seed = starts.seeds[start]
    for index, view in enumerate(starts.views):
        seen = observation.get(f"observation.images.{view}")
        if seen is None:
            raise ValueError(f"{where}: there is a camera {view}, the simulator shows {sorted(observation)}")
        stored = starts.frames[start, index].numpy()
        if seen.shape != stored.shape:
            raise ValueError(f"{where}: {view} is {stored.shape}, the simulator's {seen.shape}")
        difference = largest_difference(seen, stored)
        if difference > START_TOLERANCE:
            raise ValueError(
                f"{where}: the simulator with reset seed {seed} does not begin with the stored "
                f"frame: {view} differs by {difference:.1f} grey levels, at most "
                f"{START_TOLERANCE} are allowed"
            )
    if starts.states is None:
        return
    if "observation.state" not in observation:
        raise ValueError(f"{where}: there is an observation.state, the simulator shows {sorted(observation)}")
    seen, stored = observation["observation.state"], starts.states[start].numpy()
    if not np.allclose(seen, stored, atol=STATE_TOLERANCE):
        raise ValueError(
            f"{where}: observation.state is {stored.tolist()}, the simulator with reset seed "
            f"{seed} begins with {seen.tolist()}"
        )


def largest_difference(first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]) -> float:
    """Largest mean absolute difference over the 8 x 8 parts of two pictures, in grey levels."""
    difference = np.abs(first.astype(np.float32) - second.astype(np.float32))
    pooled = adaptive_avg_pool2d(torch.from_numpy(difference).permute(2, 0, 1), (8, 8))
    return float(pooled.max())
