"""Best-of-K steering: propose K plans, imagine each, score, and carry out the best.

One interface for three papers that differ in the scorer: a value (V-GPS, arXiv 2410.13816), the
agreement of the imagined outcome with the plan ("Do What You Say", arXiv 2510.16281), and a
verifier's score (RoboMonkey, arXiv 2506.17811). Proposal and scorer are any callables. The policy is
not changed; it only has to return plans.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from policy_eval.policies.needs import Needs
from policy_eval.steering.proposals import Planner, Proposal, Sigma, near_the_plan
from policy_eval.steering.scorers import Candidates, Scorer
from worldmodel.data import Clip
from worldmodel.dreams.world import held
from worldmodel.envs.policy import Observations, Policy, optional
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class Choice:
    """One decision.

    Attributes:
        candidates: The plans of each stream and where they lead.
        scores: What the scorer says about each.
        best: Index of the plan of each stream that is carried out.
    """

    candidates: Candidates
    scores: Float[Tensor, "n k"]
    best: Int64[Tensor, "n"]

    @property
    def plans(self) -> Float[Tensor, "n h a"]:
        """The plan of each stream that is carried out."""
        return self.candidates.plans[torch.arange(len(self.best)), self.best]


class SteeredPolicy:
    """A policy whose plans are compared in imagination before one is carried out.

    ```python
    steered = SteeredPolicy(policy, by_value(judge), world, k=4, sigma=40.0)
    scores = evaluate(steered, RealEnvs(make, starts, num_envs=10), horizon=60)
    ```

    `worldmodel steer` writes one to a folder, and `load_policy` loads it.

    Args:
        policy: Makes the plans, and acts in the imagined futures after the end of a plan.
        scorer: Scores the plans; the best one is chosen.
        world: The world model that imagines; `None` for scorers that use only the plans.
        k: Number of plans to choose from.
        sigma: Standard deviation of the plans' offsets, in raw units of the action.
        lookahead: Imagined steps, at least as many as a plan has.
        context: Past frames that a dream begins with.
        num_steps: Denoising steps per frame.
        proposal: Makes the plans to choose from.
        between: Whether the scorer looks at every imagined frame. `by_value` looks at the last one only; without those
            between, a world model with a large autoencoder imagines faster.

    Attributes:
        choice: The last decision, for the streams that went on at that time; `None` before the first one.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        policy: Planner,
        scorer: Scorer,
        world: WorldModel | None = None,
        *,
        k: int = 4,
        sigma: Sigma,
        lookahead: int = 8,
        context: int = 4,
        num_steps: int = 1,
        proposal: Proposal = near_the_plan,
        between: bool = True,
    ):
        if min(k, lookahead, context) < 1:
            raise ValueError(f"k, lookahead and context are at least 1, got {k}, {lookahead} and {context}")
        if world is not None and num_steps not in world.allowed_steps:
            raise ValueError(f"num_steps is one of {world.allowed_steps}, got {num_steps}")
        self.policy, self.scorer, self.world, self.proposal = policy, scorer, world, proposal
        self.k, self.sigma, self.lookahead = k, sigma, lookahead
        self.context, self.num_steps, self.between = context, num_steps, between
        self.choice: Choice | None = None

    @property
    def needs(self) -> Needs | None:
        """What the policy needs, and what a dream begins with: every camera and the state of the world model."""
        own = optional(self.policy, "needs")
        if self.world is None:
            return own
        views = dict.fromkeys(self.world.views, tuple(self.world.size))
        widths = {"state_dim": self.world.state_dim, "action_dim": self.world.action_dim}
        return replace(own or Needs(), views=views, resizes=False, **widths)

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.seeds = torch.tensor(list(seeds), dtype=torch.long)
        self.tasks = ("",) * len(self.seeds)
        self.step = 0
        self.queue: list[Tensor] = []
        self.seen: list[Observations] = []
        self.done: list[Tensor] = []
        if isinstance(self.policy, Policy):
            self.policy.reset(seeds)

    def instruct(self, tasks: Sequence[str]) -> None:
        """Tell the policy and the scorer the task of each episode in words."""
        self.tasks = tuple(tasks)
        instruct = optional(self.policy, "instruct")
        if instruct is not None:
            instruct(tasks)

    def keep(self, streams: Sequence[int]) -> None:
        """Go on with these streams only, so that nothing is imagined for episodes that have ended."""
        rows = torch.tensor(list(streams), dtype=torch.long)
        self.seeds, self.tasks = self.seeds[rows], tuple(self.tasks[row] for row in streams)
        self.queue = [actions[rows] for actions in self.queue]
        self.seen = [{name: values[rows] for name, values in each.items()} for each in self.seen]
        self.done = [actions[rows] for actions in self.done]
        keep = optional(self.policy, "keep")
        if keep is not None:
            keep(streams)

    @torch.no_grad()
    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The next action of the best plan; a new one is chosen when it has been carried out."""
        self.seen = [*self.seen, observation][-self.context :]
        if not self.queue:
            self.choice = self.choose(observation)
            self.queue = list(self.choice.plans.unbind(1))
        action = self.queue.pop(0)
        self.done = [*self.done, action][-self.context :]
        self.step += 1
        return action

    def ahead(self) -> list[Float[Tensor, "n a"]]:
        """The rest of the plan that is carried out."""
        return list(self.queue)

    def choose(self, observation: Observations) -> Choice:
        """Propose plans, imagine them, and choose the one with the highest score for each stream."""
        plans = self.proposal(self.policy, observation, self.k, self.sigma, self.seeds, self.step)
        imagined = None if self.world is None else self.imagine(plans)
        candidates = Candidates(plans, imagined, self.seeds, self.step)
        scores = self.scorer(candidates)
        return Choice(candidates, scores, scores.argmax(1).to(plans.device))

    def imagine(self, plans: Float[Tensor, "n k h a"]) -> Clip:
        """Dream every plan; the policy goes on acting in the dream when its plan is over.

        The plans of a stream share the noise of their dreams, so they differ only by their actions.

        Returns:
            The present frame and `lookahead` dreamed ones of `n k` streams; if nobody looks at those `between`, the
            present frame and those at the ends of plans, without actions.
        """
        number, left = plans.shape[1], self.lookahead
        stream = self.world.stream(self._context(), seeds=self.seeds.tolist()).branch(number)
        seen, done = [stream.observation], []
        plan = rearrange(plans, "n k h a -> (n k) h a")
        while left:
            plan = self.policy.plan(observed(self.world, seen[-1])) if done else plan
            done.append(plan[:, :left])
            left -= done[-1].shape[1]
            commands = torch.stack([held(action, self.world.stride) for action in done[-1].unbind(1)], 1)
            options = {"num_steps": self.num_steps}
            seen += stream.roll(commands, **options) if self.between else [stream.jump(commands, **options)]
        return Clip(
            frames=torch.stack([each.frames for each in seen], 1),
            actions=torch.cat(done, 1) if self.between else None,
            states=torch.stack([each.states for each in seen], 1) if self.world.state_dim else None,
            task=tuple(task for task in self.tasks for _ in range(number)),
        )

    def _context(self) -> Clip:
        """The last real frames and the actions between them."""
        views = [f"observation.images.{view}" for view in self.world.views]
        frames = torch.stack([torch.stack([o[v] for v in views], 1) for o in self.seen], 1)
        states = None
        if self.world.state_dim:
            states = torch.stack([o["observation.state"] for o in self.seen], 1)
        between = self.done[len(self.done) - len(self.seen) + 1 :]
        actions = torch.stack([held(action, self.world.stride) for action in between], 1) if between else None
        return Clip(frames=frames, actions=actions, states=states)

    def __deepcopy__(self, memo: dict) -> "SteeredPolicy":
        """A copy with a memory of its own that shares the world model, which does not change."""
        memo[id(self.world)] = self.world
        memo[id(self)] = other = copy.copy(self)
        other.__dict__ = copy.deepcopy(self.__dict__, memo)
        return other


def offsets(world: WorldModel, spread: float) -> Float[Tensor, "a"]:
    """Standard deviation of the plans' offsets, for a `spread` in half ranges of the world model's actions."""
    return spread * world.conditioner.action_scale[: world.action_dim]


def observed(world: WorldModel, dreamed: Observation) -> Observations:
    """What was dreamed, under the keys of an observation."""
    named = zip(world.views, dreamed.frames.unbind(1), strict=True)
    observation = {f"observation.images.{view}": pictures for view, pictures in named}
    return observation if dreamed.states is None else observation | {"observation.state": dreamed.states}
