"""Best-of-K steering: propose K plans, imagine each, score, and carry out the best.

One interface for three papers that differ in the scorer: a value (V-GPS, arXiv 2410.13816), the
agreement of the imagined outcome with the plan ("Do What You Say", arXiv 2510.16281), and a
verifier's score (RoboMonkey, arXiv 2506.17811). The scorer is any callable. The policy is not
changed; it only has to return plans.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from policy_eval.policies.policy import Observations
from policy_eval.steering.proposals import jitter
from policy_eval.steering.scorers import Candidates, Scorer
from worldmodel.data import Clip
from worldmodel.dreams.world import held
from worldmodel.streaming.state import Observation
from worldmodel.world_model import WorldModel


@runtime_checkable
class Planner(Protocol):
    """A policy that can return its plan without carrying it out."""

    def plan(self, observation: Observations) -> Float[Tensor, "n h a"]:
        """Raw actions of the next `h` steps."""
        ...


class SteeredPolicy:
    """A policy whose plans are compared in imagination before one is carried out.

    ```python
    steered = SteeredPolicy(policy, by_value(judge), world, k=16, sigma=30.0)
    scores = evaluate(steered, RealEnvs(make, starts, num_envs=10), horizon=60)
    ```

    Args:
        policy: Makes the plans, and acts in the imagined futures after the end of a plan.
        scorer: Scores the plans; the best one is chosen.
        world: The world model that imagines; `None` for scorers that use only the plans.
        k: Number of plans to choose from.
        sigma: Standard deviation of the plans' offsets, in raw units of the action.
        lookahead: Imagined steps, at least as many as a plan has.
        context: Past frames that a dream begins with.
        num_steps: Denoising steps per frame.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        policy: Planner,
        scorer: Scorer,
        world: WorldModel | None = None,
        *,
        k: int = 16,
        sigma: float | Float[Tensor, "a"],
        lookahead: int = 8,
        context: int = 4,
        num_steps: int = 2,
    ):
        if min(k, lookahead, context) < 1:
            raise ValueError(f"k, lookahead and context are at least 1, got {k}, {lookahead} and {context}")
        self.policy, self.scorer, self.world = policy, scorer, world
        self.k, self.sigma, self.lookahead = k, sigma, lookahead
        self.context, self.num_steps = context, num_steps

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin one episode per seed."""
        self.seeds = torch.tensor(list(seeds), dtype=torch.long)
        self.step = 0
        self.queue: list[Tensor] = []
        self.seen: list[Observations] = []
        self.done: list[Tensor] = []

    @torch.no_grad()
    def act(self, observation: Observations) -> Float[Tensor, "n a"]:
        """The next action of the best plan; a new one is chosen when it has been carried out."""
        self.seen = [*self.seen, observation][-self.context :]
        if not self.queue:
            best = self.choose(observation)
            self.queue = list(best.unbind(1))
        action = self.queue.pop(0)
        self.done = [*self.done, action][-self.context :]
        self.step += 1
        return action

    def choose(self, observation: Observations) -> Float[Tensor, "n h a"]:
        """The plan with the highest score for each stream."""
        plans = self.policy.plan(observation)
        candidates = Candidates(jitter(plans, self.k, self.sigma, self.seeds, self.step))
        if self.world is not None:
            candidates = Candidates(candidates.plans, self.imagine(candidates.plans))
        best = self.scorer(candidates).argmax(1).to(plans.device)
        return candidates.plans[torch.arange(len(best)), best]

    def imagine(self, plans: Float[Tensor, "n k h a"]) -> Clip:
        """Dream every plan; the policy goes on acting in the dream when its plan is over.

        The plans of a stream share the noise of their dreams, so they differ only by their actions.

        Returns:
            The present frame and `lookahead` dreamed ones of `n k` streams.
        """
        context = self._context()
        stream = self.world.stream(context, seeds=self.seeds.tolist()).branch(self.k)
        seen, actions = [stream.observation], []
        queue = list(rearrange(plans, "n k h a -> (n k) h a").unbind(1))
        for _ in range(self.lookahead):
            if not queue:
                queue = list(self.policy.plan(self._observed(seen[-1])).unbind(1))
            actions.append(queue.pop(0))
            seen.append(stream.step(held(actions[-1], self.world.stride), num_steps=self.num_steps))
        return Clip(
            frames=torch.stack([each.frames for each in seen], 1),
            actions=torch.stack(actions, 1),
            states=torch.stack([each.states for each in seen], 1) if self.world.state_dim else None,
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

    def _observed(self, dreamed: Observation) -> Observations:
        """What was dreamed, under the keys of an observation."""
        named = zip(self.world.views, dreamed.frames.unbind(1), strict=True)
        observation = {f"observation.images.{view}": pictures for view, pictures in named}
        return observation if dreamed.states is None else observation | {"observation.state": dreamed.states}
