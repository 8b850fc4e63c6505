"""Turn raw actions and states into inputs of the transformer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from conditioning.action import ActionEmbedding
from conditioning.angles import on_the_circle, shortest, wrapped
from conditioning.latent_action import LATENT_RANGE, LatentController
from conditioning.noise import FourierMLP
from conditioning.relative import relative_actions
from conditioning.trees import tree_map
from conditioning.words import Encode, TaskWords, WordsConfig, zero_linear


@dataclass(frozen=True)
class ConditionerConfig:
    """The inputs of the world model besides pixels."""

    action_dim: int
    """Width of one raw action; 0 for unlabelled video."""
    state_dim: int
    """Width of the proprioceptive state; 0 when the data has none."""
    stride: int = 1
    """Data frames per model frame; the actions in between are concatenated."""
    injection: Literal["token", "adaln", "cross"] = "token"
    """How actions reach the transformer."""
    relative_to: Mapping[int, int] = field(default_factory=dict)
    """{action dim: state dim}: this action is an absolute target; the network gets it minus the state."""
    latent_dim: int = 0
    """Width of the latent action that replaces the real one; 0 for none."""
    angles: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """{state dim: (low, high)}: this state is an angle that wraps from high to low."""
    chunk: int = 1
    """Model frames per latent; the actions that lead to them are concatenated, too."""
    words: WordsConfig = field(default_factory=WordsConfig)
    """How the world model is told the task in words; by default it is not."""

    @property
    def actions_told(self) -> int:
        """Number of raw actions that lead from one latent to the next one."""
        return self.stride * self.chunk

    @property
    def told_dim(self) -> int:
        """Width of the actions that the world model is given: real ones, or latent ones where there are none."""
        return self.action_dim * self.actions_told or self.latent_dim


@dataclass(frozen=True)
class Conditioning:
    """The conditioning of a sequence of frames, as the transformer reads it.

    Attributes:
        tokens: Tokens that join the space attention of their frame.
        vector: Summed into the modulation of every block; `None` unless injection is AdaLN.
        action_tokens: For cross-attention; `None` unless injection is cross-attention.
    """

    tokens: Float[Tensor, "b t k d"]
    vector: Float[Tensor, "b t d"] | None
    action_tokens: Float[Tensor, "b t c d"] | None

    def rows(self, rows: Bool[Tensor, "b"]) -> "Conditioning":
        """The conditioning of the selected clips of the batch."""
        return tree_map(lambda part: part[rows], self)

    def frames(self, chosen: Bool[Tensor, "b t"]) -> "Conditioning":
        """The conditioning of the selected frames, as clips of one frame each."""
        return tree_map(lambda part: part[chosen][:, None], self)

    def tail(self, start: int) -> "Conditioning":
        """The conditioning of the frames from `start` on."""
        return tree_map(lambda part: part[:, start:], self)


class Conditioner(nn.Module):
    """Normalise actions and states, embed them, and route them to the transformer.

    States are mapped to [-1, 1] by their 1st and 99th percentiles. Actions are mapped in the same
    way, after those of `relative_to` have become displacements from the current state. The world
    model predicts the displacement of the state to the next frame, in units of `displacement_scale`.
    Differences of angles are taken the short way round, and the network sees their cosine and sine.

    With a `chunk` of several frames per latent, all actions of a chunk are relative to the state before it. The
    number of actions that are known is embedded, too, and the unknown ones repeat the last known one (`held_actions`).

    With `latent_dim` the transformer reads latent actions. Where there are no real actions, the
    caller passes latent ones; otherwise the controller computes them from the real action and the state.

    A world model that is told the task adds its vector, through a layer that begins with zeros, to every action.
    """

    def __init__(self, config: ConditionerConfig, width: int, encode: Encode | None = None):
        super().__init__()
        self.config = config
        wide = config.action_dim * config.actions_told
        self.register_buffer("action_center", torch.zeros(wide))
        self.register_buffer("action_scale", torch.ones(wide))
        self.register_buffer("state_center", torch.zeros(config.state_dim))
        self.register_buffer("state_scale", torch.ones(config.state_dim))
        self.register_buffer("displacement_scale", torch.ones(config.state_dim))
        latent_dim = config.latent_dim
        self.action = ActionEmbedding(latent_dim or wide, width)
        self.controller = LatentController(wide, config.state_dim, latent_dim) if latent_dim and wide else None
        self.known = nn.Embedding(config.chunk, width) if config.chunk > 1 else None
        if self.known is not None:
            nn.init.zeros_(self.known.weight)
        self.state = FourierMLP(config.state_dim + len(config.angles), width) if config.state_dim else None
        self.words = TaskWords(config.words, encode) if config.words.tasks else None
        self.task = zero_linear(config.words.width, width) if config.words.tasks else None
        self.num_tokens = int(config.injection == "token") + int(config.state_dim > 0)

    def set_statistics(
        self,
        action_range: Float[Tensor, "2 a"],
        state_range: Float[Tensor, "2 s"],
        displacement_scale: Float[Tensor, "s"],
    ) -> None:
        """Set the normalisation from the low and the high end of the (relative) actions and of the states."""
        for name, (low, high) in (("action", action_range), ("state", state_range)):
            getattr(self, f"{name}_center").copy_((low + high) / 2)
            getattr(self, f"{name}_scale").copy_(((high - low) / 2).clamp(min=1e-6))
        self.displacement_scale.copy_(displacement_scale.clamp(min=1e-6))

    def relative(
        self, actions: Float[Tensor, "b t a"], states: Float[Tensor, "b t s"] | None
    ) -> Float[Tensor, "b t a"]:
        """Turn absolute targets of `relative_to` into displacements from the current state."""
        if not self.config.relative_to:
            return actions
        if states is None:
            raise ValueError(f"relative_to={dict(self.config.relative_to)} needs states, got none")
        chunks = rearrange(actions, "b t (k a) -> b t k a", k=self.config.actions_told)
        moved = relative_actions(chunks, states[:, :, None], self.config.relative_to, angles=self.config.angles)
        return rearrange(moved, "b t k a -> b t (k a)")

    def displacement(self, states: Float[Tensor, "*b s"], start: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
        """The change from `start` to `states`, in units of `displacement_scale`."""
        return shortest(states - start, self.config.angles) / self.displacement_scale

    def displacements(self, reached: Float[Tensor, "*b k s"], start: Float[Tensor, "*b s"]) -> Float[Tensor, "*b d"]:
        """The `displacement` from `start` to each of the states that follow, side by side."""
        return self.displacement(reached, start[..., None, :].expand_as(reached)).flatten(-2)

    def moved_along(
        self, start: Float[Tensor, "*b s"], displacements: Float[Tensor, "*b d"]
    ) -> Float[Tensor, "*b k s"]:
        """The states after `displacements` from `start`."""
        each = displacements.unflatten(-1, (-1, self.config.state_dim))
        return self.moved(start[..., None, :].expand_as(each), each)

    def moved(self, start: Float[Tensor, "*b s"], displacement: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
        """The states after a displacement in units of `displacement_scale`."""
        return wrapped(start + displacement * self.displacement_scale, self.config.angles)

    def seen_states(self, states: Float[Tensor, "*b s"]) -> Float[Tensor, "*b c"]:
        """States as the network reads them: normalised, and angles as cosine and sine."""
        if not self.config.angles:
            return self.normalised_states(states)
        straight = [dim for dim in range(self.config.state_dim) if dim not in self.config.angles]
        circle = on_the_circle(states, self.config.angles)
        return torch.cat([self.normalised_states(states)[..., straight], circle], dim=-1)

    def normalised_states(self, states: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
        """Raw states mapped to [-1, 1]."""
        return (states - self.state_center) / self.state_scale

    def normalised_actions(
        self, actions: Float[Tensor, "b t a"], states: Float[Tensor, "b t s"] | None
    ) -> Float[Tensor, "b t a"]:
        """Raw actions mapped to [-1, 1], after those of `relative_to` have become displacements."""
        return (self.relative(actions, states) - self.action_center) / self.action_scale

    def told(self, actions: Float[Tensor, "b t a"], states: Float[Tensor, "b t s"] | None) -> Float[Tensor, "b t l"]:
        """The actions to embed: real actions, normalised, or latent actions divided by their range."""
        if not self.config.action_dim:
            return actions / LATENT_RANGE
        normalised = self.normalised_actions(actions, states)
        if self.controller is None:
            return normalised
        seen = None if states is None else self.normalised_states(states)
        return self.controller(normalised, seen) / LATENT_RANGE

    def vectors(self, task: str | Sequence[str], number: int) -> Float[Tensor, "b q"] | None:
        """The vector of the task of each of `number` clips; `None` for a world model that is not told the task.

        Args:
            task: The task of all of them, or one for each, as in `Clip.task`.
            number: Number of clips.

        Raises:
            ValueError: A task is empty or not known.
        """
        if self.words is None:
            return None
        return self.words((task,) * number if isinstance(task, str) else task)

    def forward(
        self,
        actions: Float[Tensor, "b t a"] | None,
        states: Float[Tensor, "b t s"] | None,
        shape: tuple[int, int],
        present: Bool[Tensor, "b t"] | None = None,
        known: Int[Tensor, "b t"] | None = None,
        words: Float[Tensor, "b q"] | None = None,
    ) -> Conditioning:
        """Embed raw actions and states of `shape = (b, t)` frames.

        Main arguments: `actions` (`None`: no action is known) and `states`.
        Other arguments: `present` is false where the action counts as unknown; `known` is the number of frames of a
        chunk whose actions are known, from 1 to `chunk`, by default all of them; `words` are the vectors of the tasks,
        see `vectors`, for a world model that is told them.

        Raises:
            ValueError: If the widths are not those of the configuration, or the tasks are missing.
        """
        self._check(actions, states)
        device = self.action.no_action.device
        if actions is None:
            width = self.config.latent_dim or self.config.told_dim or 1
            told = torch.zeros(*shape, width, device=device)
            present = torch.zeros(shape, dtype=torch.bool, device=device)
        else:
            told = self.told(actions, states)
            if present is None:
                present = torch.ones(shape, dtype=torch.bool, device=device)
        action = self.action(told, present)
        if self.known is not None:
            known = torch.full(shape, self.config.chunk, device=device) if known is None else known
            action = action + self.known(known - 1)
        if self.task is not None:
            if words is None:
                raise ValueError("the world model is told the task in words, and got none")
            action = action + self.task(words)[:, None]
        tokens = [action] if self.config.injection == "token" else []
        if self.state is not None:
            tokens.append(self.state(self.seen_states(states)))
        empty = action.new_zeros(*shape, 0, action.shape[-1])
        return Conditioning(
            tokens=torch.stack(tokens, dim=2) if tokens else empty,
            vector=action if self.config.injection == "adaln" else None,
            action_tokens=action[:, :, None] if self.config.injection == "cross" else None,
        )

    def _check(self, actions: Tensor | None, states: Tensor | None) -> None:
        config, width = self.config, self.config.told_dim
        if actions is not None and actions.shape[-1] != width:
            kind = f"{config.action_dim} x stride {config.stride}" + (
                f" x chunk {config.chunk}" if config.chunk > 1 else ""
            )
            if width and not config.action_dim:
                kind = "latent actions"
            raise ValueError(f"actions have width {actions.shape[-1]}, the world model expects {width} ({kind})")
        got = 0 if states is None else states.shape[-1]
        if got != self.config.state_dim:
            raise ValueError(f"states have width {got}, the world model expects {self.config.state_dim}")
