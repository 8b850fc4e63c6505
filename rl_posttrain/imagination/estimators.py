"""The arithmetic of imagination: returns, distributional values, priorities, trust, the objective.

Axes: `b` streams, `t` steps, `n` any items, `k` bins of a value distribution, `a` action dims.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor


def symlog(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """`sign(x) ln(1 + |x|)`: the identity near 0, a logarithm far out (DreamerV3, 2301.04104)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """`sign(x) (exp(|x|) - 1)`, the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def two_hot(x: Float[Tensor, "*n"], bins: Float[Tensor, "k"]) -> Float[Tensor, "*n k"]:
    """Spread the unit mass over the two bins around `x` so that the expectation is `x`.

    Values beyond the outer bins are put on them. Regressing such targets by cross-entropy instead
    of squared error is the HL-Gauss/two-hot family of "Stop Regressing" (2403.03950, section 3).

    Args:
        x: Values, on the scale of the bins.
        bins: Ascending positions, at least two.
    """
    x = x.clamp(bins[0], bins[-1])
    upper = torch.searchsorted(bins, x.contiguous(), right=True).clamp(1, len(bins) - 1)
    low, high = bins[upper - 1], bins[upper]
    share = ((x - low) / (high - low))[..., None]
    mass = torch.zeros(*x.shape, len(bins), dtype=x.dtype, device=x.device)
    return mass.scatter(-1, upper[..., None] - 1, 1 - share).scatter(-1, upper[..., None], share)


def expected_value(logits: Float[Tensor, "*n k"], bins: Float[Tensor, "k"]) -> Float[Tensor, "*n"]:
    """Mean of a categorical distribution over symlog `bins`, on the scale of the returns.

    The mean is taken of `symexp(bins)`, as in DreamerV3.
    """
    return (logits.softmax(-1) * symexp(bins)).sum(-1)


def lambda_returns(
    rewards: Float[Tensor, "b t"],
    values: Float[Tensor, "b u"],
    continues: Float[Tensor, "b t"],
    *,
    discount: float,
    decay: float,
) -> Float[Tensor, "b t"]:
    """TD(lambda) returns: `G_i = r_i + discount c_i ((1 - decay) V_{i+1} + decay G_{i+1})`.

    The last one bootstraps from the value alone: `G_t = V_t` (Sutton and Barto 2018, section 12.1).

    Args:
        rewards: Reward of action `i`.
        values: Values of the `t + 1` frames, before and after every action.
        continues: 0 where action `i` ended the episode, else 1.
        discount: Discount of each step, 0 to 1.
        decay: The lambda, 0 for one-step targets, 1 for the whole imagined return.
    """
    steps = rewards.shape[1]
    assert values.shape[1] == steps + 1, (values.shape, rewards.shape)
    following, returns = values[:, -1], []
    for i in reversed(range(steps)):
        mixed = (1 - decay) * values[:, i + 1] + decay * following
        following = rewards[:, i] + discount * continues[:, i] * mixed
        returns.append(following)
    return torch.stack(returns[::-1], dim=1)


def priority_probabilities(errors: Float[Tensor, "n"], alpha: float) -> Float[Tensor, "n"]:
    """`p_i = |e_i|^alpha / sum_j |e_j|^alpha`; `alpha = 0` is uniform.

    Proportional prioritisation (Schaul et al., 1511.05952, equation 1), of the starts of imagined
    rollouts as in DWS (2502.07825).
    """
    weights = errors.abs().clamp_min(1e-6) ** alpha
    return weights / weights.sum()


def importance_weights(
    probabilities: Float[Tensor, "n"], picked: Float[Tensor, "m"], beta: float
) -> Float[Tensor, "m"]:
    """`w = (n p)^-beta`, divided by its maximum over all items: 1 for the least likely one.

    `beta = 1` undoes the prioritisation in expectation (1511.05952, section 3.4).

    Args:
        probabilities: Probabilities of all `n` items.
        picked: Probabilities of the items that were drawn.
        beta: 0 to 1.
    """
    return (picked / probabilities.min()) ** -beta


def shaped_rewards(
    successes: Bool[Tensor, "b t"],
    potentials: Float[Tensor, "b u"],
    trust: Float[Tensor, "b t"],
    *,
    shaping: float,
    discount: float,
) -> Float[Tensor, "b t"]:
    """`trust (success + shaping (discount phi_{i+1} - phi_i))`.

    Differences of a potential do not change which policy is best (Ng, Harada and Russell 1999).

    Args:
        successes: Whether action `i` solved the task.
        potentials: How good each of the `t + 1` frames is.
        trust: Weight of each reward, 0 to 1.
        shaping: Weight of the potential, relative to a success, which is worth 1.
        discount: Discount of each step.
    """
    gained = discount * potentials[:, 1:] - potentials[:, :-1]
    return trust * (successes + shaping * gained)


def plan_rewards(
    rewards: Float[Tensor, "b t"], successes: Bool[Tensor, "b t"], chunk: int, *, discount: float
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
    """`R = sum_{i < k} discount^i r_i` of every plan of `k` actions, up to its first success, and whether it went on.

    The critic then has its values at the plans' boundaries, where the discount is `discount^k`: Q-chunking
    (2507.07969). With plans of one action, these are the rewards themselves.

    Returns:
        The rewards, and 0 where there was a success within the plan, else 1.
    """
    solved = rearrange(successes.long(), "b (d k) -> b d k", k=chunk)
    before = (solved.cumsum(-1) - solved) == 0
    factors = discount ** torch.arange(chunk, device=rewards.device)
    within = rearrange(rewards, "b (d k) -> b d k", k=chunk) * before * factors
    return within.sum(-1), 1 - solved.amax(-1).float()


def trust(disagreement: Float[Tensor, "*n"], scale: float) -> Float[Tensor, "*n"]:
    """`exp(-d / scale)`, 1 where dreams under other noise agree (Vista, 2405.17398)."""
    return (-disagreement / scale).exp()


def gaussian_log_prob(
    actions: Float[Tensor, "*n a"], mean: Float[Tensor, "*n a"], std: Float[Tensor, "a"]
) -> Float[Tensor, "*n"]:
    """Log-density of a diagonal Gaussian, summed over action dims."""
    return torch.distributions.Normal(mean, std).log_prob(actions).sum(-1)


def gaussian_kl(
    mean: Float[Tensor, "*n a"],
    std: Float[Tensor, "a"],
    prior_mean: Float[Tensor, "*n a"],
    prior_std: Float[Tensor, "a"],
) -> Float[Tensor, "*n"]:
    """`KL(policy || prior)` of diagonal Gaussians in nats, summed over action dims."""
    ratio = std / prior_std
    shift = (mean - prior_mean) / prior_std
    return 0.5 * (ratio**2 + shift**2 - 1 - 2 * ratio.log()).sum(-1)


def pmpo_loss(
    log_probs: Float[Tensor, "n"],
    advantages: Float[Tensor, "n"],
    kl: Float[Tensor, "n"],
    weights: Float[Tensor, "n"],
    *,
    alpha: float = 0.5,
    beta: float = 0.3,
) -> Float[Tensor, ""]:
    """Preference optimisation by the sign of the advantage (Dreamer 4, 2509.24527).

    `(1 - alpha) mean_{A<0} ln pi - alpha mean_{A>=0} ln pi + beta mean KL(pi || prior)`, every mean
    weighted. The size of the advantages does not matter, so their scale need not be known.

    Args:
        log_probs: Log-probabilities of the actions taken, under the policy that is improved.
        advantages: Return minus value.
        kl: Divergence from the prior, at the same frames.
        weights: Weight of each item, at least 0; 0 leaves it out.
        alpha: Share of the good actions.
        beta: Weight of the divergence.
    """
    good = advantages >= 0

    def mean(values: Tensor, weights: Tensor) -> Tensor:
        return (values * weights).sum() / weights.sum().clamp_min(1e-8)

    push = (1 - alpha) * mean(log_probs, weights * ~good) - alpha * mean(log_probs, weights * good)
    return push + beta * mean(kl, weights)
