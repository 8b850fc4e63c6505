"""Writing files so that a reader sees either the old or the new one, whole."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_atomically(file: Path, write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path beside `file`, then move it into place."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(file: Path, value: object) -> None:
    """Write indented JSON; NaN is an error."""
    text = json.dumps(value, indent=2, allow_nan=False)
    write_atomically(file, lambda path: path.write_text(text + "\n"))


def write_weights(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(file, lambda path: save_file(contiguous, path))
