"""Decode the actions of a video, and say which of them its frames can show.

It serves as a reward: the actions decoded from a generated video are compared with the commanded
ones. A convolutional network with a spatial softmax turns every frame, and its difference from the
frame before, into coordinates (keypoints; as in EVA, 2603.17808). A perceptron then reads the
action from the keypoints of a window of frames: those before show the speed and the command that
the robot still follows, and those after show the rest of the motion, since an arm follows its
command with a lag.

A second perceptron predicts the size of the error. Where frames cannot show an action (a gripper
that is closed already, an arm at its limit), the predicted error is large, and the moment is not
`visible`. The limit of every dim is found on held-out episodes, see `inverse_dynamics_limits`.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from conditioning.angles import shortest
from conditioning.relative import relative_actions
from worldmodel.data.clip import Clip
from worldmodel.model.card import CardFacts
from worldmodel.model.codec import to_signed
from worldmodel.model.folder import load_model, save_model
from worldmodel.model.hub import push_saved
from worldmodel.model.keypoints import expected_places

SHARPNESS = 10.0
"""Inverse temperature of the spatial softmax at the start of training."""


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """All that is needed to build an inverse-dynamics model; saved beside its weights."""

    views: tuple[str, ...]
    """Cameras, in order."""
    size: tuple[int, int]
    """Height and width of a frame."""
    action_dim: int
    """Width of an action, all actions of a stride together."""
    relative_to: dict[int, int] = field(default_factory=dict)
    """Action dim and state dim pairs: absolute targets, decoded as displacements from the state."""
    angles: dict[int, tuple[float, float]] = field(default_factory=dict)
    """State dims that are angles, each with the interval at whose ends it wraps."""
    cap: float | None = None
    """Longest displacement of the relative dims together; the frames cannot show a longer one."""
    displacement: bool = True
    """Whether actions are displacements, as relative ones are; otherwise they are positions."""
    state_dim: int = 0
    """Width of the robot's state, which is read beside the pictures; 0: only the pictures are read."""
    before: int = 4
    """Frames before the one at which the action is applied; 0 or more."""
    after: int = 2
    """Frames after the one that the action leads to; 0 or more."""
    keypoints: int = 32
    """Keypoints per camera."""
    code: int = 96
    """Numbers that describe a frame to the perceptrons."""
    width: int = 128
    """Width of the perceptrons."""


@dataclass(frozen=True)
class InverseDynamicsDescription:
    """What `config.json` holds."""

    config: InverseDynamicsConfig


@dataclass(frozen=True)
class Reading:
    """What the frames of a clip show of its actions.

    Attributes:
        actions: Decoded actions, in the units of `InverseDynamics.commanded`.
        deviation: Predicted size of the error, in standard deviations of the commands.
        visible: Whether the frames can show the action at all; other moments should count nothing.
    """

    actions: Float[Tensor, "b m a"]
    deviation: Float[Tensor, "b m a"]
    visible: Bool[Tensor, "b m a"]


class MotionKeypoints(nn.Module):
    """Where something is or changes in the picture: expected coordinates of learned feature maps.

    Args:
        num_keypoints: Feature maps.
    """

    def __init__(self, num_keypoints: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(6, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, num_keypoints, 3, padding=1),
        ).to(memory_format=torch.channels_last)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS))
        self.num_features = 3 * num_keypoints

    def forward(self, pictures: Float[Tensor, "b t 3 H W"]) -> Float[Tensor, "b t k"]:
        """Coordinates in [-1, 1] and expected value of every map, of every frame; the first one has not changed.

        The pictures are in [-1, 1].
        """
        changes = torch.cat([torch.zeros_like(pictures[:, :1]), pictures.diff(dim=1)], dim=1)
        stacked = torch.cat([pictures, changes], dim=2).flatten(0, 1)
        stacked = stacked.contiguous(memory_format=torch.channels_last)
        maps = self.convolutions(stacked).float() * self.sharpness
        weights = maps.flatten(2).softmax(-1)
        value = (weights * maps.flatten(2)).sum(-1) / SHARPNESS
        points = torch.cat([*expected_places(weights.view(maps.shape)), value.tanh()], dim=-1)
        return points.unflatten(0, pictures.shape[:2])


def perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


class InverseDynamics(nn.Module):
    """Decode the actions of a video.

    ```python
    dynamics = InverseDynamics.load("runs/inverse-dynamics")
    reading = dynamics.read(clip)
    error = (reading.actions - dynamics.commanded(clip))[reading.visible]
    ```

    Args:
        config: Cameras, sizes, and which action is decoded.

    Attributes:
        mean, std: Of the commanded actions of the training data.
        state_mean, state_std, change_std: Of the states, and of their changes between two frames.
        limit: The largest predicted deviation with which a dim counts as visible. Infinite (before it is
            calibrated): every moment counts. 0: the dim is visible at no moment.
    """

    def __init__(self, config: InverseDynamicsConfig):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList([MotionKeypoints(config.keypoints) for _ in config.views])
        seen = sum(encoder.num_features for encoder in self.encoders)
        self.describe = nn.Linear(seen, config.code)
        inputs = (config.before + 2 + config.after) * (config.code + 2 * config.state_dim + 1)
        self.head = perceptron(inputs, config.width, config.action_dim)
        self.doubt = perceptron(inputs, config.width, config.action_dim)
        self.register_buffer("mean", torch.zeros(config.action_dim))
        self.register_buffer("std", torch.ones(config.action_dim))
        self.register_buffer("state_mean", torch.zeros(config.state_dim))
        self.register_buffer("state_std", torch.ones(config.state_dim))
        self.register_buffer("change_std", torch.ones(config.state_dim))
        self.register_buffer("limit", torch.full((config.action_dim,), torch.inf))

    def forward(self, clip: Clip) -> tuple[Float[Tensor, "b m a"], Float[Tensor, "b m a"]]:
        """Normalised actions between consecutive frames, and the logarithm of the predicted deviation."""
        return self.decode_codes(self.encode(clip.frames, clip.view_mask), clip.states)

    def encode(
        self, frames: UInt8[Tensor, "b t v H W 3"], view_mask: Bool[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """A code of every frame and of its difference from the one before.

        A missing camera gives zeros for its keypoints.
        """
        return self.encode_pictures(to_signed(frames), view_mask)

    def encode_pictures(
        self, pictures: Float[Tensor, "b t v 3 H W"], view_mask: Bool[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b t c"]:
        """`encode` for pictures in [-1, 1], which may have a gradient."""
        points = []
        for view, encode in enumerate(self.encoders):
            found = encode(pictures[:, :, view])
            points.append(found if view_mask is None else found * view_mask[:, view, None, None])
        return self.describe(torch.cat(points, dim=-1))

    def decode_codes(
        self, codes: Float[Tensor, "b t c"], states: Float[Tensor, "b t s"] | None = None
    ) -> tuple[Float[Tensor, "b m a"], Float[Tensor, "b m a"]]:
        """Normalised actions between consecutive frames, and the logarithm of the predicted deviation.

        The perceptrons are told which frames of a window are missing, at both ends of the clip.
        """
        padding = (0, 0, self.config.before, self.config.after)
        padded = nn.functional.pad(self.inputs(codes, states), padding)
        return self.decode_windows(padded.unfold(1, self.window, 1))

    @property
    def window(self) -> int:
        """Frames that are read for one action."""
        return self.config.before + 2 + self.config.after

    def inputs(
        self, codes: Float[Tensor, "b t c"], states: Float[Tensor, "b t s"] | None = None
    ) -> Float[Tensor, "b t i"]:
        """What the perceptrons get of every frame: its code, a mark that it is there, and the state, if it is read."""
        parts = [codes, torch.ones_like(codes[..., :1])]
        if self.config.state_dim:
            assert states is not None
            change = shortest(states.diff(dim=1), self.config.angles) / self.change_std
            parts += [(states - self.state_mean) / self.state_std, nn.functional.pad(change, (0, 0, 1, 0))]
        return torch.cat(parts, dim=-1)

    def decode_windows(self, windows: Float[Tensor, "*b i w"]) -> tuple[Float[Tensor, "*b a"], Float[Tensor, "*b a"]]:
        """Normalised actions of windows of inputs, and the logarithm of the predicted deviation.

        No gradient of the deviation reaches the codes.
        """
        flat = windows.flatten(-2)
        return self.head(flat), self.doubt(flat.detach())

    @torch.no_grad()
    def read(self, clip: Clip) -> Reading:
        """The actions that the frames show, and where they can show them.

        Raises:
            ValueError: The frames have other cameras or another size, or states are read and there are none.
        """
        expected = (len(self.config.views), *self.config.size, 3)
        if tuple(clip.frames.shape[2:]) != expected:
            raise ValueError(f"the inverse dynamics look at frames of {expected}, got {tuple(clip.frames.shape[2:])}")
        if self.config.state_dim and clip.states is None:
            raise ValueError(f"the inverse dynamics read states of {self.config.state_dim} dims, the clip has none")
        actions, log_deviation = self(clip)
        deviation = log_deviation.exp()
        return Reading(actions * self.std + self.mean, deviation, deviation <= self.limit)

    def decode(self, clip: Clip) -> Float[Tensor, "b m a"]:
        """The actions that the frames show, in the units of `commanded`; also where they are not visible.

        Raises:
            ValueError: The frames have other cameras or another size.
        """
        return self.read(clip).actions

    def visible(self, clip: Clip) -> Bool[Tensor, "b m a"]:
        """Where the frames can show the action.

        A reward should ask this of recorded frames: a dream that loses the robot is not to be excused.
        """
        return self.read(clip).visible

    def commanded(self, clip: Clip) -> Float[Tensor, "b m a"]:
        """The commands in the form that frames can show: absolute targets relative to the state, and capped.

        Raises:
            ValueError: The clip lacks the states that `relative_to` needs.
        """
        relative_to = self.config.relative_to
        if not relative_to:
            return clip.actions
        if clip.states is None:
            raise ValueError(f"relative_to={dict(relative_to)} needs states, the clip has none")
        angles, cap = self.config.angles, self.config.cap
        return relative_actions(clip.actions, clip.states[:, :-1], relative_to, cap=cap, angles=angles)

    def errors(self, clip: Clip) -> Float[Tensor, "b m a"]:
        """Decoded minus commanded actions, in standard deviations of the commands; also where they are not visible."""
        return (self.decode(clip) - self.commanded(clip)) / self.std

    def disagreement(self, clip: Clip, seen: Bool[Tensor, "b m a"]) -> Float[Tensor, "b"]:
        """Mean square of `errors` over the actions where `seen`; NaN for a clip that has none."""
        return mean_where(self.errors(clip).square(), seen)

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `weights.safetensors`."""
        save_model(folder, "config.json", InverseDynamicsDescription(self.config), self.state_dict())

    def push_to_hub(
        self, name: str, *, private: bool = True, facts: CardFacts | None = None, token: str | None = None
    ) -> str:
        """Upload them as `save` writes them to `USER/NAME` on the hub, with a card; see `worldmodel.push`."""
        return push_saved(self.save, name, private=private, facts=facts, token=token)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "InverseDynamics":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There are no valid inverse dynamics; the message says what is wrong, see `load_model`.
        """
        _, dynamics = load_model(folder, "config.json", InverseDynamicsDescription, lambda said, _: cls(said.config))
        return dynamics.to(device).eval()


def mean_where(values: Float[Tensor, "b m a"], seen: Bool[Tensor, "b m a"]) -> Float[Tensor, "b"]:
    """Mean of the values of each clip where `seen`; NaN where it is nowhere."""
    return torch.where(seen, values, 0.0).sum(dim=(1, 2)) / seen.sum(dim=(1, 2))
