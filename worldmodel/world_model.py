"""The world model: codec + conditioner + transformer, streamed frame by frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from conditioning.conditioner import Conditioner, ConditionerConfig, Conditioning
from conditioning.latent_action import LatentActionEncoder
from worldmodel.data.clip import Clip
from worldmodel.model.codec import LatentCodec, PixelCodec
from worldmodel.model.dit import DiTConfig, Encoded, VideoDiT
from worldmodel.model.flow import sample
from worldmodel.model.layers import TimeCache, TimeStep
from worldmodel.model.precision import autocast, compute_dtype
from worldmodel.model_folder import load_model, save_model
from worldmodel.streaming.cuda_graph import replayed
from worldmodel.streaming.engine import Engine, fingerprint, foldable
from worldmodel.streaming.state import Observation, RolloutState, stream_noise


@dataclass(frozen=True)
class WorldModelConfig:
    """All that is needed to build a world model; saved beside its weights."""

    views: tuple[str, ...]
    """Camera names, in order."""
    size: tuple[int, int]
    """Height and width of a frame in pixels."""
    fps: float
    """Frames per second of the data, before striding."""
    conditioner: ConditionerConfig
    """Actions and states."""
    dit: DiTConfig
    """The transformer."""
    max_steps: int = 4
    """Most denoising steps that shortcut training covers; a power of two."""
    temperature: float = 1.0
    """Scale of the noise that dreams start from; 1 is what was trained, 0 makes them repeatable."""
    robot_type: str = ""
    """`robot_type` of the training data."""


@dataclass(frozen=True)
class WorldDescription:
    """What `world.json` holds."""

    config: WorldModelConfig
    codec: Literal["pixels", "codec"]
    """Pixels, or the autoencoder in the folder `codec` beside it."""
    train_data: list[dict]
    """See `WorldModel.train_data`."""


class WorldModel(nn.Module):
    """Action-conditioned model of robot video.

    ```python
    world = WorldModel.load("checkpoints/pusht")
    state = world.start(context)                       # a Clip of a few real frames
    observation, state = world.step(state, actions)    # one action in, one frame out
    ```

    Args:
        config: Sizes and conditioning.
        codec: Frames to latents; pixels when `None`.

    Attributes:
        train_data: What it was trained on, one dictionary per data set.
        view_weight: Weight of each camera in the loss, mean 1.
        latent_encoder: Names what happened between two frames, when there are latent actions.
    """

    def __init__(self, config: WorldModelConfig, codec: LatentCodec | None = None):
        super().__init__()
        self.config = config
        self.codec = PixelCodec() if codec is None else codec
        self.train_data: list[dict] = []
        self._engine: Engine | None = None
        height, width = (side // self.codec.downsampling for side in config.size)
        self.latent_shape = (self.codec.channels, height, width)
        self.register_buffer("view_weight", torch.ones(len(config.views)))
        self.conditioner = Conditioner(config.conditioner, config.dit.width)
        latent_dim = config.conditioner.latent_dim
        self.latent_encoder = (
            LatentActionEncoder(self.latent_shape, len(config.views), latent_dim) if latent_dim else None
        )
        if self.latent_encoder is not None and config.conditioner.action_dim:
            self.latent_encoder.requires_grad_(False)  # the controller has taken its place
        self.dit = VideoDiT(
            config.dit,
            num_views=len(config.views),
            latent_shape=self.latent_shape,
            state_dim=config.conditioner.state_dim,
            num_condition_tokens=self.conditioner.num_tokens,
            injection=config.conditioner.injection,
        )

    views = property(lambda self: self.config.views)
    size = property(lambda self: self.config.size)
    fps = property(lambda self: self.config.fps)
    stride = property(lambda self: self.config.conditioner.stride)
    action_dim = property(lambda self: self.config.conditioner.action_dim)
    state_dim = property(lambda self: self.config.conditioner.state_dim)
    relative_to = property(lambda self: self.config.conditioner.relative_to)

    @property
    def describes(self) -> bool:
        """Whether latent actions, read off the frames, stand for actions that nobody recorded."""
        return self.latent_encoder is not None and self.action_dim == 0

    @torch.no_grad()
    def latent_actions(self, frames: UInt8[Tensor, "b t v H W 3"]) -> Float[Tensor, "b t-1 l"]:
        """The most likely latent action between every two frames; needs a `latent_encoder`."""
        return self.latent_encoder(self.codec.encode(frames.to(self.device)))[0]

    def train(self, mode: bool = True) -> "WorldModel":
        """Switch between training and use; the engine is built anew, see `fingerprint`."""
        self._engine = None
        return super().train(mode)

    def __getstate__(self) -> dict:
        """All but the engine, whose packed weights cannot be copied; a copy builds its own."""
        return {**self.__dict__, "_engine": None}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.dit.condition_embedding.device

    def check(self, clip: Clip) -> None:
        """Raise a `ValueError` with both values when `clip` does not fit this world model."""
        views, size = clip.frames.shape[-4], tuple(clip.frames.shape[-3:-1])
        if views != len(self.views):
            raise ValueError(f"clip has {views} views, the world model {self.views}")
        if size != tuple(self.size):
            raise ValueError(f"clip has frames of {size}, the world model {tuple(self.size)}")

    # Streaming

    @torch.no_grad()
    def start(self, context: Clip, *, seed: int | Sequence[int] = 0) -> RolloutState:
        """Begin `b` streams from a few real frames each.

        Args:
            context: Frames `b t v H W 3` with the `t - 1` actions between them, and states.
            seed: Noise seed; an integer `s` gives stream `i` the seed `s + i`.

        Raises:
            ValueError: If the clip does not fit the world model.
        """
        self.check(context)
        context = context.to(self.device)
        latents = self.codec.encode(context.frames)
        batch, frames = latents.shape[:2]
        seeds = [seed + i for i in range(batch)] if isinstance(seed, int) else list(seed)
        config = self.config.dit
        cache = TimeCache(
            self.dit.num_time_layers,
            batch,
            self.dit.num_tokens,
            config.width // config.head_width,
            config.head_width,
            config.window,
            self.device,
            compute_dtype(self.device),
        )
        state = RolloutState(
            cache=cache,
            frame=torch.zeros(batch, dtype=torch.long, device=self.device),
            latent=latents[:, 0],
            reference=latents[:, 0].clone(),
            states=None if context.states is None else context.states[:, 0],
            seeds=torch.tensor(seeds),
            view_mask=context.view_mask,
        )
        for index in range(frames - 1):
            actions = None if context.actions is None else context.actions[:, index]
            next_states = None if context.states is None else context.states[:, index + 1]
            state = self._observe(state, actions, latents[:, index + 1], next_states)
        return state

    @torch.no_grad()
    def step(
        self,
        state: RolloutState,
        actions: Float[Tensor, "b a"] | None,
        *,
        num_steps: int = 2,
        temperature: float | None = None,
    ) -> tuple[Observation, RolloutState]:
        """Apply one raw action per stream and imagine the next frame.

        Args:
            state: From `start` or the previous `step`; used up by the call.
            actions: Raw actions, `action_dim * stride` wide; `None` means no action is known.
            num_steps: Denoising steps, a power of two up to `config.max_steps`.
            temperature: Scale of the noise; `config.temperature` when not given. A single step
                starts from noise that says nothing, so it does not depend on it.
        """
        temperature = self.config.temperature if temperature is None else temperature
        if num_steps not in self.allowed_steps:
            raise ValueError(f"num_steps={num_steps}, expected one of {self.allowed_steps}")
        if foldable(self.dit):
            shown = self._folded_step(state, actions, num_steps, temperature)
        else:
            shown = self._shown(state, *self._step(state, actions, num_steps, temperature))
        latent, frames, *moved = shown
        states = moved[0] if moved else None
        state = replace(state, frame=state.frame + 1, latent=latent, states=states)
        return Observation(frames, states), state

    def _folded_step(
        self, state: RolloutState, actions: Tensor | None, num_steps: int, temperature: float
    ) -> tuple[Tensor, ...]:
        """What `_shown` gives of the next frame, by the engine."""
        engine = self.engine

        def run(state: RolloutState, actions: Tensor | None, *noise: Tensor) -> tuple[Tensor, ...]:
            thought = engine.think(state, self._condition(state, actions))
            return self._shown(state, *engine.denoise(state, thought, num_steps, noise))

        noise = self._noise(state, temperature) if num_steps > 1 else ()
        return replayed(run, (engine, num_steps), state, actions, noise)

    def _shown(self, state: RolloutState, latent: Tensor, *moved: Tensor) -> tuple[Tensor, ...]:
        """The next latent, its pictures, and the next state where there is one."""
        latent = self.bound(latent)
        states = [state.states + each * self.conditioner.displacement_scale for each in moved]
        return latent, self.codec.decode(latent), *states

    @property
    def engine(self) -> Engine:
        """What streams, with the weights as they are now; built anew when they have changed."""
        if self._engine is None or self._engine.fingerprint != fingerprint(self.dit):
            self._engine = Engine(self.dit)
        return self._engine

    def _step(
        self, state: RolloutState, actions: Tensor | None, num_steps: int, temperature: float
    ) -> tuple[Tensor, ...]:
        """The next latent, and the displacement of the state, without the engine."""
        with autocast(self.device):
            encoded = self._encode(state, actions)
            noise = tuple(part[:, None] for part in self._noise(state, temperature))
            clean = sample(lambda z, tau, d: self.predict(encoded, z, tau, d), noise, num_steps)
            clean = self.bound(clean[0].float()), *clean[1:]
            self._remember(encoded, clean)
        return tuple(part[:, 0].float() for part in clean)

    def _remember(self, encoded: Encoded, clean: tuple[Tensor, ...]) -> None:
        """Write what became of a frame to the cache; an encoder has no need of it."""
        if self.dit.monolithic:
            one = torch.ones(clean[0].shape[:2], device=self.device)
            self.predict(encoded, clean, one, one / self.config.max_steps)

    def _noise(self, state: RolloutState, temperature: float) -> tuple[Tensor, ...]:
        """Noise of the next latent, and of the displacement of the state."""
        shapes = [tuple(state.latent.shape[1:])]
        if self.state_dim:
            shapes.append((self.state_dim,))
        if temperature == 0:
            return tuple(state.latent.new_zeros(len(state.frame), *shape) for shape in shapes)
        sizes = [math.prod(shape) for shape in shapes]
        flat = temperature * stream_noise(state.seeds, state.frame, [sum(sizes)])
        parts = flat.to(self.device).split(sizes, dim=-1)
        return tuple(p.reshape(-1, *s) for p, s in zip(parts, shapes, strict=True))

    @property
    def allowed_steps(self) -> tuple[int, ...]:
        """Denoising steps that `step` accepts: 1, 2, ... `config.max_steps`."""
        return tuple(2**i for i in range(self.config.max_steps.bit_length()))

    def imagine(
        self, context: Clip, actions: Float[Tensor, "b m a"], *, num_steps: int = 2, seed: int | Sequence[int] = 0
    ) -> Clip:
        """Roll out `m` actions from `context`; return the `m` new frames and states.

        The returned clip has the `m - 1` actions between the new frames.
        """
        state = self.start(context, seed=seed)
        actions = actions.to(self.device)
        frames, states = [], []
        for index in range(actions.shape[1]):
            observation, state = self.step(state, actions[:, index], num_steps=num_steps)
            frames.append(observation.frames)
            states.append(observation.states)
        return Clip(
            frames=torch.stack(frames, dim=1),
            actions=actions[:, 1:],
            states=torch.stack(states, dim=1) if self.state_dim else None,
            view_mask=context.view_mask,
            pixel_mask=context.pixel_mask,
        )

    def bound(self, latents: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Keep pixel latents in [-1, 1]; an autoencoder's latents are left alone."""
        return latents.clamp(-1, 1) if isinstance(self.codec, PixelCodec) else latents

    def predict(
        self, encoded: Encoded, noisy: tuple[Tensor, ...], tau: Float[Tensor, "b t"], step_size: Float[Tensor, "b t"]
    ) -> tuple[Tensor, ...]:
        """Predict the clean parts (latent, and state displacement when there is a state)."""
        noisy_state = noisy[1] if len(noisy) > 1 else None
        latent, state = self.dit.decode(encoded, noisy[0], noisy_state, tau, step_size)
        return (latent,) if state is None else (latent, state)

    def _encode(self, state: RolloutState, actions: Tensor | None) -> Encoded:
        slot = state.cache.reserve(state.frame)
        return self.dit.encode(
            state.latent[:, None],
            self._condition(state, actions),
            view_mask=state.view_mask,
            reference=state.reference,
            step=TimeStep(state.cache, state.frame, slot),
        )

    def _condition(self, state: RolloutState, actions: Tensor | None) -> Conditioning:
        return self.conditioner(
            None if actions is None else actions.to(self.device).float()[:, None],
            None if state.states is None else state.states[:, None],
            (len(state.frame), 1),
        )

    def _observe(
        self, state: RolloutState, actions: Tensor | None, latent: Tensor, states: Tensor | None
    ) -> RolloutState:
        """Move to a frame that is known: encode the current one and write it to the cache."""
        if foldable(self.dit):
            self.engine.think(state, self._condition(state, actions))
        else:
            clean = (latent[:, None],)
            if states is not None:
                moved = (states - state.states) / self.conditioner.displacement_scale
                clean = *clean, moved[:, None]
            with autocast(self.device):
                self._remember(self._encode(state, actions), clean)
        return replace(state, frame=state.frame + 1, latent=latent, states=states)

    # Files

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write `world.json` and `weights.safetensors` atomically; `dtype` casts the weights."""
        state = {k: v for k, v in self.state_dict().items() if not k.startswith("codec.")}
        if dtype is not None:
            cast = {k: v.to(dtype) for k, v in state.items() if k.startswith("dit.")}
            state = {**state, **cast}
        pixels = isinstance(self.codec, PixelCodec)
        if not pixels:
            self.codec.autoencoder.save_pretrained(Path(folder) / "codec")
        described = WorldDescription(self.config, "pixels" if pixels else "codec", self.train_data)
        save_model(folder, "world.json", described, state)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "WorldModel":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is no world model, naming what is wrong; see `load_model`.
        """

        def build(said: WorldDescription, path: Path) -> WorldModel:
            if said.codec == "pixels":
                return cls(said.config)
            from worldmodel.model.autoencoder import AutoencoderCodec

            return cls(said.config, AutoencoderCodec.from_pretrained(path / "codec"))

        said, world = load_model(folder, "world.json", WorldDescription, build, apart_from=("codec.",))
        world.train_data = said.train_data
        return world.to(device).eval()
