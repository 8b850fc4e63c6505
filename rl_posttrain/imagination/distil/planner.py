"""Dreams in which a planner labels every decision of the policy: it imagines some plans, and scores them."""

from collections.abc import Sequence
from typing import Protocol

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor

from policy_eval.policies.cloned import ClonedPolicy, FlowPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.lessons import Lessons, soft_targets, with_successes
from rl_posttrain.imagination.dreams import Setting
from worldmodel.data import Clip
from worldmodel.dreams.world import RunningStream, begin, held
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation


class BranchingStream(RunningStream, Protocol):
    """A stream that a planner can try its plans in, such as `worldmodel.streaming.stream.Stream`."""

    def branch(self, k: int) -> "BranchingStream":
        """`k` new streams for each one, side by side, that continue from here; these do not change."""
        ...


def propose(
    policy: ClonedPolicy, features: Float[Tensor, "n f"], config: ImagineConfig, generator: torch.Generator
) -> Float[Tensor, "n m k a"]:
    """Normalised plans to compare: the policy's own, and plans near it, each with one offset for all its actions.

    The others of a flow are near samples of it.
    """
    number, plans = len(features), config.distil.plans
    shape = (number, plans, policy.config.chunk, policy.config.action_dim)
    offset = torch.randn(number, plans, 1, shape[-1], generator=generator)
    noise = torch.randn(shape, generator=generator)
    offset[:, 0], noise[:, 0] = 0, 0
    offset, noise = offset.to(features.device), noise.to(features.device)
    spread = repeat(features, "n f -> (n m) f", m=plans)
    if isinstance(policy, FlowPolicy):
        own = policy.plans(spread, rearrange(noise, "n m k a -> (n m) k a"))
    else:
        own = policy.plans(spread)
    return rearrange(own, "(n m) k a -> n m k a", m=plans) + config.distil.sigma * offset


@torch.no_grad()
def label_dreams(
    config: ImagineConfig, setting: Setting, policy: ClonedPolicy, clips: Sequence[Clip], seed: int
) -> tuple[Lessons, dict[str, float]]:
    """Dream from each clip, and label every decision before the success.

    In a share of the dreams the best plan is carried out, in the others the policy's own, so that the policy is
    taught where it comes to by itself (DAgger, 1011.0686).

    Returns:
        The decisions, and figures to show: `solved`, the share of the dreams that succeed, `solved_alone`, of those
        in which the policy acts by itself, and `gain`, how much better than the policy's own plan the best one is.
    """
    seeds = [mix_seed(config.seed, seed, i) for i in range(len(clips))]
    stream = begin(setting.world, clips, seeds)
    generator = torch.Generator().manual_seed(mix_seed(config.seed, seed))
    follows = torch.arange(len(clips)) < round(config.distil.followed * len(clips))
    solved = torch.zeros(len(clips), dtype=torch.bool)
    rows = []
    for _ in range(-(-config.horizon // policy.config.carried)):
        seen = stream.observation
        features = policy.features(*looked_at(setting, policy, seen))
        plans = propose(policy, features, config, generator)
        scores = imagined_scores(config, setting, policy, stream, plans)
        carried = torch.where(follows.to(scores.device), scores.argmax(1), 0)
        rows.append((features, plans, scores, carried, ~solved))
        chosen = commands_of(setting, policy, plans[torch.arange(len(plans)), carried], seen.states)
        for action in chosen.unbind(1):
            seen = stream.step(held(action, setting.world.stride), num_steps=config.num_steps)
            solved = solved | setting.judge(seen).successes.cpu()
    features, plans, scores, carried, running = (torch.stack(column) for column in zip(*rows, strict=True))
    kept = running.to(scores.device)
    weights = soft_targets(scores[kept], config.distil.temperature)
    succeeded = repeat(solved.to(scores.device), "n -> d n", d=len(rows))[kept]
    weights = with_successes(weights, carried[kept], succeeded, config.distil.filtered)
    shown = {"solved": float(solved.float().mean()), "gain": float((scores.amax(-1) - scores[..., 0])[kept].mean())}
    return Lessons(features[kept], plans[kept], weights), shown | alone(solved, follows)


def alone(solved: Bool[Tensor, "n"], follows: Bool[Tensor, "n"]) -> dict[str, float]:
    """The share of the dreams without the planner that succeed, where there are any."""
    return {} if follows.all() else {"solved_alone": float(solved[~follows].float().mean())}


@torch.no_grad()
def imagined_scores(
    config: ImagineConfig,
    setting: Setting,
    policy: ClonedPolicy,
    stream: BranchingStream,
    plans: Float[Tensor, "n m k a"],
) -> Float[Tensor, "n m"]:
    """How good it is to carry out each plan from where the streams are, and then what the policy does.

    The judge's reward of the last imagined frame, plus 1 if it saw a success on the way. The plans of a stream share
    the noise of their dreams, so they differ only by their actions.
    """
    number = plans.shape[1]
    branches = stream.branch(number)
    seen = branches.observation
    queue = list(commands_of(setting, policy, rearrange(plans, "n m k a -> (n m) k a"), seen.states).unbind(1))
    solved = torch.zeros(len(seen.frames), dtype=torch.bool, device=seen.frames.device)
    for _ in range(max(config.distil.lookahead, len(queue))):
        if not queue:
            queue = list(commands_of(setting, policy, policy(*looked_at(setting, policy, seen)), seen.states).unbind(1))
        seen = branches.step(held(queue.pop(0), setting.world.stride), num_steps=config.num_steps)
        verdict = setting.judge(seen)
        solved = solved | verdict.successes
    return rearrange(solved + setting.reward_scale * verdict.rewards.float(), "(n m) -> n m", m=number)


def looked_at(setting: Setting, policy: ClonedPolicy, seen: Observation) -> tuple[Tensor, Tensor | None]:
    """Frames of the cameras that the policy looks at, and the states if it knows them."""
    index = [list(setting.world.views).index(view) for view in policy.config.views]
    return seen.frames[:, index], seen.states if policy.config.state_dim else None


def commands_of(
    setting: Setting, policy: ClonedPolicy, plans: Float[Tensor, "n k a"], states: Float[Tensor, "n s"] | None
) -> Float[Tensor, "n h a"]:
    """The part of each plan that is carried out, in the units of the data, within the recorded actions."""
    states = states if policy.config.state_dim else None
    low, high = (bound.to(plans.device) for bound in setting.bounds)
    return policy.commands(plans, states)[:, : policy.config.carried].clamp(low, high)
