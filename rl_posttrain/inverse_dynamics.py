"""From frames to the action between them: keypoints of every camera and a perceptron.

Used as a reward: what a generated video shows is decoded into actions and compared with what was
commanded (EVA, 2603.17808, decodes by an inverse-dynamics model with a spatial softmax, too; its
backbone sees the frames of a window stacked on the channels, ours finds keypoints in each).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from policy_eval.behaviour_cloning import KeypointEncoder
from worldmodel.data.clip import Clip
from worldmodel.files import write_json, write_weights


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
    cap: float | None = None
    """Longest displacement of the relative dims together: what lies beyond cannot be seen."""
    displacement: bool = True
    """Whether actions are displacements, as relative ones are; otherwise they are positions."""
    window: int = 3
    """Frames looked at; the last one is the frame that the action leads to."""
    keypoints: int = 24
    """Keypoints per camera."""
    width: int = 128
    """Width of the perceptron."""

    @classmethod
    def from_dict(cls, values: Mapping) -> "InverseDynamicsConfig":
        """Read the dictionary that `dataclasses.asdict` and JSON make of a configuration."""
        relative = {int(k): int(v) for k, v in values["relative_to"].items()}
        shapes = {"views": tuple(values["views"]), "size": tuple(values["size"])}
        return cls(**{**values, **shapes, "relative_to": relative})


class InverseDynamics(nn.Module):
    """Decode the actions of a video.

    ```python
    dynamics = InverseDynamics.from_pretrained("runs/inverse-dynamics")
    error = dynamics.decode(clip.frames) - dynamics.commanded(clip)
    ```

    Args:
        config: Cameras, sizes, and which action is decoded.

    Attributes:
        mean, std: Of the commanded actions of the training data.
    """

    def __init__(self, config: InverseDynamicsConfig):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleList([KeypointEncoder(config.keypoints) for _ in config.views])
        width = config.width
        seen = config.window * sum(encoder.num_features for encoder in self.encoders)
        self.head = nn.Sequential(
            nn.Linear(seen, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, config.action_dim),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(config.action_dim))
        self.register_buffer("std", torch.ones(config.action_dim))

    def forward(
        self,
        frames: UInt8[Tensor, "b t v H W 3"],
        view_mask: Bool[Tensor, "b v"] | None = None,
    ) -> Float[Tensor, "b m a"]:
        """Normalised actions between consecutive frames.

        Before the first frame it is repeated, as if nothing had moved; a missing camera gives
        zeros for its keypoints.
        """
        batch, count = frames.shape[:2]
        features = []
        for view, encode in enumerate(self.encoders):
            points = encode(rearrange(frames[:, :, view], "b t h w c -> (b t) h w c"))
            points = rearrange(points, "(b t) k -> b t k", b=batch)
            if view_mask is not None:
                points = points * view_mask[:, view, None, None]
            features.append(points)
        points = torch.cat(features, dim=-1)
        at = torch.arange(1, count, device=frames.device)
        back = torch.arange(self.config.window - 1, -1, -1, device=frames.device)
        window = points[:, (at[:, None] - back).clamp(min=0)]
        return self.head(rearrange(window, "b t w k -> b t (w k)"))

    @torch.no_grad()
    def decode(self, clip: Clip) -> Float[Tensor, "b m a"]:
        """What the frames show, in the units of `commanded`.

        Raises:
            ValueError: The frames have other cameras or another size.
        """
        expected = (len(self.config.views), *self.config.size, 3)
        if tuple(clip.frames.shape[2:]) != expected:
            raise ValueError(
                f"the inverse dynamics look at frames of {expected}, got "
                f"{tuple(clip.frames.shape[2:])}"
            )
        return self(clip.frames, clip.view_mask) * self.std + self.mean

    def commanded(self, clip: Clip) -> Float[Tensor, "b m a"]:
        """The commands as they can be seen: absolute targets relative to the state, and capped.

        Raises:
            ValueError: The clip lacks the states that `relative_to` needs.
        """
        relative_to = self.config.relative_to
        actions = clip.actions.clone()
        if not relative_to:
            return actions
        if clip.states is None:
            raise ValueError(f"relative_to={dict(relative_to)} needs states, the clip has none")
        for action, state in relative_to.items():
            actions[..., action] -= clip.states[:, :-1, state]
        if self.config.cap is not None:
            dims = list(relative_to)
            length = actions[..., dims].norm(dim=-1, keepdim=True).clamp_min(1e-6)
            actions[..., dims] *= (self.config.cap / length).clamp_max(1.0)
        return actions

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `weights.safetensors`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder / "weights.safetensors", dict(self.state_dict()))
        write_json(folder / "config.json", {"format": 1, "config": asdict(self.config)})

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu"
    ) -> "InverseDynamics":
        """Load what `save_pretrained` wrote.

        Raises:
            ValueError: The folder holds no inverse-dynamics model, naming the file that is wrong.
        """
        file = Path(folder) / "config.json"
        if not file.is_file():
            raise ValueError(f"{folder}: no inverse dynamics here, config.json is missing")
        try:
            config = InverseDynamicsConfig.from_dict(json.loads(file.read_text())["config"])
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{file}: not inverse dynamics: {error!r}") from error
        dynamics = cls(config)
        weights = file.with_name("weights.safetensors")
        if not weights.is_file():
            raise ValueError(f"{weights}: missing")
        try:
            dynamics.load_state_dict(load_file(weights))
        except RuntimeError as error:
            raise ValueError(f"{weights}: weights of another model: {error}") from error
        return dynamics.to(device).eval()
