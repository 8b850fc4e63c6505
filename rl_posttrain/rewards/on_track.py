"""Fidelity that counts only while the dream is near the recording.

Once a dream has drifted, the recording is no longer what follows from its state. Nearness to the recording is then
best met by a blur, by standing still or by erasing the objects. So drifted frames earn nothing here.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from conditioning.angles import Angles, shortest
from rl_posttrain.rewards.credit import Values, numbers
from rl_posttrain.rewards.fidelity import Fidelity
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data.clip import Clip, EpisodeSource
from worldmodel.envs import find_objects, object_names, object_view
from worldmodel.fidelity.scores import object_scores
from worldmodel.world_model import WorldModel

OBJECT_TOLERANCE = 4.0
"""Pixels of a 64-pixel frame by which an object of the dream may be off."""
STATE_TOLERANCE = 3.0
"""Usual displacements between two frames by which the dreamed state may be off, root mean square over its dims."""
LOSS = 1.0
"""What a frame loses in which the dream has left the recording; 32 dB of the fidelity's PSNR are worth 1."""


@dataclass(frozen=True)
class OnTrack:
    """`[start is near] (fidelity - [frame is not near])` of every frame.

    A candidate that begins near the recording is scored by its fidelity, and loses 1 in every frame in which an object
    is lost or far off. One that begins after the dream has drifted gets 0, whatever it shows; since all candidates of
    a group begin at the same frame, such a group has no contrast.

    Attributes:
        fidelity: Scores the frames; its credit decides how fine.
        robot_type: Decides which objects are searched for.
        view: The camera in which they are found; `None`: the state decides.
        scale: The usual displacement of each state dim between two frames, where the state decides.
        angles: State dims that are angles.
    """

    fidelity: Fidelity
    robot_type: str
    view: int | None
    scale: Float[Tensor, "s"] | None = None
    angles: Angles = field(default_factory=dict)

    @classmethod
    def of(cls, fidelity: Fidelity, world: WorldModel, source: EpisodeSource) -> "OnTrack":
        """By the objects if they can be found in this data, else by the state.

        Raises:
            ValueError: Neither is there.
        """
        kind = source.robot_type
        if object_names(kind) and object_view(kind) in world.views:
            return cls(fidelity, kind, list(world.views).index(object_view(kind)))
        if not world.state_dim:
            raise ValueError(
                f"--reward.on-track: needs objects that can be found or a state; {source.name} is of the robot type "
                f"{kind!r}, whose objects are not known, and the world model predicts no state"
            )
        conditioner = world.conditioner
        return cls(fidelity, kind, None, conditioner.displacement_scale.clone(), conditioner.config.angles)

    def __call__(self, rollout: Rollout) -> Values:
        """Scores; 0 for a candidate that begins where the dream has drifted already."""
        near = self.near(rollout.imagined, rollout.reference)[..., None, None, None]
        score = self.fidelity(rollout)
        lost = LOSS * ~near[:, 1:]
        if score.ndim == 1:
            return near[:, 0, 0, 0, 0] * (score - numbers(lost, rollout.reference))
        return near[:, :1] * (score - lost)

    def near(self, imagined: Clip, reference: Clip) -> Bool[Tensor, "b u"]:
        """Whether each frame, the first one included, shows objects or the state where they were recorded.

        An object that is occluded in the recording does not count.
        """
        if self.view is None:
            apart = shortest(imagined.states - reference.states, self.angles) / self.scale
            return apart.square().mean(dim=-1).sqrt() <= STATE_TOLERANCE
        seen, found = (
            find_objects(self.robot_type, clip.frames[:, :, self.view].cpu()) for clip in (reference, imagined)
        )
        frames = range(reference.frames.shape[1])
        errors = [object_scores(seen[name], found[name], 0, frames)["error_px"] for name in seen]
        return ~(torch.stack(errors) > OBJECT_TOLERANCE).any(dim=0).to(imagined.frames.device)
