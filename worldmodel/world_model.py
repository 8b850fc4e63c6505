"""The world model: codec + conditioner + transformer, streamed frame by frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from conditioning.conditioner import Conditioner, ConditionerConfig
from conditioning.latent_action import LatentActionEncoder
from worldmodel.data.cache.sentences import encoder_of
from worldmodel.data.clip import Clip
from worldmodel.model.backbone import Backbone, EncodedFrames
from worldmodel.model.card import CardFacts
from worldmodel.model.codec import LatentCodec, PixelCodec
from worldmodel.model.dit import DiTConfig, VideoDiT
from worldmodel.model.find_codec import has_small_decoder, load_codec, with_small_decoder
from worldmodel.model.flow import Level, Sampler, sample
from worldmodel.model.folder import load_model, save_model
from worldmodel.model.hub import push_saved
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.source import Source, open_source
from worldmodel.streaming.advance import Parts, Seeds, begin
from worldmodel.streaming.engine import FoldedEngine, foldable
from worldmodel.streaming.plain import PlainEngine
from worldmodel.streaming.stream import Stream


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
    dit: DiTConfig | PretrainedConfig
    """The transformer: one of this package, or a pretrained one."""
    max_steps: int = 4
    """Largest number of denoising steps that shortcut training covers; a power of two."""
    temperature: float = 1.0
    """Scale of the noise that dreams start from; 1 is the value in training, 0 makes dreams deterministic."""
    robot_type: str = ""
    """`robot_type` of the training data."""
    guidance: float = 1.0
    """Weight w of guidance on the actions, `x_null + w (x - x_null)`, in dreams; 1 is off. Another value needs a world
    model that was trained with `--action-dropout`, and every frame is computed twice."""


@dataclass(frozen=True)
class WorldDescription:
    """The content of `world.json`."""

    config: WorldModelConfig
    codec: Literal["pixels", "codec", "backbone"]
    """Pixels, the autoencoder in the folder `codec` beside it, or the codec of the pretrained transformer."""
    train_data: list[dict]
    """See `WorldModel.train_data`."""


@Parts.register  # from Python 3.12 on, isinstance with a protocol does not see the parts of an nn.Module
class WorldModel(nn.Module):
    """Action-conditioned model of robot video.

    ```python
    world = WorldModel.load("checkpoints/pusht")
    stream = world.stream(context)         # a Clip of a few real frames
    observation = stream.step(actions)     # one action in, one frame out
    ```

    Args:
        config: Sizes and conditioning.
        codec: Frames to latents; by default pixels, and for a pretrained transformer what it was trained with.

    Attributes:
        own_codec: Whether the codec was given, and is saved with the world model.
        small_decoder: Whether a small decoder takes the place of the codec's; it is saved with the world model.
        train_data: The data that it was trained on, one dictionary per data set.
        view_weight: Weight of each camera in the loss, mean 1.
        latent_encoder: Computes the latent action between two frames; `None` without latent actions.
        dit: The network; only the methods of the protocol `Backbone` are used.
        sampler: Turns noise into a clean frame; `worldmodel.model.flow.sample` by default. If you set
            another one, everything that dreams uses it.
        fast: Whether streams may use `FoldedEngine`, which computes the same up to rounding; if False,
            streams run the modules themselves.
    """

    def __init__(self, config: WorldModelConfig, codec: LatentCodec | None = None):
        super().__init__()
        self.config = config
        source = open_source(config.dit) if isinstance(config.dit, PretrainedConfig) else None
        self.own_codec = codec is not None
        if codec is None:
            codec = PixelCodec() if source is None else source.codec(config.conditioner.chunk)
        self.codec = codec
        if codec.frames_per_latent != config.conditioner.chunk:
            raise ValueError(f"codec: {codec.frames_per_latent} frames per latent, expected chunk {self.chunk}")
        self.small_decoder = False
        self.train_data: list[dict] = []
        self.sampler: Sampler = sample
        self.fast = True
        self._engine: FoldedEngine | None = None
        height, width = (side // self.codec.downsampling for side in config.size)
        self.latent_shape = (self.codec.channels, height, width)
        self.register_buffer("view_weight", torch.ones(len(config.views)))
        self.conditioner = Conditioner(config.conditioner, config.dit.width, encoder_of(config.conditioner.words))
        latent_dim = config.conditioner.latent_dim
        self.latent_encoder = (
            LatentActionEncoder(self.latent_shape, len(config.views), latent_dim) if latent_dim else None
        )
        if self.latent_encoder is not None and config.conditioner.action_dim:
            self.latent_encoder.requires_grad_(False)  # the controller replaces it
        self.dit: Backbone = self._network(source)

    def _network(self, source: Source | None) -> Backbone:
        config = self.config
        shape = {
            "num_views": len(config.views),
            "latent_shape": self.latent_shape,
            "state_dim": config.conditioner.state_dim * config.conditioner.chunk,
        }
        told = config.conditioner.injection
        if source is None:
            return VideoDiT(config.dit, **shape, num_condition_tokens=self.conditioner.num_tokens, injection=told)
        if told == "cross":
            raise ValueError("injection='cross': a pretrained transformer is told actions by token or adaln")
        seconds = config.conditioner.actions_told / config.fps
        return source.build(config.dit, size=config.size, codec=self.codec, seconds=seconds, **shape)

    views = property(lambda self: self.config.views)
    size = property(lambda self: self.config.size)
    fps = property(lambda self: self.config.fps)
    stride = property(lambda self: self.config.conditioner.stride)
    chunk = property(lambda self: self.config.conditioner.chunk)
    action_dim = property(lambda self: self.config.conditioner.action_dim)
    state_dim = property(lambda self: self.config.conditioner.state_dim)
    relative_to = property(lambda self: self.config.conditioner.relative_to)
    guidance = property(lambda self: self.config.guidance)

    def take_decoder(self, codec: LatentCodec) -> None:
        """Decode by a `SmallDecoderCodec` from now on."""
        self.codec, self.small_decoder = codec, True

    @property
    def describes(self) -> bool:
        """Whether latent actions, computed from the frames, replace actions that were not recorded."""
        return self.latent_encoder is not None and self.action_dim == 0

    @torch.no_grad()
    def latent_actions(self, frames: UInt8[Tensor, "b t v H W 3"]) -> Float[Tensor, "b t-1 l"]:
        """The most likely latent action between every two consecutive frames; needs a `latent_encoder`."""
        return self.latent_encoder(self.codec.encode(frames.to(self.device)))[0]

    def train(self, mode: bool = True) -> "WorldModel":
        """Switch between training and evaluation; drops the engine, see `worldmodel.streaming.engine.fingerprint`."""
        self._engine = None
        return super().train(mode)

    def __getstate__(self) -> dict:
        """Everything but the engine, whose packed weights cannot be copied; a copy builds its own engine."""
        return {**self.__dict__, "_engine": None}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.dit.device

    @property
    def knows_no_action(self) -> bool:
        """Whether it was ever trained without actions, so that it can continue with `None` as the action."""
        unlabelled = any(not noted.get("actions", True) or noted.get("action_dropout") for noted in self.train_data)
        return self.action_dim == 0 or self.latent_encoder is not None or unlabelled

    @property
    def allowed_steps(self) -> tuple[int, ...]:
        """Numbers of denoising steps: 1, 2, ... `config.max_steps`."""
        return tuple(2**i for i in range(self.config.max_steps.bit_length()))

    def check(self, clip: Clip) -> None:
        """Raise a `ValueError` with both values when `clip` does not fit this world model."""
        views, size = clip.frames.shape[-4], tuple(clip.frames.shape[-3:-1])
        if views != len(self.views):
            raise ValueError(f"clip has {views} views, the world model {self.views}")
        if size != tuple(self.size):
            raise ValueError(f"clip has frames of {size}, the world model {tuple(self.size)}")

    # Dreaming

    @torch.no_grad()
    def stream(self, context: Clip, *, seeds: Seeds = 0) -> Stream:
        """Begin `b` streams from a few real frames each.

        Args:
            context: Frames `b t v H W 3` with the `t - 1` actions between them, and states.
            seeds: Noise seeds, one for each stream; a whole number `s` gives stream `i` the seed
                `s + i`.

        Raises:
            ValueError: Context or seeds do not fit.
        """
        return Stream(self, begin(self, context, seeds))

    def rollout(self, context: Clip, actions: Float[Tensor, "b m a"], *, num_steps: int = 2, seeds: Seeds = 0) -> Clip:
        """Roll out `m` actions from `context`; return the `m` new frames and states.

        The returned clip has the `m - 1` actions between the new frames. Arguments as in `stream`
        and `Stream.step`.
        """
        seen = list(self.stream(context, seeds=seeds).roll(actions, num_steps=num_steps))
        return Clip(
            frames=torch.stack([observation.frames for observation in seen], dim=1),
            actions=actions.to(self.device)[:, 1:],
            states=torch.stack([observation.states for observation in seen], dim=1) if self.state_dim else None,
            view_mask=context.view_mask,
            pixel_mask=context.pixel_mask,
            task=context.task,
        )

    def engine(self) -> FoldedEngine | PlainEngine:
        """The engine that computes a step of a stream with the current weights; rebuilt when they have changed."""
        if not (self.fast and foldable(self.dit)):
            return PlainEngine(self.dit, 1 / self.config.max_steps)
        if self._engine is None or not self._engine.is_current:
            self._engine = FoldedEngine(self.dit)
        return self._engine

    def bound(self, latents: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Clamp pixel latents to [-1, 1]; an autoencoder's latents are returned unchanged."""
        return latents.clamp(-1, 1) if isinstance(self.codec, PixelCodec) else latents

    def predict(
        self, encoded: EncodedFrames, noisy: tuple[Tensor, ...], tau: Level, step_size: Level
    ) -> tuple[Tensor, ...]:
        """Predict the clean parts (latent, and state displacement when there is a state) of encoded frames.

        `tau` and `step_size` are `b t`, or one number for all frames.
        """
        latent, state = noisy if len(noisy) > 1 else (noisy[0], None)
        tau, step_size = (
            torch.full(latent.shape[:2], level, device=latent.device) if isinstance(level, float) else level
            for level in (tau, step_size)
        )
        clean = self.dit.decode(encoded, latent, state, tau, step_size)
        return tuple(part for part in clean if part is not None)

    # Files

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Beginnings of the names of the weights that are not in the folder of the world model."""
        return ("codec.", *(f"dit.{name}" for name in self.dit.borrowed))

    def save(
        self, folder: str | Path, *, dtype: torch.dtype | None = None, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write `world.json` and `weights.safetensors` atomically; `dtype` casts the weights.

        Of a pretrained transformer only what was trained is written, and its name. `state` is the state dictionary
        where this process has only a part of the weights.
        """
        state, elsewhere = self.state_dict() if state is None else state, self.elsewhere
        state = {k: v for k, v in state.items() if not k.startswith(elsewhere)}
        if dtype is not None:
            cast = {k: v.to(dtype) for k, v in state.items() if k.startswith("dit.")}
            state = {**state, **cast}
        kind = "pixels" if isinstance(self.codec, PixelCodec) else "codec"
        if isinstance(self.config.dit, PretrainedConfig) and not self.own_codec:
            kind = "backbone"
        if kind == "codec":
            self.codec.autoencoder.save_pretrained(Path(folder) / "codec")
        described = WorldDescription(self.config, kind, self.train_data)
        save_model(folder, "world.json", described, state)
        if self.small_decoder:
            self.codec.save(Path(folder))

    def push_to_hub(
        self, name: str, *, private: bool = True, facts: CardFacts | None = None, token: str | None = None
    ) -> str:
        """Upload the world model as `save` writes it to `USER/NAME` on the hub, with a card; see `worldmodel.push`."""
        return push_saved(self.save, name, private=private, facts=facts, token=token)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "WorldModel":
        """Load what `save` wrote, from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is no world model, or it is malformed; see `load_model`.
        """

        def build(said: WorldDescription, path: Path) -> WorldModel:
            codec = load_codec(path / "codec", said.config.conditioner.chunk) if said.codec == "codec" else None
            built = cls(said.config, codec)
            if has_small_decoder(path):
                built.take_decoder(with_small_decoder(built.codec, path))
            return built

        said, world = load_model(
            folder, "world.json", WorldDescription, build, apart_from=lambda built: built.elsewhere
        )
        world.train_data = said.train_data
        return world.to(device).eval()
