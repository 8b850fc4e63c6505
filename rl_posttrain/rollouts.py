"""Short imagined rollouts of an actor, each start dreamt under several noise seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rl_posttrain.actor import Actor
from worldmodel.data import Clip, stack_clips
from worldmodel.dreams.verdict import Judge, Verdict
from worldmodel.streaming.state import Observation


@runtime_checkable
class World(Protocol):
    """What imagination needs of a world model; a simulator may stand in for it."""

    views: Sequence[str]

    def start(self, context: Clip, *, seed: int | Sequence[int]) -> object:
        """Begin one stream per clip."""
        ...

    def step(self, state: object, actions: Float[Tensor, "b a"], *, num_steps: int) -> tuple[Observation, object]:
        """Apply one raw action per stream."""
        ...


@dataclass(frozen=True)
class Imagined:
    """What happened in `b` dreams of `t` actions and `u = t + 1` frames.

    Attributes:
        frames: All cameras of the world model.
        features: What the actor sees of them.
        actions: Normalised actions of the actor.
        prior: What the prior would have done most likely.
        potentials: The judge's reward of every frame.
        successes: Whether the judge saw a success after the action.
        running: Whether there had been none before it.
        disagreement: Standard deviation of the pictures over the noise seeds of one start, root
            mean square over pixels, 0..1; 0 with one seed.
    """

    frames: UInt8[Tensor, "b u v H W 3"]
    features: Float[Tensor, "b u f"]
    actions: Float[Tensor, "b t a"]
    prior: Float[Tensor, "b t a"]
    potentials: Float[Tensor, "b u"]
    successes: Bool[Tensor, "b t"]
    running: Bool[Tensor, "b t"]
    disagreement: Float[Tensor, "b t"]

    @property
    def solved(self) -> Bool[Tensor, "b"]:
        """Whether the judge saw a success at any time."""
        return self.successes.any(1)


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
) -> Imagined:
    """Let an actor act in dreams that begin from real frames.

    Stream `j * n + i` is start `i` under noise seed `j`. The dreams of a start share the actor's
    exploration noise, but each acts on what it sees itself, so all of them are its own experience.

    Args:
        world: Dreams.
        judge: Reward and success of every frame.
        actor: Who acts.
        prior: Whom it is compared with.
        clips: Real frames of each of the `n` starts, the last one is where it begins.
        horizon: Actions.
        bounds: Lowest and highest command; others are clipped.
        seed: Of the dreams' noise and of exploration.
        noise_seeds: Dreams of every start.
        explore: Draw actions; otherwise take the most likely ones.
        persistence: Correlation of the exploration noise from one action to the next, 0 to 1.
        vary: Scale the exploration of each start by a number drawn from 0 to 1.
        num_steps: Denoising steps per frame.
    """
    number, streams = len(clips), len(clips) * noise_seeds
    state = begin(world, list(clips) * noise_seeds, [seed * 2**20 + i for i in range(streams)])
    last = stack_clips([final_frame(clip) for clip in clips] * noise_seeds)
    seen = Observation(last.frames[:, 0], None if last.states is None else last.states[:, 0])
    generator = torch.Generator().manual_seed(seed)
    index = [list(world.views).index(view) for view in actor.policy.config.views]
    own = actor.policy.config.state_dim > 0

    def look() -> tuple[UInt8[Tensor, "b v H W 3"], Float[Tensor, "b f"], Verdict]:
        states = seen.states if own else None
        return seen.frames, actor.features(seen.frames[:, index], states), judge(seen)

    looks, actions = [look()], []
    noises = persistent_noise(number, horizon, len(actor.std), persistence, generator)
    noises = noises * (torch.rand(number, 1, 1, generator=generator) if vary else 1.0)
    for noise in noises.unbind(1):
        action = actor(looks[-1][1])
        if explore:
            action = action + actor.std * repeat(noise, "n a -> (k n) a", k=noise_seeds)
        commands = actor.raw(action, seen.states if own else None).clamp(*bounds)
        seen, state = world.step(state, commands, num_steps=num_steps)
        actions.append(action)
        looks.append(look())
    frames = torch.stack([frame for frame, _, _ in looks], 1)
    features = torch.stack([feature for _, feature, _ in looks], 1)
    successes = torch.stack([verdict.successes for _, _, verdict in looks[1:]], 1)
    return Imagined(
        frames=frames,
        features=features,
        actions=torch.stack(actions, 1),
        prior=prior(features[:, :-1]),
        potentials=torch.stack([verdict.rewards.float() for _, _, verdict in looks], 1),
        successes=successes,
        running=(successes.long().cumsum(1) - successes.long()) == 0,
        disagreement=disagreement(frames[:, 1:], noise_seeds),
    )


def persistent_noise(
    number: int, horizon: int, action_dim: int, persistence: float, generator: torch.Generator
) -> Float[Tensor, "n t a"]:
    """Standard normal noise whose correlation after `i` actions is `persistence ** i`.

    White noise averages out before it moves anything: an arm follows the mean of its targets.
    Noise that lasts explores further, while every single action remains a draw from the actor's
    Gaussian (Eberhard et al. 2023, Pink Noise Is All You Need; here of first order).
    """
    fresh = torch.randn(number, horizon, action_dim, generator=generator)
    noise = [fresh[:, 0]]
    for i in range(1, horizon):
        noise.append(persistence * noise[-1] + (1 - persistence**2) ** 0.5 * fresh[:, i])
    return torch.stack(noise, 1)


def begin(world: World, clips: Sequence[Clip], seeds: Sequence[int]) -> object:
    """Start a stream per clip; they are of one frame, or all longer ones of the same length."""
    state = world.start(stack_clips([final_frame(clip) for clip in clips]), seed=list(seeds))
    long = [i for i, clip in enumerate(clips) if len(clip.frames) > 1]
    if long:
        fresh = world.start(stack_clips([clips[i] for i in long]), seed=[seeds[i] for i in long])
        state.put(long, fresh)
    return state


def final_frame(clip: Clip) -> Clip:
    """The last frame alone."""
    return Clip(
        frames=clip.frames[-1:],
        states=None if clip.states is None else clip.states[-1:],
        view_mask=clip.view_mask,
        pixel_mask=clip.pixel_mask,
    )


def disagreement(frames: UInt8[Tensor, "b t v H W 3"], noise_seeds: int) -> Float[Tensor, "b t"]:
    """Standard deviation over noise seeds, root mean square over pixels, on the scale 0..1.

    Vista's uncertainty (2405.17398, section 3.4) is the mean variance; its root is in grey levels,
    and so on the scale of the error.
    """
    if noise_seeds == 1:
        return torch.zeros(frames.shape[:2])
    grouped = rearrange(frames, "(k n) t v h w c -> k n t (v h w c)", k=noise_seeds)
    spread = torch.stack([grouped[:, i].float().div(255).var(0) for i in range(grouped.shape[1])])
    return repeat(spread.mean(-1).sqrt(), "n t -> (k n) t", k=noise_seeds)
