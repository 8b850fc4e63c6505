"""A small decoder in the place of that of an autoencoder: the latents stay the same, pictures cost a fraction."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.vae import DecoderTiny
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.files import from_json, read_object, read_weights, write_json, write_weights
from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.model.codec import SMALL_DECODER, to_frames
from worldmodel.model.precision import autocast

WEIGHTS = "decoder.safetensors"


@dataclass(frozen=True)
class SmallDecoderConfig:
    """The shape of a small decoder."""

    channels: int
    """Channels of a latent."""
    downsampling: int
    """Pixels along one side of a latent's pixel; a power of two."""
    width: int = 64
    """Channels of all layers."""
    blocks: int = 3
    """Residual blocks at each size but the last, which has one."""


class SmallDecoder(nn.Module):
    """Residual blocks of convolutions at every size, as in the autoencoder TAESD; `DecoderTiny` of diffusers."""

    def __init__(self, config: SmallDecoderConfig):
        super().__init__()
        self.config = config
        sizes = config.downsampling.bit_length()
        self.layers = DecoderTiny(
            in_channels=config.channels,
            out_channels=3,
            num_blocks=(config.blocks,) * (sizes - 1) + (1,),
            block_out_channels=(config.width,) * sizes,
            upsampling_scaling_factor=2,
            act_fn="relu",
            upsample_fn="nearest",
        )

    def forward(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 H W"]:
        """Pixels of latents that have about unit variance, not limited to [-1, 1]."""
        return self.layers(latents)


class SmallDecoderCodec(nn.Module):
    """The encoder of an autoencoder, and a small decoder; codes every frame by itself.

    Args:
        codec: The autoencoder.
        decoder: Trained on its latents.

    Raises:
        ValueError: The decoder was made for other latents, or a latent is several frames.
    """

    frames_per_latent = 1

    def __init__(self, codec: AutoencoderCodec, decoder: SmallDecoder):
        super().__init__()
        wanted, found = (codec.channels, codec.downsampling), (decoder.config.channels, decoder.config.downsampling)
        if codec.frames_per_latent > 1 or wanted != found:
            raise ValueError(
                f"the small decoder reads latents of {found[0]} channels, {found[1]} pixels and 1 frame; those of the "
                f"autoencoder have {wanted[0]} channels, {wanted[1]} pixels and {codec.frames_per_latent} frames"
            )
        self.codec, self.decoder = codec, decoder.eval().requires_grad_(False)
        self.autoencoder, self.channels, self.downsampling = codec.autoencoder, codec.channels, codec.downsampling

    def encode(self, frames: UInt8[Tensor, "*b H W 3"]) -> Float[Tensor, "*b c h w"]:
        """Encode by the autoencoder."""
        return self.codec.encode(frames)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b H W 3"]:
        """Decode by the small decoder and clamp."""
        flat = latents.reshape(-1, *latents.shape[-3:])
        with autocast(latents.device):
            frames = to_frames(torch.cat([self.decoder(part) for part in flat.split(self.codec.chunk)]))
        return frames.reshape(*latents.shape[:-3], *frames.shape[1:])

    def save(self, folder: Path) -> None:
        """Write the decoder beside a world model."""
        write_weights(folder / WEIGHTS, dict(self.decoder.state_dict()))
        write_json(folder / SMALL_DECODER, asdict(self.decoder.config))


def read_small_decoder(folder: Path) -> SmallDecoder:
    """The decoder that `SmallDecoderCodec.save` wrote.

    Raises:
        ValueError: It is malformed.
    """
    decoder = SmallDecoder(
        from_json(SmallDecoderConfig, read_object(folder / SMALL_DECODER), str(folder / SMALL_DECODER))
    )
    found, wanted = read_weights(folder / WEIGHTS), decoder.state_dict()
    if {name: each.shape for name, each in found.items()} != {name: each.shape for name, each in wanted.items()}:
        raise ValueError(f"{folder / WEIGHTS}: not the weights of the decoder that {SMALL_DECODER} describes")
    decoder.load_state_dict(found)
    return decoder
