"""A policy that drives a dream, alone or steered: it chooses the best of several futures that it imagines."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from demos.driving.counterfactuals import Futures
from demos.driving.session import DriveSession
from policy_eval.policies.find import load_policy
from policy_eval.policies.policy import Policy
from policy_eval.steering.proposals import Planner
from policy_eval.steering.saved import SteeredDescription
from policy_eval.steering.scorers import by_value
from policy_eval.steering.steered import Choice, SteeredPolicy, observed, offsets
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import held

MAX_PLANS, MAX_FRAMES = 8, 100


@dataclass(frozen=True)
class Driven:
    """One frame of the drive of a policy.

    Attributes:
        frames: What the world model shows.
        step: Frames dreamed so far.
        reward: What the judge says about the frame.
        solved: Whether it calls it a success.
        futures: What the policy imagined at its last decision, the chosen future with the highest score; `None` for a
            policy that is not steered.
    """

    frames: UInt8[Tensor, "v H W 3"]
    step: int
    reward: float
    solved: bool
    futures: Futures | None


def make_driver(session: DriveSession, spec: str | Path, judge: Judge, *, plans: int) -> Policy:
    """The policy of `spec`, alone or steered by the session's world model.

    Args:
        session: Whose world model imagines.
        spec: What `load_policy` takes.
        judge: Its reward is the score of a future.
        plans: Number of plans to choose from; 1 means that the policy is not steered.

    Raises:
        ValueError: A number is out of range, or the policy returns no plans.
    """
    if not 1 <= plans <= MAX_PLANS:
        raise ValueError(f"1 to {MAX_PLANS} plans, got {plans}")
    world = session.world
    policy = load_policy(spec, world.device)
    if isinstance(policy, SteeredPolicy):
        return policy.policy if plans == 1 else policy
    if plans == 1:
        return policy
    if not isinstance(policy, Planner):
        raise ValueError(f"policy {spec}: it has no method plan, so there are no plans to choose from")
    sigma = offsets(world, SteeredDescription.spread)
    return SteeredPolicy(policy, by_value(judge), world, k=plans, sigma=sigma)


def drive_by_policy(
    session: DriveSession, policy: Policy, judge: Judge, *, frames: int, stepped: Callable[[], None] = lambda: None
) -> Iterator[Driven]:
    """Let a policy drive from the current frame of a session, which does not change; ends at a success.

    Args:
        session: Where the drive begins.
        policy: Who drives.
        judge: Says when the task is solved.
        frames: Maximum number of frames.
        stepped: Called before every frame; an error that it raises ends the drive.

    Raises:
        ValueError: A number is out of range, or the policy fails.
    """
    if not 1 <= frames <= MAX_FRAMES:
        raise ValueError(f"1 to {MAX_FRAMES} frames, got {frames}")
    world, stream = session.world, session.stream.branch(1)
    policy.reset([session.seed])
    seen = stream.observation
    for step in range(1, frames + 1):
        stepped()
        with torch.inference_mode():
            actions = policy.act({name: value.cpu() for name, value in observed(world, seen).items()})
            seen = stream.step(held(actions, world.stride), num_steps=session.num_steps)
            verdict = judge(seen)
        choice = policy.choice if isinstance(policy, SteeredPolicy) else None
        solved = bool(verdict.successes[0])
        imagined = choice is not None and choice.candidates.imagined is not None
        futures = futures_of(choice) if imagined else None
        yield Driven(seen.frames[0].cpu(), step, float(verdict.rewards[0]), solved, futures)
        if solved:
            return


def futures_of(choice: Choice) -> Futures:
    """The futures of the only stream of a decision."""
    scores = choice.scores[0].float().cpu()
    names = ("its own plan", *(f"plan {number}" for number in range(2, len(scores) + 1)))
    return Futures(names, choice.candidates.imagined.frames.cpu(), scores)
