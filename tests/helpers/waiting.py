"""Wait for something, patiently: machines have other work to do."""

import time
from collections.abc import Callable


def wait_until(happened: Callable[[], object], what: str = "it", seconds: float = 300) -> None:
    """Wait until `happened()` is true; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)
