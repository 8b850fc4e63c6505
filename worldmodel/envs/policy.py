"""The protocol of a policy, which acts in an environment or in a dream, and policies by `module:name`."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.resolve import check_methods, kind_of, made, resolve

Observations = Mapping[str, Tensor]
"""LeRobot's keys: `observation.images.<camera>`, uint8 `n H W 3`, `observation.state`, `n s`."""


@runtime_checkable
class Policy(Protocol):
    """A policy chooses actions; it gets the observations of a robot and never sees the simulator.

    A policy that plans several actions at once queues them inside. Seven more attributes are
    optional, and are used where a policy has them:

    - `plan(observation)` returns the raw actions of the next `h` steps, `n h a`, and changes nothing
      in the policy; `policy_eval.steering` steers such policies.
    - `chunk` is the number of actions that are planned at once.
    - `ahead()` returns a list of the raw actions, `n a` each, that will follow the last one of `act` before the policy
      looks again. A world model whose latents are several frames each dreams them together.
    - `needs` states which observations and actions the policy was made for; see `Needs` in `policy_eval`.
    - `instruct(tasks)` is called after every `reset` with the task of each episode in words, for a
      policy that follows instructions.
    - `keep(streams)` is called when episodes have ended, with the indices of the streams that go on. From then on
      observations and actions have only these, in this order, until the next `reset`. A policy without it goes on
      being asked about all streams.
    - `watch(env)` is called with the simulator before each episode is recorded, for a scripted
      behaviour that needs more than a robot's observations. You can record with such a policy, but
      you cannot rank it.
    """

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed; a stream's own randomness is a pure function of its seed."""
        ...

    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """One raw action for each of the `n` streams."""
        ...


class CallablePolicy:
    """A policy without memory, made from a plain function from observations to actions."""

    def __init__(self, function: Callable[[Observations], Float[Tensor, "n a"]]):
        self.function = function

    def reset(self, seeds: Sequence[int]) -> None:
        """Do nothing, since there is no memory."""

    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The actions that the function returns."""
        return self.function(observation)


def resolve_policy(spec: str, what: str = "policy") -> Policy:
    """The policy that `module:name` names.

    The name is one of: an object with `reset` and `act`; a function of the observation; a class, or
    a function without arguments, that makes one of these.

    Args:
        spec: `module:name`.
        what: `policy` or `behaviour`, for the messages.

    Raises:
        ValueError: There is no such object, or it is something else; the message says what it is.
    """
    found = resolve(spec, what)
    if isinstance(found, type) or (inspect.isroutine(found) and _takes(found)):
        if not _takes(found):
            raise ValueError(
                f"{what} {spec}: {kind_of(found)} is made without arguments, but takes {inspect.signature(found)}; "
                "name a function without arguments that makes one"
            )
        found = made(found, spec, what)
    if _acts(found):
        check_methods(found, ("reset", "act"), spec, what)
        return found
    if callable(found) and _takes(found, None):
        return CallablePolicy(found)
    raise ValueError(
        f"{what} {spec}: expected an object with reset and act, or a function of the observation, found "
        f"{kind_of(found)}{_signature(found)}"
    )


def begin_episodes(policy: Policy, seeds: Sequence[int], tasks: Sequence[str]) -> None:
    """Reset a policy, and tell it the task of each episode if it wants to know."""
    policy.reset(seeds)
    instruct = optional(policy, "instruct")
    if instruct is not None:
        instruct(tasks)


def watches(policy: Policy) -> bool:
    """Whether a policy wants to see the simulator before an episode."""
    return optional(policy, "watch") is not None


def optional(policy: object, name: Literal["plan", "chunk", "ahead", "needs", "instruct", "keep", "watch"]) -> Any:
    """An attribute that a policy may have, see `Policy`; `None` where it does not have it."""
    return getattr(policy, name, None)


def ask(policy: Policy, observation: Mapping[str, np.ndarray]) -> Float[np.ndarray, "a"]:
    """The action of a policy for the observation of one environment.

    Raises:
        ValueError: The policy returns something other than a tensor with one action.
    """
    with torch.no_grad():
        actions = policy.act({name: torch.from_numpy(value)[None] for name, value in observation.items()})
    if not isinstance(actions, Tensor) or actions.ndim != 2 or len(actions) != 1:
        found = f"{tuple(actions.shape)}" if isinstance(actions, Tensor) else type(actions).__name__
        raise ValueError(f"a policy returns a torch.Tensor of the shape (n, a), here with n = 1, got {found}")
    return actions[0].float().cpu().numpy()


def _acts(found: object) -> bool:
    """Whether an object has a method of a policy, so that it is probably meant as one."""
    return not isinstance(found, type) and (hasattr(found, "act") or hasattr(found, "reset"))


def _takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Whether a callable can be called with these arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):  # it cannot, or it is not written in Python and has no signature
        return False
    return True


def _signature(found: object) -> str:
    return f" with the arguments {inspect.signature(found)}" if callable(found) else ""
