"""One training in a folder at a time: two that write the same files would leave a mixture of both."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from worldmodel.processes import launched_index

Given = ParamSpec("Given")
Result = TypeVar("Result")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; it is made, and removed again if nothing was written.

    The folder itself is locked (flock), so no file is written, and a process that is killed leaves nothing behind.
    File systems that lock no folders, such as some on a network, keep nobody out. Of several launched processes the
    first one takes the lock.

    Raises:
        ValueError: Another process, or another call of this one, is in there; or it is a file.
    """
    if launched_index():
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, expected a folder")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        _lock(held, folder)
        try:
            yield
        finally:
            with suppress(OSError):
                for each in made:
                    each.rmdir()
    finally:
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_UN)  # a child that was forked meanwhile would hold it, too
        os.close(held)


def alone_in_out(train: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function whose first argument has a field `out`, the folder that it writes to; see `alone_in`."""

    @wraps(train)
    def alone(*args: Given.args, **more: Given.kwargs) -> Result:
        config = args[0] if args else more["config"]
        with alone_in(config.out):
            return train(*args, **more)

    return alone


def _lock(held: int, folder: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder}: another run is writing there; wait for its end, or choose another --out") from None
    except OSError:
        return
