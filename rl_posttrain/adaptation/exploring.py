"""A policy that tries out: each of its plans is carried out with a displacement of its own."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.policy import Observations
from worldmodel.streaming.noise import mix_seed, stream_noise

SALT = 0x7279  # keeps displacements apart from the noise that the policy draws itself


class Exploring:
    """A cloned policy whose plans are moved at random, for rollouts to learn from.

    Where a policy always does the same at the same frame, its action follows from the frame, whatever is reached. Here
    the same displacement is added to all actions of a plan, so that it leads somewhere else.

    Args:
        policy: The policy.
        spread: Standard deviation of the displacement, in standard deviations of the actions that the policy was
            cloned from; 0 leaves the policy as it is.
    """

    def __init__(self, policy: ClonedPolicy, spread: float):
        self.policy, self.spread = policy, spread
        self.needs = policy.needs

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.policy.reset(seeds)
        self.seeds = torch.tensor([mix_seed(seed, SALT) for seed in seeds], dtype=torch.long)

    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The next action of the plan, displaced; the displacement depends on the seed and on the plan's first step."""
        if not self.policy.queue:
            step = torch.full_like(self.seeds, self.policy.step)
            drawn = stream_noise(self.seeds, step, [self.policy.config.action_dim])
            self.displacement = self.spread * self.policy.action_std * drawn.to(self.policy.action_std.device)
        return self.policy.act(observation) + self.displacement
