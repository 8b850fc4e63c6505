"""Short imagined rollouts of an actor, each start dreamed under several noise seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rl_posttrain.imagination.actor import Actor
from rl_posttrain.rewards.credit import numbers
from rl_posttrain.rewards.extra import Weighted
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip
from worldmodel.dreams.verdict import Judge
from worldmodel.dreams.world import World, begin, held
from worldmodel.fidelity.uncertainty.calibration import disagreement
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation


@dataclass(frozen=True)
class Imagined:
    """What happened in `b` dreams of `t` actions and `u = t + 1` frames.

    The actor looks at the frames where it makes a plan: `d = t / k` plans of `k` actions, and the last frame.

    Attributes:
        frames: All cameras of the world model.
        features: What the actor sees of the frames at which it plans, and of the last one; `e = d + 1`.
        actions: Normalised plans of the actor, `p = k a` wide.
        prior: The most likely plans of the prior.
        potentials: The judge's reward of every frame.
        successes: Whether the judge saw a success after the action.
        running: Whether there had been no success before the action.
        disagreement: Standard deviation of the pictures over the noise seeds of one start, root
            mean square over pixels, 0..1; 0 with one seed.
        extra: The weighted sum of the extra rewards of every action; 0 without any.
    """

    frames: UInt8[Tensor, "b u v H W 3"]
    features: Float[Tensor, "b e f"]
    actions: Float[Tensor, "b d p"]
    prior: Float[Tensor, "b d p"]
    potentials: Float[Tensor, "b u"]
    successes: Bool[Tensor, "b t"]
    running: Bool[Tensor, "b t"]
    disagreement: Float[Tensor, "b t"]
    extra: Float[Tensor, "b t"]

    @property
    def solved(self) -> Bool[Tensor, "b"]:
        """Whether the judge saw a success at any time."""
        return self.successes.any(1)

    @property
    def chunk(self) -> int:
        """Actions of a plan."""
        return self.successes.shape[1] // self.actions.shape[1]

    @property
    def planning(self) -> Bool[Tensor, "b d"]:
        """Whether there had been no success when the plan was made."""
        return self.running[:, :: self.chunk]


@torch.no_grad()
def imagine_rollouts(
    world: World,
    judge: Judge,
    actor: Actor,
    prior: Actor,
    clips: Sequence[Clip],
    *,
    horizon: int,
    bounds: tuple[Float[Tensor, "a"], Float[Tensor, "a"]],
    seed: int,
    noise_seeds: int = 2,
    explore: bool = True,
    persistence: float = 0.0,
    vary: bool = False,
    num_steps: int = 2,
    rewards: Weighted | None = None,
    rows: Sequence[int] | None = None,
    total: int | None = None,
) -> Imagined:
    """Let an actor act in dreams that start from real frames.

    Stream `j * n + i` is start `i` under noise seed `j`. The dreams of a start share the actor's
    exploration noise, but in each dream the actor acts on what that dream shows, so all are its own
    experience.

    Args:
        world: The world model; an action is held over its stride.
        judge: Reward and success of every frame.
        actor: The policy that acts.
        prior: The policy that it is compared with.
        clips: Real frames of each of the `n` starts; the dream begins after the last one.
        horizon: Number of actions; the last plan is carried out to its end.
        bounds: Lowest and highest command; others are clipped.
        seed: Seed of the dreams' noise and of exploration.
        noise_seeds: Number of dreams of every start.
        explore: Draw actions; otherwise take the most likely ones.
        persistence: Correlation of the exploration noise from one action to the next, 0 to 1.
        vary: Scale the exploration of each start by a number drawn from 0 to 1.
        num_steps: Denoising steps per frame.
        rewards: Extra rewards of every action, by name.
        rows: Which of `total` starts these are, where other processes dream from the others; the noise is that of
            their place among all.
        total: Number of all starts; by default those that are given.
    """
    total = len(clips) if total is None else total
    rows = range(len(clips)) if rows is None else rows
    seeds = [mix_seed(seed, j * total + i) for j in range(noise_seeds) for i in rows]
    stream = begin(world, list(clips) * noise_seeds, seeds)
    tasks = tuple(clip.task for clip in clips) * noise_seeds
    seen = replace(stream.observation, task=tasks)
    device = actor.log_std.device
    bounds = bounds[0].to(device), bounds[1].to(device)
    generator = torch.Generator().manual_seed(seed)
    looks, plans, extra = [(seen.frames, judge(seen))], [], []
    features = [_features(world, actor, seen)]
    noises = plan_noise(total, horizon, actor, persistence, generator)
    noises = noises * (torch.rand(total, 1, 1, generator=generator) if vary else 1.0)
    for noise in noises[list(rows)].to(device).unbind(1):
        plan = actor(features[-1])
        if explore:
            plan = plan + actor.std * repeat(noise, "n p -> (k n) p", k=noise_seeds)
        for commands in actor.raw(plan, _own_states(actor, seen)).clamp(*bounds).unbind(1):
            before, applied = seen, held(commands, world.stride)
            seen = replace(stream.step(applied, num_steps=num_steps), task=tasks)
            extra.append(extra_reward(rewards or {}, before, applied, seen))
            looks.append((seen.frames, judge(seen)))
        plans.append(plan)
        features.append(_features(world, actor, seen))
    frames = torch.stack([frame for frame, _ in looks], 1)
    successes = torch.stack([verdict.successes for _, verdict in looks[1:]], 1)
    return Imagined(
        frames=frames,
        features=torch.stack(features, 1),
        actions=torch.stack(plans, 1),
        prior=prior(torch.stack(features[:-1], 1)),
        potentials=torch.stack([verdict.rewards.float() for _, verdict in looks], 1),
        successes=successes,
        running=(successes.long().cumsum(1) - successes.long()) == 0,
        disagreement=disagreement(frames[:, 1:], noise_seeds),
        extra=torch.stack(extra, 1).to(frames.device),
    )


def _features(world: World, actor: Actor, seen: Observation) -> Float[Tensor, "b f"]:
    """What the actor sees through its own cameras."""
    cameras = [list(world.views).index(view) for view in actor.policy.config.views]
    return actor.features(seen.frames[:, cameras], _own_states(actor, seen))


def _own_states(actor: Actor, seen: Observation) -> Float[Tensor, "b s"] | None:
    """The states, if the actor knows any."""
    return seen.states if actor.policy.config.state_dim else None


def plan_noise(
    number: int, horizon: int, actor: Actor, persistence: float, generator: torch.Generator
) -> Float[Tensor, "n d p"]:
    """Persistent noise for the actions of as many whole plans as `horizon` actions need."""
    plans, action_dim = -(-horizon // actor.chunk), actor.policy.config.action_dim
    noise = persistent_noise(number, plans * actor.chunk, action_dim, persistence, generator)
    return rearrange(noise, "n (d k) a -> n d (k a)", k=actor.chunk)


def extra_reward(
    rewards: Weighted, before: Observation, actions: Float[Tensor, "b a"], after: Observation
) -> Float[Tensor, "b"]:
    """The weighted sum of the rewards of one action, each of which sees a rollout of two frames."""
    total = torch.zeros(len(before.frames), device=before.frames.device)
    if not rewards:
        return total
    pictures, states = ([getattr(seen, name) for seen in (before, after)] for name in ("frames", "states"))
    clip = Clip(
        frames=torch.stack(pictures, 1),
        actions=actions.to(before.frames.device)[:, None],
        states=None if states[0] is None else torch.stack(states, 1),
        task=after.task,
    )
    for reward, weight in rewards.values():
        total = total + weight * numbers(reward(Rollout(clip, None)), clip)
    return total


def persistent_noise(
    number: int, horizon: int, action_dim: int, persistence: float, generator: torch.Generator
) -> Float[Tensor, "n t a"]:
    """Standard normal noise whose correlation after `i` actions is `persistence ** i`.

    White noise averages out before it moves anything: an arm follows the mean of its targets.
    Correlated noise explores further, while every single action is still a draw from the actor's
    Gaussian (Eberhard et al. 2023, Pink Noise Is All You Need; here of first order).
    """
    fresh = torch.randn(number, horizon, action_dim, generator=generator)
    noise = [fresh[:, 0]]
    for i in range(1, horizon):
        noise.append(persistence * noise[-1] + (1 - persistence**2) ** 0.5 * fresh[:, i])
    return torch.stack(noise, 1)
