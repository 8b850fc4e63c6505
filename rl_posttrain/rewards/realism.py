"""Realism: a discriminator of recorded and predicted steps, trained along with the world model.

It sees a frame and the next one, so that a next frame which is sharp but stands still, or does not
follow from the frame before, can be told from a recorded one.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from rl_posttrain.rewards.predictions import Predictions
from worldmodel.training.share import mean_over_all

WIDTHS = (48, 96, 192)
"""Channels after each halving of the picture."""


class Discriminator(nn.Module):
    """Logits of patches: high where a step from one frame to the next looks recorded."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((6, *WIDTHS), WIDTHS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(WIDTHS[-1], 1, 3, padding=1))

    def forward(self, frames: Float[Tensor, "n 3 H W"], following: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n p q"]:
        """One logit for each patch of 8 pixels; the pictures are in [-1, 1]."""
        return self.layers(torch.cat([frames, following], dim=1))[:, 0]


class Realism(nn.Module):
    """How real the picked predicted steps look, as a reward, and the loss by which the discriminator learns.

    Logistic (non-saturating) losses with R1, the penalty on the gradient at recorded steps (1801.04406).

    Args:
        penalty: Weight of R1, `gamma`. It sums over all patches; with 1 the discriminator stayed at chance through
            the 119 updates that were tried.
    """

    def __init__(self, penalty: float = 0.01):
        super().__init__()
        self.discriminator = Discriminator()
        self.penalty = penalty

    def forward(self, predictions: Predictions) -> Float[Tensor, "n p q"]:
        """Scores of the patches, below 0; the nearer to 0 the more real: `log sigmoid(logit)`."""
        frames = predictions.pick(predictions.context).detach()
        return -softplus(-self.discriminator(frames, predictions.visible))

    def loss(self, predictions: Predictions) -> Float[Tensor, ""]:
        """`log(1 + e^-D(real)) + log(1 + e^D(predicted)) + penalty / 2 |dD / d real|^2`.

        The recorded next frame is shown after the same frame as the predicted one, so that only the step differs.
        No gradient reaches the predictions.
        """
        context, recorded = (predictions.pick(part).detach() for part in (predictions.context, predictions.recorded))
        predicted = predictions.visible.detach()
        frames, following = context.clone().requires_grad_(), recorded.clone().requires_grad_()
        real = self.discriminator(frames, following)
        slopes = torch.autograd.grad(real.sum(), (frames, following), create_graph=True)
        steepness = mean_over_all(sum(slope.square().sum(dim=(1, 2, 3)) for slope in slopes))
        imagined = self.discriminator(context, predicted)
        told_apart = mean_over_all(softplus(-real)) + mean_over_all(softplus(imagined))
        return told_apart + self.penalty / 2 * steepness

    @torch.no_grad()
    def told_apart(self, predictions: Predictions) -> Float[Tensor, "n"]:
        """1 where the recorded step has a higher mean logit than the predicted one, else 0; 0.5 on average is chance.

        Where they are equal it is 0.5.
        """
        context = predictions.pick(predictions.context)
        steps = (predictions.pick(predictions.recorded), predictions.visible)
        real, imagined = (self.discriminator(context, following).mean(dim=(1, 2)) for following in steps)
        return ((real - imagined).sign() + 1) / 2
