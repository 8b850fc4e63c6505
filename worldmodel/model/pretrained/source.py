"""Find a pretrained video transformer in a diffusers pipeline, refuse those that cannot be a world, and build it."""

from hashlib import sha256
from pathlib import Path

import torch
from torch import nn

from worldmodel.files import fetch_from_hub, is_on_hub, read_object
from worldmodel.model.codec import LatentCodec, PixelCodec
from worldmodel.model.pretrained.adapters import WORLD, add_adapter, is_adapter
from worldmodel.model.pretrained.config import PretrainedConfig
from worldmodel.model.pretrained.dit import PretrainedDiT
from worldmodel.model.pretrained.family import Family
from worldmodel.model.precision import choose_device, compute_dtype
from worldmodel.resolve import resolve

FAMILIES = {
    "WanTransformer3DModel": "worldmodel.model.pretrained.wan:Wan",
    "CosmosTransformer3DModel": "worldmodel.model.pretrained.cosmos:Cosmos",
}
"""Families by the class that a transformer's `config.json` names."""
PARTS = ["model_index.json", "transformer/*", "vae/*"]
HASHED = 1 << 20
"""Bytes at either end of a file of weights that are hashed; whole files of 10 GB would take a minute."""


class Source:
    """A diffusers pipeline with a transformer of a known family.

    Args:
        config: Names the pipeline, `hf://USER/NAME@REV` or a folder. A pipeline on the hub is downloaded at first use.

    Attributes:
        folder: Where its files are.
        family: The class of its family.

    Raises:
        ValueError: It is missing, is gated, or cannot be a world model; the message is one line.
    """

    def __init__(self, config: PretrainedConfig):
        self.name = config.backbone
        self.folder = _find(config.backbone)
        file = self.folder / "transformer" / "config.json"
        if not file.is_file():
            raise ValueError(f"{self.name}: no diffusers pipeline, transformer/config.json is missing in {self.folder}")
        if (self.folder / "transformer_2").is_dir():
            raise ValueError(
                f"{self.name}: this pipeline has two transformers, one for high and one for low noise; a world model "
                "needs one with a single transformer, such as Wan2.2-TI2V-5B"
            )
        values = read_object(file)
        self.family = _family(config.family, values.get("_class_name"), file)
        self.family.check(values, str(file))

    @property
    def pinned(self) -> str:
        """The name with the revision that was downloaded; a local folder's as the user wrote it."""
        if not is_on_hub(self.name):
            return self.name
        return f"{self.name.partition('@')[0]}@{self.folder.name}"

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

    def codec(self) -> LatentCodec:
        """The pipeline's autoencoder; pixels where it has none."""
        if not (self.folder / "vae").is_dir():
            return PixelCodec()
        from worldmodel.model.autoencoder import AutoencoderCodec

        return AutoencoderCodec.from_pretrained(self.folder / "vae")

    def transformer(self, dtype: torch.dtype | None) -> Family:
        """Load the transformer; with `None` its weights are random.

        Raises:
            ValueError: There are no weights in safetensors files.
        """
        folder = self.folder / "transformer"
        if dtype is not None and not list(folder.glob("*.safetensors")):
            raise ValueError(f"{folder}: no weights in a safetensors file")
        return self.family.load(folder, dtype)


def build_pretrained(config: PretrainedConfig, source: Source, **shape: object) -> PretrainedDiT:
    """The transformer of `source` with its adapters, which compute nothing yet.

    A transformer that only has adapters trained is held in bf16 where the device computes in it. If all its weights
    are trained it is held in fp32, and without `config.fingerprint` as it was pretrained.

    Args:
        config: The settings.
        source: Where the transformer is.
        shape: The other arguments of `PretrainedDiT`.

    Raises:
        ValueError: The transformer is another one than the one that the adapters belong to.
    """
    found = source.fingerprint()
    if config.fingerprint not in ("", found):
        raise ValueError(
            f"{config.backbone}: the transformer has the fingerprint {found}, this world model was trained on "
            f"{config.fingerprint}; name that one as `backbone` in world.json"
        )
    dtype = compute_dtype(choose_device()) if config.lora_rank else torch.float32
    dit = PretrainedDiT(config, source.transformer(dtype), **shape)
    names: list[str] = []
    for name, rank in adapters_of(config).items():
        add_adapter(dit.transformer, dit.family.adapted, rank, name, others=names)
        names.append(name)
    for parameter in adapter_parameters(dit.transformer):
        parameter.requires_grad_(True)
    return dit


def adapters_of(config: PretrainedConfig) -> dict[str, int]:
    """Names and ranks of the adapters, in the order in which they were added."""
    first = {WORLD: config.lora_rank} if config.lora_rank else {}
    return first | {f"posttrained{index}": rank for index, rank in enumerate(config.posttrained)}


def adapter_parameters(transformer: nn.Module) -> list[nn.Parameter]:
    """The parameters of all adapters."""
    return [parameter for name, parameter in transformer.named_parameters() if is_adapter(name)]


def _find(backbone: str) -> Path:
    if is_on_hub(backbone):
        return _download(backbone)
    folder = Path(backbone).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{backbone}: no such folder; a backbone on the hub is named hf://USER/NAME")
    return folder


def _download(backbone: str) -> Path:
    print(f"{backbone}: looking for it on the hub; what is not downloaded yet is, 3 to 60 GB", flush=True)
    try:
        return fetch_from_hub(backbone, PARTS)
    except ValueError as error:
        gated = any(sign in str(error) for sign in ("401", "403", "gated", "restricted"))
        hint = "; accept its licence on its page, and log in with `hf auth login`" if gated else ""
        raise ValueError(f"{error}{hint}") from error


def _family(spec: str, named: object, file: Path) -> type:
    if spec == "auto":
        if named not in FAMILIES:
            raise ValueError(
                f"{file}: _class_name is {named!r}, expected one of {list(FAMILIES)}; --family module:Class adds yours"
            )
        spec = FAMILIES[named]
    return resolve(spec, "family")
