"""Dreams in which a planner labels every decision of the policy: it imagines some plans, and scores them."""

from collections.abc import Iterator
from typing import Protocol

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor

from policy_eval.policies.cloned import ClonedPolicy, FlowPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.dreams import Dreams
from rl_posttrain.imagination.distil.lessons import Lessons, soft_targets, with_successes
from rl_posttrain.imagination.dreams import Setting
from worldmodel.data import Clip
from worldmodel.dreams.world import RunningStream, held
from worldmodel.streaming.noise import mix_seed
from worldmodel.streaming.state import Observation
from worldmodel.training.share import collected


class BranchingStream(RunningStream, Protocol):
    """A stream that a planner can try its plans in, such as `worldmodel.streaming.stream.Stream`."""

    def branch(self, k: int) -> "BranchingStream":
        """`k` new streams for each one, side by side, that continue from here; these do not change."""
        ...


def propose(
    policy: ClonedPolicy,
    features: Float[Tensor, "n f"],
    config: ImagineConfig,
    generator: torch.Generator,
    rows: slice = slice(None),
    total: int | None = None,
) -> Float[Tensor, "n m k a"]:
    """Normalised plans to compare: the policy's own, and plans near it, each with one offset for all its actions.

    The others of a flow are near samples of it. Where `features` are those of the `rows` of `total` streams, numbers
    of all streams are drawn.
    """
    number, plans = len(features) if total is None else total, config.distil.plans
    shape = (number, plans, policy.config.chunk, policy.config.action_dim)
    offset = torch.randn(number, plans, 1, shape[-1], generator=generator)
    noise = torch.randn(shape, generator=generator)
    offset[:, 0], noise[:, 0] = 0, 0
    offset, noise = offset[rows].to(features.device), noise[rows].to(features.device)
    spread = repeat(features, "n f -> (n m) f", m=plans)
    if isinstance(policy, FlowPolicy):
        own = policy.plans(spread, rearrange(noise, "n m k a -> (n m) k a"))
    else:
        own = policy.plans(spread)
    return rearrange(own, "(n m) k a -> n m k a", m=plans) + config.distil.sigma * offset


@torch.no_grad()
def label_dreams(
    config: ImagineConfig, setting: Setting, policy: ClonedPolicy, starts: Iterator[Clip], seed: int
) -> tuple[Lessons, dict[str, float]]:
    """Dream in `config.streams` streams for as long as one dream may last, and label every decision.

    A dream that succeeds makes room for one from the next start, so that no decision is imagined for nothing. In a
    share of the streams the best plan is carried out, in the others the policy's own, so that the policy is taught
    where it comes to by itself (DAgger, 1011.0686).

    Returns:
        The decisions, and figures to show: `gain`, how much better than the policy's own plan the best one is, and
        the shares of successes, see `Dreams.shares`.
    """
    number = config.streams
    dreams = Dreams(setting, starts, number, mix_seed(config.seed, seed))
    generator = torch.Generator().manual_seed(mix_seed(config.seed, seed))
    follows = torch.arange(number) < round(config.distil.followed * number)
    rows = []
    for _ in range(-(-config.horizon // policy.config.carried)):
        seen = dreams.stream.observation
        features = policy.features(*looked_at(setting, policy, seen))
        plans = propose(policy, features, config, generator, dreams.own, number)
        scores = imagined_scores(config, setting, policy, dreams.stream, plans)
        carried = torch.where(follows[dreams.own].to(scores.device), scores.argmax(1), 0)
        labelled = tuple(collected(each, number) for each in (features, plans, scores, carried))
        rows.append((*labelled, dreams.current.clone()))
        chosen = commands_of(setting, policy, plans[torch.arange(len(plans)), carried], seen.states)
        dreams.go_on(chosen, num_steps=config.num_steps)
    features, plans, scores, carried, dream = (torch.cat(column) for column in zip(*rows, strict=True))
    weights = soft_targets(scores, config.distil.temperature)
    succeeded = dreams.solved[dream].to(scores.device)
    weights = with_successes(weights, carried, succeeded, config.distil.filtered)
    shown = {"gain": float((scores.amax(-1) - scores[:, 0]).mean())} | dreams.shares(follows)
    return Lessons(features, plans, weights), shown


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
