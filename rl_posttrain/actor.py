"""A cloned policy made stochastic, so that imagination can tell good actions from bad ones."""

import copy

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from policy_eval.behaviour_cloning import ClonedPolicy


class Actor(nn.Module):
    """A Gaussian around the action of a cloned policy, with its own learnt spread.

    Actions are the policy's normalised ones here; `raw` makes commands of them.

    Args:
        policy: Whom to improve; its weights are copied.
        std: Spread at the beginning, in standard deviations of the demonstrated actions.

    Raises:
        ValueError: The policy plans several actions at once, or `std` is not positive.
    """

    def __init__(self, policy: ClonedPolicy, std: float):
        super().__init__()
        if policy.config.chunk != 1:
            raise ValueError(
                f"imagination improves policies that look at every frame: chunk is 1, the policy "
                f"has {policy.config.chunk}"
            )
        if not std > 0:
            raise ValueError(f"std is above 0, got {std}")
        self.policy = copy.deepcopy(policy)
        action_dim = policy.config.action_dim
        self.log_std = nn.Parameter(torch.full((action_dim,), std).log())

    @property
    def std(self) -> Float[Tensor, "a"]:
        """Spread of the normalised actions."""
        return self.log_std.exp()

    def forward(
        self, frames: UInt8[Tensor, "n v H W 3"], states: Float[Tensor, "n s"] | None
    ) -> Float[Tensor, "n a"]:
        """The most likely normalised action; `frames` of the policy's own cameras."""
        return self.policy(frames, states)[:, 0]

    def raw(
        self, actions: Float[Tensor, "n a"], states: Float[Tensor, "n s"] | None
    ) -> Float[Tensor, "n a"]:
        """Commands in the units of the data, relative dims added to the state."""
        commands = actions * self.policy.action_std + self.policy.action_mean
        for action, state in self.policy.config.relative_to.items():
            commands[:, action] += states[:, state]
        return commands
