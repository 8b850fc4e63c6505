"""Episodes made of numbers: an `EpisodeSource` without files, for expectations done by hand."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from conditioning.conditioner import ConditionerConfig
from worldmodel.data.clip import Clip, Origin
from worldmodel.dreams.verdict import Verdict
from worldmodel.model.dit import DiTConfig
from worldmodel.streaming.advance import begin
from worldmodel.streaming.state import Observation
from worldmodel.streaming.stream import Stream
from worldmodel.world_model import WorldModel, WorldModelConfig

SEEDS = (70, 71, 72, 73)


class DrawnEpisodes:
    """Episodes given by functions of the episode and the frame index."""

    name = "drawn"
    fps = 10.0
    action_dim = 2
    state_dim = 2

    def __init__(
        self,
        lengths: Sequence[int],
        grey: Callable[[int, Tensor], Tensor] = lambda episode, frame: 100 + frame,
        *,
        action: Callable[[int, Tensor], Tensor] = lambda episode, frame: frame / 10 + episode,
        views: tuple[str, ...] = ("top", "wrist"),
        size: tuple[int, int] = (16, 16),
        pixel_mask: Bool[Tensor, "v H W"] | None = None,
        reset_seeds: Sequence[int] | None = None,
        robot_type: str = "drawn",
    ):
        self.lengths, self.views, self.size = tuple(lengths), views, size
        self.grey, self.action, self.reset_seeds = grey, action, reset_seeds
        self.robot_type = robot_type
        full = torch.ones(len(views), *size, dtype=torch.bool)
        self.pixel_mask = full if pixel_mask is None else pixel_mask
        self.fingerprint = f"drawn {self.lengths}"

    @property
    def own_size(self) -> tuple[int, int]:
        """The size of the pictures."""
        return self.size

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Every episode of one data set."""
        return tuple(Origin(self.name, self.fingerprint, episode) for episode in range(len(self)))

    def __len__(self) -> int:
        return len(self.lengths)

    def frames(self, episode: int, index: Tensor) -> UInt8[Tensor, "t v H W 3"]:
        """Uniform grey pictures."""
        grey = self.grey(episode, index).to(torch.uint8)
        height, width = self.size
        return grey[:, None, None, None, None].repeat(1, len(self.views), height, width, 3)

    def states(self, episode: int, index: Tensor) -> Float32[Tensor, "t 2"]:
        """(frame index, episode)."""
        return torch.stack([index.float(), torch.full(index.shape, float(episode))], dim=1)

    def columns(self, episode: int, stride: int = 1) -> Clip:
        """The tables of a whole episode."""
        clip = self.read(episode, 0, self.lengths[episode], stride)
        return replace(clip, frames=clip.frames[:, :0, :0, :0])

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """A stretch of an episode; the actions of a stride are concatenated."""
        index = torch.arange(start, stop, stride)
        between = torch.arange(int(index[0]), int(index[-1]))
        actions = self.action(episode, between).float()[:, None].repeat(1, 2)
        return Clip(
            frames=self.frames(episode, index),
            actions=actions.reshape(len(index) - 1, 2 * stride),
            states=self.states(episode, index),
        )

    def task(self, episode: int) -> str:
        return ""

    def reset_seed(self, episode: int) -> int | None:
        return None if self.reset_seeds is None else self.reset_seeds[episode]


def tiny_world(
    *,
    size: tuple[int, int] = (16, 16),
    views: tuple[str, ...] = ("top", "wrist"),
    relative: bool = True,
    stride: int = 1,
    action_dim: int = 2,
    state_dim: int = 2,
) -> WorldModel:
    """A world model fresh from its constructor: it predicts the current frame again."""
    torch.manual_seed(0)
    config = WorldModelConfig(
        views=views,
        size=size,
        fps=10.0,
        conditioner=ConditionerConfig(
            action_dim=action_dim, state_dim=state_dim, stride=stride, relative_to={0: 0, 1: 1} if relative else {}
        ),
        dit=DiTConfig(width=16, patch=8, encoder_depth=2, decoder_depth=1, head_width=8),
    )
    return WorldModel(config).eval()


class TellingStream(Stream):
    """Every frame is brighter than the last one by the first dim of the action, in grey levels."""

    def _advance(self, state, actions, num_steps, temperature, *, shown=True):
        frames = state.frames.float() + actions[:, :1, None, None, None]
        frames = frames.round().to(torch.uint8)
        latent = self.world.codec.encode(frames)
        return replace(state, frame=state.frame + 1, latent=latent, frames=frames)


class TellingWorld(WorldModel):
    """A world model with such streams."""

    @torch.no_grad()
    def stream(self, context, *, seeds=0):
        return TellingStream(self, begin(self, context, seeds))


def stir(world: WorldModel) -> WorldModel:
    """Give the zero-initialised output weights, so that dreams depend on actions and noise."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in world.parameters():
            if not np.any(parameter.numpy()):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return world


def never(observation: Observation) -> Verdict:
    """A judge for whom nothing is a success and brightness is the reward."""
    frames = observation.frames
    rewards = frames.float().mean(dim=(1, 2, 3, 4)) / 255
    return Verdict(rewards, torch.zeros(len(frames), dtype=torch.bool))
