"""What a policy is, and an adapter that makes a policy from a Gymnasium agent."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.envs.policy import CallablePolicy, Observations, Policy

__all__ = ["AgentPolicy", "CallablePolicy", "Observations", "Policy"]


class AgentPolicy:
    """A policy made from an agent that was trained on a Gymnasium environment.

    Args:
        agent: Has `predict(observation, state, episode_start, deterministic)`, which returns
            actions and its memory, as every Stable-Baselines3 algorithm does; observations are
            NumPy arrays.
        keys: Maps a key of the observation to the agent's name for it; by default they are the same.
    """

    def __init__(self, agent: object, keys: Callable[[str], str] = str):
        self.agent, self.keys = agent, keys

    def reset(self, seeds: Sequence[int]) -> None:
        """Forget the memory of recurrent agents."""
        self.memory = None
        self.begins = np.ones(len(seeds), bool)

    @torch.no_grad()
    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The agent's most likely action."""
        arrays = {self.keys(name): value.numpy() for name, value in observation.items()}
        actions, self.memory = self.agent.predict(
            arrays, state=self.memory, episode_start=self.begins, deterministic=True
        )
        self.begins = np.zeros_like(self.begins)
        return torch.from_numpy(np.asarray(actions, np.float32))
