"""The record in which the package passes data around: a part of an episode."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from conditioning.trees import tree_map


@dataclass(frozen=True)
class Clip:
    """Frames with the actions between them; any number of leading batch axes.

    `actions[..., i, :]` is applied at `frames[..., i]` and leads to `frames[..., i + 1]`, so a clip
    of `t` frames has `t - 1` actions, rewards and successes. With a frame stride the actions in
    between are concatenated along the action axis.

    Attributes:
        frames: Pictures of every view, RGB, 0..255.
        actions: Raw actions in the units of the data; `None` for unlabelled video.
        states: Raw proprioceptive states (`observation.state`), one per frame.
        rewards: `next.reward` of each action; summed over a stride.
        successes: `next.success` of each action; true if any within a stride is.
        view_mask: False where a camera is missing; `None` means all are present.
        pixel_mask: False on letterbox padding; `None` means there is no padding.
        task: The task of the episode in words, or one for each clip of the batch; empty if not known.
        latents: The frames as a codec encodes them, where they are known already.
    """

    frames: UInt8[Tensor, "*b t v H W 3"]
    actions: Float32[Tensor, "*b t-1 a"] | None = None
    states: Float32[Tensor, "*b t s"] | None = None
    rewards: Float32[Tensor, "*b t-1"] | None = None
    successes: Bool[Tensor, "*b t-1"] | None = None
    view_mask: Bool[Tensor, "*b v"] | None = None
    pixel_mask: Bool[Tensor, "*b v H W"] | None = None
    task: str | tuple[str, ...] = ""
    latents: Float[Tensor, "*b t v c h w"] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Clip":
        """Apply `function` to every tensor that is present."""
        return tree_map(function, self)

    def head(self, num_frames: int) -> "Clip":
        """The first `num_frames` frames of clips with one batch axis, with the actions between them."""
        frames = {name: getattr(self, name) for name in ("frames", "states", "latents")}
        between = {name: getattr(self, name) for name in ("actions", "rewards", "successes")}
        cut = {k: None if v is None else v[:, :num_frames] for k, v in frames.items()}
        cut |= {k: None if v is None else v[:, : num_frames - 1] for k, v in between.items()}
        return Clip(**cut, view_mask=self.view_mask, pixel_mask=self.pixel_mask, task=self.task)

    def to(self, device: torch.device | str) -> "Clip":
        """Move every tensor to `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def rows(self, rows: slice | Tensor | list[int]) -> "Clip":
        """The chosen clips of a batch."""
        chosen = self.map(lambda tensor: tensor[rows])
        if isinstance(self.task, str):
            return chosen
        index = torch.arange(len(self.task))[rows.cpu() if isinstance(rows, Tensor) else rows]
        return replace(chosen, task=tuple(self.task[i] for i in index.tolist()))


def stack_clips(clips: Sequence[Clip]) -> Clip:
    """Stack clips of equal shape, each of one episode, along a new leading batch axis."""
    columns = {}
    for field in fields(Clip):
        values = [getattr(clip, field.name) for clip in clips]
        if field.name == "task":
            columns["task"] = tuple(values)
        else:
            columns[field.name] = None if values[0] is None else torch.stack(values)
    return Clip(**columns)


def columns_at(tables: Mapping[str, Tensor], frames: range) -> dict[str, Tensor]:
    """States at the frames; actions, rewards and successes of the strides between them.

    Args:
        tables: `actions`, `states`, `rewards`, `successes`, as far as there are any; one row per frame. Rows of
            actions, rewards and successes after the last frame may be missing.
        frames: The rows of the frames.
    """
    found = {}
    if "states" in tables:
        found["states"] = tables["states"][frames.start : frames[-1] + 1 : frames.step].clone()
    between = {name: tables[name][frames.start : frames[-1]] for name in tables if name != "states"}
    if "actions" in between:
        found["actions"] = rearrange(between["actions"], "(t k) a -> t (k a)", k=frames.step).clone()
    if "rewards" in between:
        found["rewards"] = reduce(between["rewards"], "(t k) -> t", "sum", k=frames.step)
    if "successes" in between:
        found["successes"] = rearrange(between["successes"], "(t k) -> t k", k=frames.step).any(dim=1)
    return found


@dataclass(frozen=True)
class Origin:
    """Which recorded episode this is, however it was opened: the same in every selection of a data set.

    Attributes:
        name: The data set, as the user gave it.
        fingerprint: Of the data set's files.
        number: The episode's number in the data set.
    """

    name: str
    fingerprint: str
    number: int


@runtime_checkable
class EpisodeSource(Protocol):
    """Episodes of one data set or of several, whatever their layout.

    Attributes:
        name: The folder as the user gave it, for messages.
        views: Camera names without the `observation.images.` prefix.
        fps: Frames per second.
        lengths: Number of frames of each episode.
        action_dim: Width of one action; 0 for unlabelled video.
        state_dim: Width of `observation.state`; 0 when the data has none.
        size: `(H, W)` of the frames that `read` returns.
        own_size: The largest `(H, W)` of the cameras, before resizing.
        pixel_mask: False on letterbox padding.
        robot_type: `robot_type` of `meta/info.json`, an environment's name for recorded data.
        fingerprint: Changes whenever the files of the source change.
        origins: Where each episode comes from.
    """

    name: str
    views: tuple[str, ...]
    fps: float
    lengths: tuple[int, ...]
    action_dim: int
    state_dim: int
    size: tuple[int, int]
    own_size: tuple[int, int]
    pixel_mask: Bool[Tensor, "v H W"]
    robot_type: str
    fingerprint: str
    origins: tuple[Origin, ...]

    def __len__(self) -> int:
        """Number of episodes."""
        ...

    def read(self, episode: int, start: int, stop: int, stride: int = 1) -> Clip:
        """Read frames `start, start + stride, ... < stop` of an episode, without a batch axis."""
        ...

    def columns(self, episode: int, stride: int = 1) -> Clip:
        """The tables of a whole episode as in `read`, without decoding a picture: `frames` has no pixels."""
        ...

    def task(self, episode: int) -> str:
        """The task in words, or an empty string."""
        ...

    def reset_seed(self, episode: int) -> int | None:
        """The simulator seed that reproduces the episode's start, when it was recorded."""
        ...
