"""Flow matching in x-space: tau = 1 is data, the network predicts the clean sample.

`z = tau x + (1 - tau) noise`; along the straight path the velocity is `(x_hat - z) / (1 - tau)`.
Shortcut forcing (Dreamer 4, 2509.24527; shortcut models, 2410.12557) also gives the network the
size of the next step, and trains one large step to agree with two half steps.
"""

from collections.abc import Callable

from jaxtyping import Float, Shaped
from torch import Tensor

Level = float | Float[Tensor, "b t"]
"""A noise level or a step size: one for all frames, or one for each."""
Predict = Callable[[tuple[Tensor, ...], Level, Level], tuple[Tensor, ...]]
"""(noisy parts, tau, step size) -> predicted clean parts."""
Sampler = Callable[[Predict, tuple[Tensor, ...], int], tuple[Tensor, ...]]
"""(predict, noise, number of steps) -> clean parts. It calls `predict` with floats, any number of times."""


def expand(level: Shaped[Tensor, "b t"], like: Tensor) -> Tensor:
    """Append axes of size one so that `level` broadcasts over `like`, shaped `b t ...`."""
    return level.reshape(*level.shape, *([1] * (like.ndim - level.ndim)))


def add_noise(
    x: Float[Tensor, "b t ..."], noise: Float[Tensor, "b t ..."], tau: Float[Tensor, "b t"]
) -> Float[Tensor, "b t ..."]:
    """Straight path between noise (tau = 0) and data (tau = 1)."""
    level = expand(tau, x)
    return level * x + (1 - level) * noise


def ramp_weight(tau: Float[Tensor, "*b"], floor: float = 0.1) -> Float[Tensor, "*b"]:
    """Loss weight `0.9 tau + floor`; Dreamer 4 has floor 0.1."""
    return 0.9 * tau + floor


def velocity_weight(tau: Float[Tensor, "*b"], floor: float = 0.05) -> Float[Tensor, "*b"]:
    """Loss weight `1 / max(1 - tau, floor)^2`, which makes the error of the clean sample that of the velocity."""
    return (1 - tau).clamp(min=floor) ** -2


def velocity(
    z: Float[Tensor, "b t ..."], x_hat: Float[Tensor, "b t ..."], tau: Float[Tensor, "b t"]
) -> Float[Tensor, "b t ..."]:
    """Velocity towards the predicted clean sample; needs tau < 1."""
    return (x_hat - z) / expand(1 - tau, z)


def euler_step(z: Float[Tensor, "*b"], x_hat: Float[Tensor, "*b"], tau: float, step_size: float) -> Float[Tensor, "*b"]:
    """Move `z` from noise level `tau` to `tau + step_size`: `z + step_size (x_hat - z) / (1 - tau)`."""
    share = step_size / (1 - tau)
    x_hat = x_hat.to(z.dtype)
    return x_hat if share == 1 else z.lerp(x_hat, share)  # the last step ends at the prediction, whose layout is kept


def shortcut_target(
    predict: Predict, z: tuple[Tensor, ...], tau: Float[Tensor, "b t"], step_size: Float[Tensor, "b t"]
) -> tuple[Tensor, ...]:
    """Clean samples that make one step of `step_size` equal two half steps (Dreamer 4, eq. 7).

    In x-space: `x* = z + (1 - tau) (b' + b'') / 2`, where b' and b'' are the velocities of the two
    half steps. The caller computes it without gradients.
    """
    half = step_size / 2
    first = [velocity(p, x, tau) for p, x in zip(z, predict(z, tau, half), strict=True)]
    middle = tuple(p + b * expand(half, p) for p, b in zip(z, first, strict=True))
    later = tau + half
    predicted = predict(middle, later, half)
    second = [velocity(p, x, later) for p, x in zip(middle, predicted, strict=True)]
    return tuple(p + expand(1 - tau, p) * (a + b) / 2 for p, a, b in zip(z, first, second, strict=True))


def guided(told: Predict, untold: Predict, weight: float) -> Predict:
    """Predictions that the actions move further: `x_null + weight (x - x_null)`.

    Classifier-free guidance (2207.12598) in x-space, with the action as the condition; with weight 1 it is `told`.

    Args:
        told: Predictions that know the action.
        untold: Predictions of the same network without it.
        weight: At least 0; above 1 the action counts for more than the network learned.
    """

    def predict(z: tuple[Tensor, ...], tau: Level, step_size: Level) -> tuple[Tensor, ...]:
        pairs = zip(untold(z, tau, step_size), told(z, tau, step_size), strict=True)
        return tuple(null + weight * (x - null) for null, x in pairs)

    return predict


def sample(predict: Predict, noise: tuple[Tensor, ...], num_steps: int) -> tuple[Tensor, ...]:
    """Integrate from noise to data in `num_steps` equal Euler steps: the default `Sampler`."""
    z, step_size = noise, 1 / num_steps
    for index in range(num_steps):
        tau = index / num_steps
        predicted = predict(z, tau, step_size)
        z = tuple(euler_step(p, x, tau, step_size) for p, x in zip(z, predicted, strict=True))
    return z
