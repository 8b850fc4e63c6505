"""Find, read and write model folders: local ones, those that ship with this package, and those on the hub.

A model folder holds a description (JSON, `world.json`, `policy.json`, ...) and
`weights.safetensors`. Nothing in it is ever unpickled.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from worldmodel.files import (
    PLACES,
    SHIPPED,
    fetch_from_hub,
    from_json,
    is_on_hub,
    is_unfinished,
    read_object,
    read_weights,
    remove_unfinished,
    shipped,
    write_json,
    write_weights,
)
from worldmodel.processes import launched_index, undisturbed

FORMAT = 1
"""Format number of the descriptions that this version writes; also the newest one that it reads."""
WEIGHTS = "weights.safetensors"

KINDS = {
    "world.json": "a world model",
    "policy.json": "a policy",
    "steered.json": "a steered policy, which has no weights of its own",
    "judge.json": "a judge",
    "matcher.json": "a cross-view matcher",
    "config.json": "inverse dynamics or an autoencoder",
}
"""Kinds of models by the file that describes them."""

Description = TypeVar("Description")
Model = TypeVar("Model", bound=nn.Module)


def find_folder(model: str | Path) -> Path:
    """The folder of a model: a local one, a shipped one, or `hf://USER/NAME@REV` downloaded from the hub.

    Raises:
        ValueError: There is no such folder (the message names similar ones), or it cannot be downloaded.
    """
    if is_on_hub(model):
        return fetch_from_hub(model, ["*.json", "*.safetensors"])
    folder = shipped(model)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{folder}: a file, expected a folder")
    raise ValueError(f"{model}: no such folder{_looked_in(folder)}")


def find_model(model: str | Path, description: str) -> Path:
    """The folder of a model that holds the file `description`; `model` is as in `find_folder`.

    Raises:
        ValueError: There is no such folder, or the file is not in it; the message lists the files that are.
    """
    folder = find_folder(model)
    if not (folder / description).is_file():
        names = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
        there = ", ".join([*names[:6], "..."] if len(names) > 6 else names) or "nothing"
        other = next((kind for file, kind in KINDS.items() if file in names and description in KINDS), None)
        said = f"this is {other}, not {KINDS[description]}: " if other else ""
        raise ValueError(f"{folder}: {said}{description} is missing, there is {there}")
    return folder


def find_optional(model: str | Path, description: str) -> Path | None:
    """The folder of an optional model; `None` where no folder holds the file `description`.

    Raises:
        ValueError: It is a model on the hub that cannot be downloaded.
    """
    folder = find_folder(model) if is_on_hub(model) else shipped(model)
    return folder if (folder / description).is_file() else None


def save_model(folder: str | Path, file: str, description: object, tensors: Mapping[str, Tensor]) -> None:
    """Write the two files of a model folder, each atomically; Ctrl-C waits until both are there.

    Args:
        folder: The folder to write; it is made if it does not exist.
        file: Name of the description.
        description: A dataclass with all that is needed to build the model.
        tensors: The weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with undisturbed():
        write_weights(folder / WEIGHTS, tensors)
        write_json(folder / file, {"format": FORMAT, **asdict(description)})


def fingerprint(model: str | Path) -> str:
    """Hash of the weights and the description of a model."""
    folder = find_folder(model)
    files = sorted(folder.glob("*.safetensors"))
    files += [f for n in ("world", "judge", "policy") for f in folder.glob(f"{n}.json")]
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]


def check_out(folder: Path, *files: str, overwrite: bool, resume: bool | None = None) -> None:
    """Raise a `ValueError` instead of writing into a folder that holds something, unless the user allows it.

    Empty folders count as nothing. Temporary files of killed processes are removed. Of several launched processes the
    first one checks, before it writes anything; the others may come later.

    Args:
        folder: The folder that a command is about to write to.
        files: Names of files in it that only an earlier run can have written, for the message.
        overwrite: Whether the user passed `--overwrite`.
        resume: Whether the user passed `--resume`; `None` for a command without this option.

    Raises:
        ValueError: The folder holds a file and the user passed neither option, or the user passed
            both; or it is a file.
    """
    if launched_index():
        return
    if overwrite and resume:
        raise ValueError(f"{folder}: --resume continues the run there, --overwrite begins anew; pass one of them")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, expected a folder")
    there = [folder / file for file in files if (folder / file).exists()]
    if overwrite or resume:
        remove_unfinished(folder)
        return
    ways = "" if resume is None else "pass --resume to continue that run, "
    if there:
        raise ValueError(f"{there[0]} exists already; {ways}pass --overwrite to begin anew, or choose another --out")
    found = first_file(folder)
    if found is not None:
        raise ValueError(
            f"{folder} is not empty, it holds {found.relative_to(folder)}; pass --overwrite to write beside it, "
            "or choose another --out"
        )


