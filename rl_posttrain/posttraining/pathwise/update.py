"""What one step of the pathwise objective minimises (DRaFT-1, 2309.17400; AlignProp, 2310.03739)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rl_posttrain.posttraining.pathwise.config import PathwiseConfig
from rl_posttrain.posttraining.pathwise.mixing import gradient_of, mixed_gradient, with_gradient
from rl_posttrain.posttraining.pathwise.rollout import RolloutBatch
from rl_posttrain.posttraining.pathwise.terms import PictureTerms
from rl_posttrain.rewards.predictions import Predictions
from worldmodel.training.loss import LossConfig, encode_context, motion_weight, presence, self_generated
from worldmodel.training.share import mean_over_all
from worldmodel.world_model import WorldModel


class SelfRollout(NamedTuple):
    """What the model predicts from its own predictions.

    Attributes:
        predicted: Clean pictures `(b t v c h w)` and, with states, scaled displacements; with gradient.
        states: The states that they start from, or `None`.
        seen: What the rewards see; its pictures are a leaf.
    """

    predicted: tuple[Tensor, ...]
    states: Tensor | None
    seen: Predictions


class PathwiseUpdate(nn.Module):
    """Regression and rewards, mixed in picture space, through the last decoding step of self-rollouts.

    Args:
        world: The policy that is trained.
        terms: The rewards.
        config: Settings of the objective.
        loss: Settings of the pretraining loss.
    """

    def __init__(self, world: WorldModel, terms: PictureTerms, config: PathwiseConfig, loss: LossConfig):
        super().__init__()
        self.world, self.config, self.loss = world, config, loss
        self.terms = (terms,)  # a tuple: what is trained along has its own optimiser

    def forward(self, batch: RolloutBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Loss and its parts.

        The value of the loss is that of the regressions. Its gradient with respect to the predicted pictures is
        `mixed_gradient`; that with respect to the discriminator is that of the discriminator's own loss.

        Returns:
            The loss; and without gradient `regression`, `states` with states, the value of every reward as
            `reward.<name>`, the loss of the `discriminator`, and `told_apart`, the share of the recorded pictures
            that it finds more real than the predicted ones.
        """
        (terms,), clip, rollout = self.terms, batch.clip, self.rolled_out(batch)
        predicted, states, seen = rollout.predicted, rollout.states, rollout.seen
        with torch.autocast(self.world.device.type, enabled=False):  # gradients of small distances need exact numbers
            gradient, parts = self._gradient(seen, presence(self.world, clip, seen.context) > 0)
            learning = None if terms.realism is None else terms.realism.loss(seen)
        loss = with_gradient(parts["regression"], predicted[0], gradient)
        if states is not None:
            goal = self.world.conditioner.displacement(clip.states[:, 1:], states)
            squared = self.loss.state_weight * (predicted[1] - goal).square().mean()
            loss, parts["states"] = loss + squared, squared.detach()
        if learning is not None:
            loss, parts["discriminator"] = loss + learning - learning.detach(), learning.detach()
            parts["told_apart"] = mean_over_all(terms.realism.told_apart(seen))
        return loss, parts

    def rolled_out(self, batch: RolloutBatch) -> SelfRollout:
        """Let the model predict its context in parallel passes, and from there the next frames in one step."""
        world, clip, draws = self.world, batch.clip, batch.draws
        latents = world.codec.encode(clip.frames)
        context, states = self_generated(world, clip, latents, draws, differentiated=self.config.depth - 1)
        encoded = encode_context(world, clip, context, states, draws)
        noise = (draws.noise, draws.state_noise)[: 1 if states is None else 2]
        clean = world.sampler(lambda z, tau, step_size: world.predict(encoded, z, tau, step_size), noise, 1)
        predicted = tuple(part.float() for part in clean)
        return SelfRollout(predicted, states, shown(world, batch, latents[:, 1:], context, states, predicted))

    def _gradient(self, seen: Predictions, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient with respect to the predicted pictures, and the values of regression and rewards."""
        (terms,), loss, gradients = self.terms, self.loss, {}
        moving = motion_weight(seen.recorded, seen.context, loss.motion_contrast, loss.motion_saturation)
        regression = (moving * present * (seen.predicted - seen.recorded).square()).mean()
        parts = {"regression": regression.detach()}
        for name, reward in terms.rewards.items():
            value = reward(seen)
            parts[f"reward.{name}"] = mean_over_all(value.detach())
            gradients[name] = gradient_of(value, seen.predicted) * present
        return mixed_gradient(gradient_of(regression, seen.predicted), gradients, terms.weights), parts


def shown(
    world: WorldModel,
    batch: RolloutBatch,
    recorded: Tensor,
    context: Tensor,
    states: Tensor | None,
    predicted: tuple[Tensor, ...],
) -> Predictions:
    """What the rewards see; the predicted pictures are a leaf, so that no gradient goes further back."""
    film = None
    if states is not None:
        moved = world.conditioner.moved(states, predicted[1])
        film = torch.cat([states[:, :1], moved], dim=1).detach()
    return Predictions(
        predicted=predicted[0].detach().requires_grad_(),
        recorded=recorded,
        context=context.detach(),
        states=film,
        picked=batch.picked,
        clip=batch.clip,
    )
