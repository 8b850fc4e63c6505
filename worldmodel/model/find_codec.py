"""Find the codec that a folder holds; diffusers, which is slow to import, is imported only then."""

from pathlib import Path

from worldmodel.model.codec import SMALL_DECODER, LatentCodec


def load_codec(folder: str | Path, chunk: int) -> LatentCodec:
    """The codec of a diffusers autoencoder in a folder, or at `hf://USER/NAME@REV`.

    Args:
        folder: Where it is.
        chunk: Frames per latent; with 1 every frame is coded by itself.

    Raises:
        ValueError: There is none, or it has not that many frames per latent.
    """
    if chunk == 1:
        from worldmodel.model.autoencoder import AutoencoderCodec as Kind
    else:
        from worldmodel.model.pretrained.video_codec import VideoCodec as Kind
    return Kind.from_pretrained(folder)


def has_small_decoder(folder: Path) -> bool:
    """Whether the folder of a world model holds a small decoder."""
    return (folder / SMALL_DECODER).is_file()


def with_small_decoder(codec: LatentCodec, folder: Path) -> LatentCodec:
    """The codec, with the small decoder in a folder in the place of its own.

    Raises:
        ValueError: The decoder is malformed, or was made for another codec.
    """
    from worldmodel.model.pretrained.small_decoder import SmallDecoderCodec, read_small_decoder

    return SmallDecoderCodec(codec, read_small_decoder(folder))
