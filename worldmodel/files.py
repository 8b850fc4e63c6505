"""Write files so that a reader sees either the whole old file or the whole new one; read JSON into dataclasses."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

T = TypeVar("T")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
FULL = re.compile("No space left|StorageFull|File too large|FileTooLarge|quota", re.IGNORECASE)
UNFINISHED = re.compile(r"\..+\.(?P<process>\d+)\.\w+\.part(\.\w+)?")
"""Names of the files that `write_atomically` has not finished."""
HUB = re.compile(r"hf:/{1,2}(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")  # a Path has one slash

SHIPPED = "checkpoints"
"""First part of the names of models that ship with this package."""
PLACES = (Path(__file__).parents[0], Path(__file__).parents[1])
"""Where the folder `SHIPPED` is: inside an installed package, or beside the package in a checkout."""


def default_cache_folder() -> Path:
    """`$WORLDMODEL_CACHE`, or `~/.cache/worldmodel`."""
    return Path(os.environ.get("WORLDMODEL_CACHE", Path.home() / ".cache" / "worldmodel"))


def shipped(path: str | Path) -> Path:
    """The path itself; if it does not exist and begins with `checkpoints`, it is searched for beside this package."""
    path = Path(path)
    if path.exists() or path.parts[:1] != (SHIPPED,):
        return path
    return next((place / path for place in PLACES if (place / path).exists()), path)


def is_shipped(path: str | Path) -> bool:
    """Whether a name begins with `checkpoints` and is found beside this package, wherever it is installed."""
    return Path(path).parts[:1] == (SHIPPED,) and any((place / path).exists() for place in PLACES)


def is_on_hub(name: str | Path) -> bool:
    """Whether a user means `hf://...`, something on the hub."""
    return str(name).startswith("hf:/")


def fetch_from_hub(
    name: str | Path, patterns: list[str] | None = None, *, kind: str = "model", offline: bool = False
) -> Path:
    """Download `hf://USER/NAME@REV`, and return its folder; without a network an earlier download is used.

    Args:
        name: `hf://USER/NAME`, with `@REV` for a branch, tag or commit.
        patterns: Which files; all by default.
        kind: `model` or `dataset`.
        offline: Whether only an earlier download will do.

    Raises:
        ValueError: The name has another form, or the files are neither on the hub nor downloaded.
    """
    from huggingface_hub import snapshot_download

    parts = HUB.fullmatch(str(name))
    if parts is None:
        raise ValueError(f"{name}: expected hf://USER/NAME or hf://USER/NAME@REVISION")
    wanted = {"revision": parts["revision"], "allow_patterns": patterns, "repo_type": kind}
    try:
        return Path(snapshot_download(parts["name"], local_files_only=offline, **wanted))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{name}: cannot be fetched from the hub: {reason}") from error


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Add the name of `file` to errors of the operating system inside the context, such as a full disk."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `file`, then move it into place.

    The temporary name has the same suffix. An error leaves the old file, and no temporary one.

    Raises:
        OSError: The file cannot be written; the error names `file`.
    """
    with naming(file):
        prefix, suffix = f".{file.stem}.{os.getpid()}.", f".part{file.suffix}"
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=prefix, suffix=suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o644)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)


def is_unfinished(file: Path) -> bool:
    """Whether this is a temporary file of `write_atomically`, perhaps of a process that was killed."""
    return UNFINISHED.fullmatch(file.name) is not None


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes left anywhere below `folder`."""
    for file in folder.rglob(".*.part*"):
        found = UNFINISHED.fullmatch(file.name)
        if found and not _runs(int(found["process"])):
            file.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def write_text(file: Path, text: str) -> None:
    """Write a text file."""
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def write_json(file: Path, value: object) -> None:
    """Write indented JSON; NaN is an error."""
    write_text(file, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_weights(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file.

    Raises:
        OSError: The file cannot be written; the error names it.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(path: Path) -> None:
        try:
            save_file(contiguous, path)
        except SafetensorError as error:  # its errors of the operating system have no number
            number = errno.ENOSPC if FULL.search(str(error)) else errno.EIO
            raise OSError(number, os.strerror(number)) from error

    write_atomically(file, write)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ValueError: The file is missing, empty, cut off, a Git LFS pointer, or something else; the message names it.
    """
    check_whole(file)
    try:
        return load_file(file)
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        size = file.stat().st_size
        raise ValueError(f"{file}: not a safetensors file: {reason}; it has {size} bytes, perhaps a part") from error


def check_whole(file: Path) -> None:
    """Check that a file is there and holds something of its own.

    Raises:
        ValueError: The file is missing, empty, or a Git LFS pointer.
    """
    if not file.is_file():
        raise ValueError(f"{file}: {'a folder, expected a file' if file.is_dir() else 'missing'}")
    with file.open("rb") as stream:
        first = stream.read(len(LFS_POINTER))
    if not first:
        raise ValueError(f"{file}: empty")
    if first == LFS_POINTER:
        raise ValueError(f"{file}: a Git LFS pointer in place of the file; run git lfs pull")


def read_object(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ValueError: The file is missing, empty, cut off, a Git LFS pointer, not JSON, or holds something other than an
            object.
    """
    check_whole(file)
    try:
        values = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file}: holds {_shown(values)}, expected an object")
    return values


def from_json(kind: type[T], values: object, where: str) -> T:
    """Build a dataclass from the JSON of its `asdict`; lists become tuples and keys integers again.

    Args:
        kind: The dataclass; its fields are numbers, strings, booleans, `Literal`, tuples, lists,
            mappings, dataclasses, one of these or `None`, or one of several dataclasses, told apart by
            their field `kind`.
        values: The parsed JSON.
        where: The file and the field, for messages.

    Raises:
        ValueError: A field is unknown, missing or of another type; the message names it and the value found.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {_shown(values)}, expected an object")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}, known are {', '.join(hints)}")
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(f"{where}: the field {missing[0]!r} is missing")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _value(hint: Any, value: object, where: str) -> Any:
    """One value of the type `hint`."""
    origin, parts = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return from_json(hint, value, where)
    if parts and all(is_dataclass(part) for part in parts):
        return from_json(_kind_of(parts, value), value, where)
    if NoneType in parts:
        return None if value is None else _value(parts[0], value, where)
    if origin is Literal and value in parts:
        return value
    if origin in (tuple, list) and isinstance(value, list):
        kinds = parts if origin is tuple and ... not in parts else parts[:1] * len(value)
        if len(kinds) == len(value):
            items = [_value(kinds[i], each, f"{where}[{i}]") for i, each in enumerate(value)]
            return tuple(items) if origin is tuple else items
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        return {_key(parts[0], key, where): _value(parts[1], each, f"{where}.{key}") for key, each in value.items()}
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = hint.__name__ if isinstance(hint, type) and origin is None else str(hint).replace("typing.", "")
    raise ValueError(f"{where} is {_shown(value)}, expected {name}")


def _kind_of(kinds: Sequence[type], value: object) -> type:
    """The dataclass whose field `kind` has the default that JSON says; the first one where it says none."""
    said = value.get("kind") if isinstance(value, Mapping) else None
    named = {field.default: kind for kind in kinds for field in fields(kind) if field.name == "kind"}
    return named.get(said, kinds[0])


def _key(kind: type, key: str, where: str) -> Any:
    """The key of a mapping, which JSON turned into a string."""
    try:
        return kind(key)
    except ValueError as error:
        raise ValueError(f"{where} has the key {key!r}, expected {kind.__name__}") from error


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
