"""What a policy is, and adapters that make one of a callable or a Gymnasium agent."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Observations = Mapping[str, Tensor]
"""LeRobot's keys: `observation.images.<camera>`, uint8 `n H W 3`, `observation.state`, `n s`."""


@runtime_checkable
class Policy(Protocol):
    """Whatever acts; it sees what a robot sees and never the simulator.

    A policy that plans several actions at once queues them inside.
    """

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed; a stream's own randomness is a pure function of its seed."""
        ...

    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """One raw action for each of the `n` streams."""
        ...


class CallablePolicy:
    """A policy without memory, of a plain function from observations to actions."""

    def __init__(self, function: Callable[[Observations], Float[Tensor, "n a"]]):
        self.function = function

    def reset(self, seeds: Sequence[int]) -> None:
        """Nothing to forget."""

    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """What the function says."""
        return self.function(observation)


class AgentPolicy:
    """A policy of an agent that was trained on a Gymnasium environment.

    Args:
        agent: Has `predict(observation, state, episode_start, deterministic)`, which returns
            actions and its memory, as every Stable-Baselines3 algorithm does; observations are
            NumPy arrays.
        keys: What the agent calls the keys of the observation, if not the same.
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
