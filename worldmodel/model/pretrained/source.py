"""Find a pretrained video transformer in a diffusers pipeline, refuse those that cannot be a world, and build it.

The modules of diffusers are imported only where one is built, because that is slow.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from worldmodel.files import fetch_from_hub, is_on_hub, read_object, shipped
from worldmodel.model.codec import LatentCodec, PixelCodec
from worldmodel.model.find_codec import load_codec
from worldmodel.model.precision import choose_device, compute_dtype
from worldmodel.model.pretrained.adapters import adapters_of, add_adapters, is_adapter
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.resolve import resolve

if TYPE_CHECKING:
    from worldmodel.model.pretrained.family import Family

FAMILIES = {
    "WanTransformer3DModel": "worldmodel.model.pretrained.wan:Wan",
    "CosmosTransformer3DModel": "worldmodel.model.pretrained.cosmos:Cosmos",
}
"""Families by the class that a transformer's `config.json` names."""
PARTS = ["model_index.json", *(f"{part}/*.{end}" for part in ("transformer", "vae") for end in ("json", "safetensors"))]
HASHED = 1 << 20
"""Bytes at either end of a file of weights that are hashed; whole files of 10 GB would take a minute."""


class Source:
    """A diffusers pipeline with a transformer of a known family.

    Args:
        name: The pipeline, `hf://USER/NAME@REV` or a folder.
        folder: Where its files are.
        family: The class of its family, or `auto`, see `PretrainedConfig`.

    Raises:
        ValueError: The pipeline cannot be a world model; the message is one line.
    """

    def __init__(self, name: str, folder: Path, family: str):
        self.name, self.folder = name, folder
        file = folder / "transformer" / "config.json"
        if not file.is_file():
            raise ValueError(f"{name}: no diffusers pipeline, transformer/config.json is missing in {folder}")
        if (folder / "transformer_2").is_dir() or _second(folder / "model_index.json"):
            raise ValueError(
                f"{name}: this pipeline has two transformers, one for high and one for low noise; a world model "
                "needs one with a single transformer, such as Wan2.2-TI2V-5B"
            )
        values = read_object(file)
        self.family = _family(family, values.get("_class_name"), file)
        self.family.check(values, str(file))
        self.patch = self.family.patch_of(values)

    @property
    def pinned(self) -> str:
        """The name with the revision that was downloaded; a local folder's as the user wrote it."""
        if not is_on_hub(self.name):
            return self.name
        return f"{self.name.partition('@')[0]}@{self.folder.name}"

    @property
    def has_codec(self) -> bool:
        """Whether the pipeline has an autoencoder; otherwise the transformer works on pixels."""
        return (self.folder / "vae").is_dir()

    def multiple(self) -> int:
        """Height and width of the frames are multiples of it, with the pipeline's own codec."""
        if not self.has_codec:
            return self.patch
        from worldmodel.model.autoencoder import downsampling_of

        return self.patch * downsampling_of(read_object(self.folder / "vae" / "config.json"))

    def fingerprint(self) -> str:
        """Hash of the transformer's configuration, and of size, beginning and end of its files of weights."""
        found = sha256((self.folder / "transformer" / "config.json").read_bytes())
        for file in sorted((self.folder / "transformer").glob("*.safetensors")):
            size = file.stat().st_size
            found.update(f"{file.name} {size}".encode())
            with file.open("rb") as stream:
                found.update(stream.read(HASHED))
                stream.seek(max(size - HASHED, 0))
                found.update(stream.read(HASHED))
        return found.hexdigest()[:16]

    def codec(self, chunk: int = 1) -> LatentCodec:
        """The pipeline's autoencoder, with `chunk` frames per latent; pixels where it has none."""
        return load_codec(self.folder / "vae", chunk) if self.has_codec else PixelCodec()

    def transformer(self, dtype: torch.dtype) -> "Family":
        """Load the transformer.

        Raises:
            ValueError: There are no weights in safetensors files.
        """
        folder = self.folder / "transformer"
        if not list(folder.glob("*.safetensors")):
            raise ValueError(f"{folder}: no weights in a safetensors file")
        return self.family.load(folder, dtype)

    def build(
        self, config: PretrainedConfig, *, size: tuple[int, int], codec: LatentCodec, seconds: float, **shape: Any
    ) -> PretrainedDiT:
        """The transformer with its adapters, which compute nothing yet.

        A transformer of which only adapters are trained is held in bf16 where the device computes in it. If
        all its weights are trained it is held in fp32.

        Args:
            config: The settings.
            size: Height and width of the frames.
            codec: Frames to latents.
            seconds: Between two frames.
            shape: `num_views`, `latent_shape` and `state_dim` of `PretrainedDiT`.

        Raises:
            ValueError: The size does not fit, or the adapters belong to another transformer.
        """
        check_size(self.name, size, self.patch * codec.downsampling)
        found = self.fingerprint()
        if config.fingerprint not in ("", found):
            raise ValueError(
                f"{self.name}: the transformer has the fingerprint {found}, this world model was trained on "
                f"{config.fingerprint}; name that one as `backbone` in world.json"
            )
        family = self.transformer(compute_dtype(choose_device()) if config.lora_rank else torch.float32)
        rate = config.position_rate or family.position_rate
        dit = PretrainedDiT(config, family, **shape, spacing=rate * seconds)
        add_adapters(dit.transformer, family.adapted, adapters_of(config))
        for name, parameter in dit.transformer.named_parameters():
            parameter.requires_grad_(is_adapter(name) or not config.lora_rank)
        return dit


