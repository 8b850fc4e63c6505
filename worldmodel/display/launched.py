"""Commands in several processes, as `accelerate launch` starts them: only the first one speaks."""

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from worldmodel.processes import Interrupted, launched_index

GRACE = 5.0
"""Seconds that another process waits before it tells of a mistake. Usually the first process tells of the same one,
and the launcher then ends the others."""


def check_launched(name: str, several: Sequence[str]) -> None:
    """Raise a `ValueError` where several processes were launched for a command that is not one of `several`."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number > 1 and name not in several:
        raise ValueError(f"runs in 1 process, {number} were launched; {', '.join(several)} run in several")


@contextmanager
def first_speaks() -> Iterator[None]:
    """In every launched process but the first: print nothing, warn of nothing, and leave mistakes to the first.

    If a run was asked to stop, the others end with status 0, so that the launcher does not end the first one while it
    is still writing.
    """
    if launched_index() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try:
                yield
            except (ValueError, OSError):
                time.sleep(GRACE)
                raise
        except KeyboardInterrupt as error:
            os._exit(0 if isinstance(error, Interrupted) else 130)
