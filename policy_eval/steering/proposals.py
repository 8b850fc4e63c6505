"""Proposals: plans to choose from."""

import inspect
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldmodel.envs.policy import Observations
from worldmodel.resolve import is_spec, kind_of, made, nearest, resolve
from worldmodel.streaming.noise import stream_noise


@runtime_checkable
class Planner(Protocol):
    """A policy that can return its plan without carrying it out."""

    def plan(self, observation: Observations) -> Float[Tensor, "n h a"]:
        """Raw actions of the next `h` steps; changes nothing in the policy, and takes any number of streams."""
        ...


@runtime_checkable
class SamplingPlanner(Planner, Protocol):
    """A stochastic policy that can return several plans."""

    def sample(self, observation: Observations, k: int, seeds: Int[Tensor, "n"], step: int) -> Float[Tensor, "n k h a"]:
        """`k` plans for each stream, which depend only on the observation, the stream's seed and the step."""
        ...


Sigma = float | Float[Tensor, "a"]
"""Standard deviation of the plans' offsets, in raw units of the action; one number for each dim, or one for all."""
Proposal = Callable[[Planner, Observations, int, Sigma, Int[Tensor, "n"], int], Float[Tensor, "n k h a"]]
"""Makes `k` plans for each stream, the policy's own first.

It gets the policy, the observation, `k`, `sigma`, the seed of each stream, and the step of the episode.
"""


def jitter(
    plans: Float[Tensor, "n h a"], k: int, sigma: Sigma, seeds: Int[Tensor, "n"], step: int
) -> Float[Tensor, "n k h a"]:
    """The plan itself and `k - 1` plans near it.

    RoboMonkey draws its candidates from a Gaussian about the policy's samples; here each candidate
    has one Gaussian offset for all its steps, because noise that changes with every step averages
    out. The offsets depend only on the seed of the stream and on the step.
    """
    noise = stream_noise(seeds, torch.full_like(seeds, step), [k, 1, plans.shape[-1]])
    noise[:, 0] = 0
    return plans[:, None] + torch.as_tensor(sigma, device=plans.device) * noise.to(plans.device)


def near_the_plan(
    policy: Planner, observation: Observations, k: int, sigma: Sigma, seeds: Int[Tensor, "n"], step: int
) -> Float[Tensor, "n k h a"]:
    """The policy's plan and `k - 1` plans near it; see `jitter`."""
    return jitter(policy.plan(observation), k, sigma, seeds, step)


def samples(
    policy: Planner, observation: Observations, k: int, sigma: Sigma, seeds: Int[Tensor, "n"], step: int
) -> Float[Tensor, "n k h a"]:
    """The policy's plan and `k - 1` samples of a stochastic policy; `sigma` is not used.

    Raises:
        ValueError: The policy has no method `sample`.
    """
    plans = policy.plan(observation)[:, None]
    if k == 1:
        return plans
    if not isinstance(policy, SamplingPlanner):
        raise ValueError(
            f"the proposal samples needs a policy with a method sample, as `worldmodel clone --head flow` makes one; "
            f"{kind_of(policy)} has none"
        )
    return torch.cat([plans, policy.sample(observation, k - 1, seeds, step)], dim=1)


PROPOSALS: dict[str, Proposal] = {"jitter": near_the_plan, "samples": samples}
"""The proposals of this package by name."""


def find_proposal(spec: str) -> Proposal:
    """The proposal of a name in `PROPOSALS`, or of `module:name`: a callable, or a class that makes one.

    Raises:
        ValueError: There is no such proposal.
    """
    return PROPOSALS[spec] if spec in PROPOSALS else yours(spec, "proposal", PROPOSALS)


def yours(spec: str, what: str, known: dict[str, Callable]) -> Callable:
    """The callable that `module:name` names, made first if it is a class.

    Args:
        spec: `module:name`.
        what: `proposal` or `scorer`, for the messages.
        known: Those of this package by name, for the messages.

    Raises:
        ValueError: There is no such object, or it is something else.
    """
    if not is_spec(spec):
        raise ValueError(
            f"there is no {what} {spec!r}; known are {', '.join(known)}, and module:name for one of yours; "
            f"{nearest(spec, known)}"
        )
    found = resolve(spec, what)
    found = made(found, spec, what) if inspect.isclass(found) else found
    if not callable(found):
        raise ValueError(f"{what} {spec}: expected a callable, found {kind_of(found)}")
    return found
