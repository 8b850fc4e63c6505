"""Flow-GRPO on one random step of the sampler of two steps: a policy gradient in place of the contrast.

The first step predicts the clean frame from no noise, `x`. It is renoised to the level 0.5, `z = 0.5 x + 0.5 e`, and
the second step denoises `z` (RLCM, 2404.03673). So `z` is drawn from a Gaussian around `0.5 x`, whose likelihood has a
gradient, and the reward of the last frame says which `e` were good. Displacements of the state get no noise: it would
have as long a gradient as thousands of pixels, and hardly any reward depends on it.
"""

from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from rl_posttrain.posttraining.branches import Branches, encode_branches
from rl_posttrain.rewards.reward import Rollout
from worldmodel.model.backbone import EncodedFrames
from worldmodel.model.precision import autocast
from worldmodel.world_model import WorldModel

LEVEL = 0.5
"""Noise level between the two steps, and the size of each."""
RATIO_LIMIT = 1e-3
"""Largest change of the mean likelihood ratio that a gradient is taken of, as in Flow-GRPO."""


def first_step(world: WorldModel, encoded: EncodedFrames, like: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The clean frames, and displacements, that the first step predicts from no noise.

    Args:
        world: The policy.
        encoded: Its encoded frames, `b n`.
        like: Tensors of the parts' shapes, `b n ...`.
    """
    tau = torch.zeros(like[0].shape[:2], device=like[0].device)
    silent = tuple(torch.zeros_like(part) for part in like)
    return tuple(part.float() for part in world.predict(encoded, silent, tau, tau + LEVEL))


@torch.no_grad()
def restepped(
    world: WorldModel, branches: Branches, rollout: Rollout, noise: Float[Tensor, "b k 1 v c h w"]
) -> Rollout:
    """The rollout of candidates of one frame, drawn anew with a random step between the two.

    Args:
        world: The policy that draws.
        branches: Where the candidates begin.
        rollout: The candidates as they were drawn first; the frames are replaced.
        noise: `e`.
    """
    drawn = [rearrange(noise, "b k 1 ... -> b k ...")]
    if branches.current_states is not None:
        drawn.append(torch.zeros_like(rearrange(branches.current_states, "b k 1 s -> b k s")))
    with autocast(world.device):
        encoded = encode_branches(world, branches)
        clean = first_step(world, encoded, tuple(drawn))
        between = tuple(LEVEL * x + (1 - LEVEL) * e for x, e in zip(clean, drawn, strict=True))
        tau = torch.full(drawn[0].shape[:2], LEVEL, device=world.device)
        last = tuple(part.float() for part in world.predict(encoded, between, tau, tau))
    frames = world.codec.decode(world.bound(last[0].flatten(0, 1)))
    states = rollout.imagined.states
    if states is not None:
        after = world.conditioner.moved(states[:, 0], last[1].flatten(0, 1))
        states = torch.stack([states[:, 0], after], dim=1)
    shown = torch.cat([rollout.imagined.frames[:, :1], frames[:, None]], dim=1)
    return replace(rollout, imagined=replace(rollout.imagined, frames=shown, states=states))


def log_ratio(
    predicted: Float[Tensor, "*n"], old: Float[Tensor, "*n"], noise: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """The normalised logarithm of the likelihood ratio of both policies, `e (x - x_old)`, of every element.

    Of two Gaussians of the deviation 0.5 around `0.5 x` it is `e (x - x_old) - (x - x_old)^2 / 2`; its mean, which is
    below 0 wherever the policies differ, is taken away (GRPO-Guard, 2510.22319).
    """
    return noise * (predicted - old)


def policy_loss(
    logarithm: Float[Tensor, "*n"], advantages: Float[Tensor, "*n"], limit: float = RATIO_LIMIT
) -> Float[Tensor, "*n"]:
    """`-min(A r, A clip(r, 1 - limit, 1 + limit))` with the ratio `r = exp(logarithm)` (PPO)."""
    ratio = logarithm.exp()
    return -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - limit, 1 + limit))
