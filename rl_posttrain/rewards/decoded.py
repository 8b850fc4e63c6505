"""Agreement of decoded and commanded actions as a reward with a gradient: an erased robot cannot be decoded."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from policy_eval.judge.inverse_dynamics import InverseDynamics
from rl_posttrain.rewards.predictions import Predictions
from worldmodel.training.share import over_processes


@dataclass(frozen=True)
class DecodedActions:
    """Minus the Huber distance of decoded and commanded actions, in their standard deviations.

    The film that is decoded is the first context frame and the predicted frames after it. Relative
    targets are relative to the states as the model saw them. Only moments and dims count which the
    recorded frames show.

    Attributes:
        dynamics: Decodes the frames; frozen.
    """

    dynamics: InverseDynamics

    def __call__(self, predictions: Predictions) -> Float[Tensor, ""]:
        """The score, 0 is best; 0 as well where nothing is visible."""
        clip, dynamics = predictions.clip, self.dynamics
        seen = dynamics.visible(clip)
        imagined = replace(clip, states=predictions.states)
        film = torch.cat([predictions.context[:, :1], predictions.predicted], dim=1)
        decoded, _ = dynamics.decode_codes(dynamics.encode_pictures(film, clip.view_mask), imagined.states)
        commanded = (dynamics.commanded(imagined) - dynamics.mean) / dynamics.std
        distance = smooth_l1_loss(decoded, commanded, reduction="none")
        number = over_processes(seen.sum().float()).clamp(min=1)
        return -torch.where(seen, distance, 0.0).sum() / number
