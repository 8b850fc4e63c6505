"""Latents of four frames each, from a frozen Wan autoencoder that codes a video chunk by chunk."""

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodel.model.autoencoder import AutoencoderCodec
from worldmodel.model.codec import Features, to_frames, to_signed


class VideoCodec(AutoencoderCodec):
    """A frozen Wan autoencoder that codes videos: the first frame as one latent, then four frames as one latent each.

    `encode_clip` and `decode_clip` code whole clips. `encode_next` and `decode_next` code one latent of a video and
    give the same numbers, bit for bit; what they have to remember is in `Features`. The object itself remembers
    nothing, so it can serve any number of videos. `encode` and `decode` code single frames, as in `AutoencoderCodec`.

    Args:
        autoencoder: The autoencoder, of Wan 2.1 or Wan 2.2.
        chunk: Frames coded at once, to limit memory; at least four of every video.

    Raises:
        ValueError: It is not an `AutoencoderKLWan`, or does not code four frames as one latent.
    """

    frames_per_latent = 4

    def __init__(self, autoencoder: nn.Module, chunk: int = 64):
        if not isinstance(autoencoder, AutoencoderKLWan):
            name = type(autoencoder).__name__
            raise ValueError(f"codec: {name} codes single frames only, chunks of frames need an AutoencoderKLWan")
        frames = 2 ** sum(autoencoder.config.temperal_downsample)
        if frames != self.frames_per_latent:
            raise ValueError(f"codec: it codes {frames} frames as one latent, expected {self.frames_per_latent}")
        super().__init__(autoencoder, chunk)
        self.upsamplers = _time_upsamplers(autoencoder.decoder)

    def encode_clip(self, frames: UInt8[Tensor, "b t v H W 3"]) -> Float[Tensor, "b l v c h w"]:
        """Encode whole clips of `t = 1 + 4 (l - 1)` frames.

        Raises:
            ValueError: `t` is another number.
        """
        if frames.shape[1] % self.frames_per_latent != 1:
            raise ValueError(f"clips of {frames.shape[1]} frames, expected 1, 5, 9, ...: one, then chunks of four")
        return torch.cat([self._encode_clip(part) for part in frames.split(self._clips(frames))])

    def decode_clip(self, latents: Float[Tensor, "b l v c h w"]) -> UInt8[Tensor, "b t v H W 3"]:
        """Decode whole clips to `t = 1 + 4 (l - 1)` frames."""
        return torch.cat([self._decode_clip(part) for part in latents.split(self._clips(latents))])

    @torch.no_grad()
    def encode_next(
        self, frames: UInt8[Tensor, "b m v H W 3"], features: Features | None
    ) -> tuple[Float[Tensor, "b v c h w"], Features]:
        """Encode the next frames of every video, and what to remember of them.

        Args:
            frames: The first frame of every video, later four frames.
            features: What was remembered, `None` at the first frame.
        """
        expected = 1 if features is None else self.frames_per_latent
        if frames.shape[1] != expected:
            raise ValueError(f"got {frames.shape[1]} frames, expected {expected}: one, then chunks of four")
        vae = self.autoencoder
        pixels = rearrange(to_signed(frames), "b m v c h w -> (b v) c m h w").to(vae.dtype)
        maps = self._recall(features, "encoder")
        coded = vae.encoder(self._fold(pixels), feat_cache=maps, feat_idx=[0])
        latents = vae.quant_conv(coded).chunk(2, dim=1)[0][:, :, 0].float()
        latents = rearrange((latents - self.shift) * self.scale, "(b v) c h w -> b v c h w", b=len(frames))
        return latents, self._remember(maps, len(frames), ())

    def decode_next(
        self, latents: Float[Tensor, "b v c h w"], features: Features | None
    ) -> tuple[UInt8[Tensor, "b m v H W 3"], Features]:
        """Decode the next latent of every video, and what to remember of it.

        Args:
            latents: The first latent of every video, which is one frame, later one that is four frames.
            features: What was remembered, `None` at the first latent.
        """
        pixels, features = self.decode_pixels(latents, features)
        return to_frames(pixels), features

    @torch.no_grad()
    def decode_pixels(
        self, latents: Float[Tensor, "b v c h w"], features: Features | None
    ) -> tuple[Float[Tensor, "b m v 3 H W"], Features]:
        """As `decode_next`, but pixels before they are rounded and limited to [-1, 1]."""
        vae, first = self.autoencoder, features is None
        flat = rearrange(latents / self.scale + self.shift, "b v c h w -> (b v) c 1 h w").to(vae.dtype)
        maps = self._recall(features, "decoder")
        pixels = vae.decoder(vae.post_quant_conv(flat), feat_cache=maps, feat_idx=[0], first_chunk=first)
        if vae.config.patch_size is not None:
            pixels = unpatchify(pixels, vae.config.patch_size)
        pixels = rearrange(pixels, "(b v) c m h w -> b m v c h w", b=len(latents))
        rows, columns = flat.shape[-2:]
        empty = [flat.new_zeros(len(flat), c, 2, s * rows, s * columns) for c, s in self.upsamplers if first]
        return pixels, self._remember(maps, len(latents), tuple(empty))

    def _encode_clip(self, frames: Tensor) -> Tensor:
        features, latents = None, []
        for part in (frames[:, :1], *frames[:, 1:].split(self.frames_per_latent, dim=1)):
            if part.shape[1]:
                latent, features = self.encode_next(part, features)
                latents.append(latent)
        return torch.stack(latents, dim=1)

    def _decode_clip(self, latents: Tensor) -> Tensor:
        features, frames = None, []
        for latent in latents.unbind(1):
            part, features = self.decode_next(latent, features)
            frames.append(part)
        return torch.cat(frames, dim=1)

    def _clips(self, batch: Tensor) -> int:
        """Clips coded at once; a latent of each is `frames_per_latent` frames of `v` views."""
        return max(1, self.chunk // (self.frames_per_latent * batch.shape[2]))

    def _fold(self, pixels: Tensor) -> Tensor:
        """Wan 2.2 folds patches of pixels into channels first."""
        patch = self.autoencoder.config.patch_size
        return pixels if patch is None else patchify(pixels, patch)

    def _recall(self, features: Features | None, part: str) -> list[Tensor | str | None]:
        """The list that diffusers reads and writes: one place for each convolution, the last ones unused."""
        places = self.autoencoder._cached_conv_counts[part]
        maps = [] if features is None else [rearrange(x, "b v ... -> (b v) ...") for x in features.maps]
        return maps + [None] * (places - len(maps))

    def _remember(self, maps: list[Tensor | str | None], videos: int, empty: tuple[Tensor, ...]) -> Features:
        """Bring what diffusers wrote to one shape: after the first latent it has single frames, and text for zeros."""
        zeros = iter(empty)
        filled = [next(zeros) if isinstance(x, str) else x for x in maps if x is not None]
        pairs = [torch.cat([torch.zeros_like(x), x], dim=2) if x.shape[2] == 1 else x for x in filled]
        return Features(tuple(rearrange(x, "(b v) ... -> b v ...", b=videos) for x in pairs))


def _time_upsamplers(decoder: nn.Module) -> list[tuple[int, int]]:
    """Channels of the input of each layer that doubles the frames, and its pixels along one pixel of a latent."""
    found, scale = [], 1
    for module in decoder.modules():
        if isinstance(module, WanResample):
            if module.mode == "upsample3d":
                found.append((module.dim, scale))
            scale *= 2
    return found
