"""Keep the output of a command in a file, with the traceback of an error."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any


class Tee:
    """A text stream that also writes to a file; for anything else it is the stream itself."""

    def __init__(self, stream: Any, file: Any):
        self.stream, self.file = stream, file

    def write(self, text: str) -> int:
        """Write to both."""
        self.file.write(text)
        self.file.flush()
        return self.stream.write(text)

    def __getattr__(self, name: str) -> object:
        """Everything else is the stream's own."""
        return getattr(self.stream, name)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Keep a copy of what is printed inside in a file, which replaces an earlier one.

    An error is written there with its traceback before it goes on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            with redirect_stdout(Tee(sys.stdout, file)), redirect_stderr(Tee(sys.stderr, file)):
                yield
        except BaseException:
            traceback.print_exc(file=file)
            raise