def first_file(folder: Path) -> Path | None:
    """A file anywhere below `folder`, or `None`; temporary files do not count."""
    return next((file for file in sorted(folder.rglob("*")) if not file.is_dir() and not is_unfinished(file)), None)


def check_file(file: Path | None, *, overwrite: bool) -> None:
    """Raise a `ValueError` for a file that exists, unless the user passed `--overwrite`.

    Raises:
        ValueError: It exists, or is a folder.
    """
    if file is not None and file.is_dir():
        raise ValueError(f"{file}: a folder, expected the name of a file")
    if file is not None and file.exists() and not overwrite:
        raise ValueError(f"{file} exists already; pass --overwrite to replace it, or choose another --out")


def load_model(
    model: str | Path,
    file: str,
    kind: type[Description],
    build: Callable[[Description, Path], Model],
    *,
    apart_from: Callable[[Model], tuple[str, ...]] = lambda built: (),
) -> tuple[Description, Model]:
    """Read what `save_model` wrote.

    Args:
        model: Folder, or `hf://USER/NAME@REV`.
        file: Name of the description.
        kind: Dataclass of the description.
        build: Makes the model from the description and the folder; its weights are then overwritten.
        apart_from: Beginnings of the names of weights that `build` reads from elsewhere.

    Raises:
        ValueError: The folder, the description or the weights are missing or belong to another kind
            of model; the message names the file, the field or tensor, and both values.
    """
    folder = find_model(model, file)
    described = read_description(folder / file, kind)
    built = build(described, folder)
    _fill(built, folder / WEIGHTS, apart_from(built))
    return described, built


def read_description(file: Path, kind: type[Description]) -> Description:
    """The description of a model.

    Raises:
        ValueError: It is malformed, or written by a newer version.
    """
    values = read_object(file)
    version = values.pop("format", None)
    if not isinstance(version, int):
        raise ValueError(f"{file}: format is {version!r}, expected a whole number up to {FORMAT}")
    if version > FORMAT:
        raise ValueError(f"{file}: format is {version}, this version reads up to {FORMAT}; install a newer worldmodel")
    return from_json(kind, values, str(file))


def _fill(model: nn.Module, file: Path, apart_from: tuple[str, ...]) -> None:
    """Overwrite the weights of `model` with those in `file`."""
    tensors = read_weights(file)
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(apart_from)}
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(f"{file}: weights missing {_few(missing)}, not expected {_few(unexpected)}")
    for name, tensor in tensors.items():
        found, wanted = tuple(tensor.shape), tuple(expected[name].shape)
        if found != wanted:
            raise ValueError(f"{file}: {name} is {found}, the model described beside it has {wanted}")
    model.load_state_dict(tensors, strict=False)


def _few(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _looked_in(path: Path) -> str:
    """Part of a message: where a folder was searched for, and folders there with similar names."""
    roots = [Path(path.root)] if path.is_absolute() else [Path()]
    if path.parts[:1] == (SHIPPED,):
        roots += [place for place in PLACES if (place / SHIPPED).is_dir()]
    where = "" if path.is_absolute() else f" in {' or '.join(str(root.absolute()) for root in roots)}"
    near = dict.fromkeys(str(each) for root in roots for each in _near(root, path))
    if near:
        return f"{where}; did you mean {' or '.join(near)}?"
    return f"{where}; a model on the hub is named hf://USER/NAME"


def _near(root: Path, path: Path) -> list[Path]:
    """Folders below `root` with names similar to the first part of `path` that does not exist."""
    known = Path(path.root)
    for part in path.parts[1:] if path.is_absolute() else path.parts:
        if (root / known / part).is_dir():
            known /= part
            continue
        names = [each.name for each in (root / known).iterdir() if each.is_dir()]
        return [known / name for name in difflib.get_close_matches(part, names, n=2)]
    return []
