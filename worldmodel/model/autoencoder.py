"""Latents from a frozen diffusers autoencoder; not in `codec`, because diffusers is slow to import."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, AutoencoderTiny
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.files import read_object, read_weights
from worldmodel.model.codec import to_frames, to_signed
from worldmodel.model.folder import find_model

AUTOENCODERS = {kind.__name__: kind for kind in (AutoencoderTiny, AutoencoderKL, AutoencoderKLWan)}


def downsampling_of(config: Mapping[str, Any]) -> int:
    """Pixels along one side of a latent, of the autoencoder with this `config.json`."""
    blocks = next(config[n] for n in ("dim_mult", "encoder_block_out_channels", "block_out_channels") if n in config)
    return 2 ** (len(blocks) - 1) * (config.get("patch_size") or 1)


class AutoencoderCodec(nn.Module):
    """A frozen diffusers autoencoder that codes every frame by itself.

    The causal video autoencoder `AutoencoderKLWan` codes the first frame of a video by itself; here
    every frame is coded as a first frame, so that one action still yields one frame.

    Args:
        autoencoder: `AutoencoderTiny`, `AutoencoderKL` or `AutoencoderKLWan`.
        chunk: Frames coded at once, to limit memory.
    """

    def __init__(self, autoencoder: AutoencoderTiny | AutoencoderKL | AutoencoderKLWan, chunk: int = 64):
        super().__init__()
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.chunk = chunk
        self.video = isinstance(autoencoder, AutoencoderKLWan)
        self.tiny = isinstance(autoencoder, AutoencoderTiny)
        config = autoencoder.config
        self.downsampling = downsampling_of(config)
        if self.video:
            self.channels = config.z_dim
            shift, scale = torch.tensor(config.latents_mean), 1 / torch.tensor(config.latents_std)
        else:
            self.channels = config.latent_channels
            shift = torch.tensor(config.shift_factor or 0.0)
            scale = torch.tensor(config.scaling_factor)
        self.register_buffer("shift", shift.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("scale", scale.reshape(-1, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "AutoencoderCodec":
        """Load a diffusers autoencoder from a folder or `hf://USER/NAME@REV`.

        Raises:
            ValueError: There is none, its `_class_name` is not in `AUTOENCODERS`, or its weights
                are not in a safetensors file.
        """
        folder = find_model(folder, "config.json")
        name = read_object(folder / "config.json").get("_class_name")
        if name not in AUTOENCODERS:
            raise ValueError(f"{folder}: _class_name is {name!r}, expected one of {list(AUTOENCODERS)}")
        for file in sorted(folder.glob("*.safetensors")):
            read_weights(file)  # names a damaged file, which diffusers does not
        try:
            return cls(AUTOENCODERS[name].from_pretrained(str(folder), use_safetensors=True, local_files_only=True))
        except OSError as error:
            raise ValueError(f"{folder}: no weights in a safetensors file") from error

    @torch.no_grad()
    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b c h w"]:
        """Encode; the mode of the posterior where the autoencoder has one."""
        flat = to_signed(frames.reshape(-1, *frames.shape[-3:])).to(self.autoencoder.dtype)
        latents = torch.cat([self._encode(part).float() for part in flat.split(self.chunk)])
        latents = (latents - self.shift) * self.scale
        return latents.reshape(*frames.shape[:-3], *latents.shape[1:])

    def _encode(self, pixels: Tensor) -> Tensor:
        if self.video:
            return self.autoencoder.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0]
        encoded = self.autoencoder.encode(pixels)
        return encoded.latents if self.tiny else encoded.latent_dist.mode()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b H W 3"]:
        """Decode and clamp."""
        flat = latents.reshape(-1, *latents.shape[-3:])
        flat = (flat / self.scale + self.shift).to(self.autoencoder.dtype)
        frames = to_frames(torch.cat([self._decode(part) for part in flat.split(self.chunk)]))
        return frames.reshape(*latents.shape[:-3], *frames.shape[1:])

    def _decode(self, latents: Tensor) -> Tensor:
        if self.video:
            return self.autoencoder.decode(latents[:, :, None]).sample[:, :, 0]
        return self.autoencoder.decode(latents).sample
