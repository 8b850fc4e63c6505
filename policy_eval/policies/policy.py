"""What a policy is, and an adapter that makes a policy from a Gymnasium agent."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.dreams.spaces import stretched
from worldmodel.envs.policy import CallablePolicy, Observations, Policy

__all__ = ["AgentPolicy", "CallablePolicy", "Observations", "Policy"]


class AgentPolicy:
    """A policy made from an agent that was trained on a Gymnasium environment.

    Args:
        agent: Has `predict(observation, state, episode_start, deterministic)`, which returns
            actions and its memory, as every Stable-Baselines3 algorithm does; observations are
            NumPy arrays.
        keys: Maps a key of the observation to the agent's name for it; by default they are the same.
        features: Maps a batch of observations to the arrays that the agent sees, as in
            `StableBaselinesEnv`; by default it sees everything.
        bounds: The lowest and the highest raw action, for an agent that learned actions within -1..1; by
            default its actions are raw.
    """

    def __init__(
        self,
        agent: object,
        keys: Callable[[str], str] = str,
        *,
        features: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = dict,
        bounds: tuple[Float[np.ndarray, "a"], Float[np.ndarray, "a"]] | None = None,
    ):
        self.agent, self.keys, self.features, self.bounds = agent, keys, features, bounds

    def reset(self, seeds: Sequence[int]) -> None:
        """Forget the memory of recurrent agents."""
        self.memory = None
        self.begins = np.ones(len(seeds), bool)

    @torch.no_grad()
    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The agent's most likely action."""
        seen = self.features({name: value.cpu().numpy() for name, value in observation.items()})
        arrays = {self.keys(name): value for name, value in seen.items()}
        actions, self.memory = self.agent.predict(
            arrays, state=self.memory, episode_start=self.begins, deterministic=True
        )
        self.begins = np.zeros_like(self.begins)
        raw = np.asarray(actions, np.float32)
        return torch.from_numpy(raw if self.bounds is None else stretched(raw.clip(-1, 1), *self.bounds))