def open_source(config: PretrainedConfig) -> Source:
    """Find the pipeline that `config` names: a folder, one that ships with this package, or one on the hub.

    The last is downloaded at first use.

    Raises:
        ValueError: It is missing or gated, or cannot be a world model; the message is one line.
    """
    if is_on_hub(config.backbone):
        return Source(config.backbone, _download(config.backbone), config.family)
    folder = shipped(Path(config.backbone).expanduser())
    if not folder.is_dir():
        raise ValueError(
            f"backbone {config.backbone}: no such folder; if it has moved, write its new place into the field "
            "`backbone` of world.json; one on the hub is named hf://USER/NAME"
        )
    return Source(config.backbone, folder, config.family)


def check_size(name: str, size: tuple[int, int], multiple: int) -> None:
    """Raise a `ValueError` that names the nearest size, where height and width are not multiples of `multiple`."""
    if size[0] % multiple or size[1] % multiple:
        near = [max(round(side / multiple), 1) * multiple for side in size]
        raise ValueError(
            f"size {size[0]}x{size[1]}: frames for {name} are multiples of {multiple}; the nearest is "
            f"--size {near[0]} {near[1]}"
        )


def _second(index: Path) -> bool:
    """Whether a pipeline names a second transformer."""
    if not index.is_file():
        return False
    parts: Mapping[str, Any] = read_object(index)
    return any(parts.get("transformer_2") or ())


def _download(backbone: str) -> Path:
    print(f"{backbone}: what is not downloaded yet is fetched from the hub, 3 to 60 GB", flush=True)
    try:
        return fetch_from_hub(backbone, PARTS)
    except ValueError as error:
        gated = any(sign in str(error) for sign in ("401", "403", "gated", "restricted"))
        hint = "; if it is gated, accept its licence on its page and log in with `hf auth login`" if gated else ""
        raise ValueError(f"{error}{hint}") from error


def _family(spec: str, named: object, file: Path) -> "type[Family]":
    if spec == "auto":
        if named not in FAMILIES:
            raise ValueError(
                f"{file}: _class_name is {named!r}, expected one of {list(FAMILIES)}; --family module:Class adds yours"
            )
        spec = FAMILIES[named]
    return resolve(spec, "family")
