"""Train a controller that maps real actions to latent ones, and measure what leaks through latent actions."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.training.fit import fit
from worldmodel.world_model import WorldModel

PIECE = 64  # frames that are encoded at a time
MAX_PAIRS = 6000


def fit_controller(
    world: WorldModel,
    source: EpisodeSource,
    episodes: Sequence[int],
    *,
    steps: int = 600,
    batch: int = 256,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> float:
    """Train the controller to compute, from state and real action, the latent action of the encoder.

    Least squares on the encoder's means (2601.05230), each weighted by its precision `1 / var`, so
    that noise counts little. The last fifth of the pairs of the labelled `episodes` is held out.
    Everything else stays as it is.

    Returns:
        R2 on the held-out pairs: 1 minus the weighted squared error over that of the mean latent.
        At most 1; 0 is as good as ignoring the action.

    Raises:
        ValueError: If there are too few pairs of frames to train on.
    """
    told, latent, precision = _pairs(world, source, episodes)
    num_train = len(told) * 4 // 5
    if num_train < 2:
        raise ValueError(f"{source.name}: {len(told)} pairs of frames, a controller needs 3")
    controller = world.conditioner.controller
    actions, states = told.split([told.shape[1] - world.state_dim, world.state_dim], dim=1)
    generator = torch.Generator().manual_seed(seed)

    def loss_of(step: int) -> Float[Tensor, ""]:
        rows = torch.randint(num_train, (batch,), generator=generator)
        error = (controller(actions[rows], states[rows]) - latent[rows]).square()
        return (precision[rows] * error).mean()

    fit(controller, loss_of, steps=steps, learning_rate=learning_rate, name="controller", decay="linear")
    with torch.no_grad():
        predicted = controller(actions[num_train:], states[num_train:])
        true, weight = latent[num_train:], precision[num_train:]
        error = (weight * (predicted - true).square()).mean()
        spread = (weight * (latent[:num_train].mean(0) - true).square()).mean()
    return 1 - (error / spread.clamp(min=1e-9)).item()


@torch.no_grad()
def _pairs(
    world: WorldModel, source: EpisodeSource, episodes: Sequence[int]
) -> tuple[Float[Tensor, "n told"], Float[Tensor, "n l"], Float[Tensor, "n l"]]:
    """Normalised actions and states; latent actions of the frames; their precision, scaled to mean 1."""
    told, latent, log_variance, count = [], [], [], 0
    for episode in episodes:
        length = source.lengths[episode]
        for start in range(0, length - world.stride, PIECE * world.stride):
            stop = min(start + PIECE * world.stride + 1, length)
            clip = source.read(episode, start, stop, world.stride)
            states = None if clip.states is None else clip.states[None, :-1]
            parts = [world.conditioner.normalised_actions(clip.actions[None], states)[0]]
            if states is not None:
                parts.append(world.conditioner.normalised_states(states)[0])
            told.append(torch.cat(parts, dim=1))
            means, log_variances = world.latent_encoder(world.codec.encode(clip.frames[None]))
            latent.append(means[0])
            log_variance.append(log_variances[0])
            count += len(told[-1])
        if count > MAX_PAIRS:
            break
    precision = (-torch.cat(log_variance)).exp()
    return torch.cat(told), torch.cat(latent), precision / precision.mean()


@torch.no_grad()
def leakage(world: WorldModel, giver: Clip, taker: Clip, *, num_steps: int = 1) -> dict[str, float]:
    """Measure how much of a clip's scene is copied into another clip through its latent actions.

    `transfer`: the taker's frame is continued under the giver's latent action, and under its own.
    If the first dream is closer to the giver's scene, the scene has leaked. The value is
    `1 - error / error under its own`, with squared errors against the giver's frame *before* the
    action, so that the same motion in both scenes does not count; 0 is no leak, 1 a full copy.
    `cut`: the encoder reads a cut from the taker's frame to that frame of the giver (the test of
    2601.05230), and the dream under the resulting latent action is compared in the same way. This
    also counts changes that a latent action should describe, such as a change of the light.

    Args:
        world: A world model of unlabelled video with latent actions.
        giver: `b` clips of other scenes than the taker's.
        taker: Clips of the same shape, with states if the world model has them.
        num_steps: Denoising steps per frame.

    Returns:
        `transfer` and `cut`, each at most 1; negative when the dream moves away instead.
    """
    scene = giver.frames[:, -2]
    own = world.latent_actions(taker.frames)
    given = world.latent_actions(giver.frames)[:, -1]
    crossed = world.latent_actions(torch.stack([taker.frames[:, -2], scene], dim=1))[:, 0]
    context = replace(taker.head(taker.frames.shape[1] - 1), actions=own[:, :-1])

    def error(latent: Float[Tensor, "b l"]) -> float:
        observation = world.stream(context).step(latent, num_steps=num_steps)
        return (observation.frames.cpu().float() - scene.float()).square().mean().item()

    honest = max(error(own[:, -1]), 1e-6)
    return {"transfer": 1 - error(given) / honest, "cut": 1 - error(crossed) / honest}
