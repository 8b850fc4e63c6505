"""A process that has imported what the packages need, but none of the packages, and forks for each run of tests.

So a fault costs the seconds of its tests and not those of importing PyTorch. `TestProcess` starts this file in a copy
of the tree; that process reads a line of JSON for each run and answers with its exit status and its processor time.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HEAVY = (
    *("torch", "torchvision", "torch._dynamo", "scipy.stats", "matplotlib.pyplot", "pyarrow.parquet", "h5py"),
    *("diffusers", "peft", "accelerate", "torchmetrics.image", "av", "gymnasium", "tyro", "pytest"),
)
"""What takes long to import; none of it may start a thread, which would not survive a fork."""
PLAIN = ("-o", "addopts=--import-mode=importlib --strict-markers")
"""Without the checks of shapes at every call, which take nearly half of the time."""


class TestProcess:
    """Runs tests of one copy of the tree, one call at a time.

    Args:
        copy: The root of the copy.
    """

    __test__ = False

    def __init__(self, copy: Path):
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a copy is compiled once, and each fault alone after that
        settings = {"cwd": copy, "env": environment, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, __file__], text=True, **settings)

    def run(self, tests: Sequence[str], *, shapes: bool = False, limit: float = 300.0) -> tuple[int | None, float]:
        """Run the fast ones of these tests until one fails.

        Args:
            tests: Files or node ids.
            shapes: Check types and shapes at every call.
            limit: Seconds after which the tests are ended.

        Returns:
            Pytest's exit status, `None` when they took too long; seconds of processor time.
        """
        self.process.stdin.write(json.dumps({"tests": list(tests), "shapes": shapes, "limit": limit}) + "\n")
        self.process.stdin.flush()
        status, seconds = json.loads(self.process.stdout.readline())
        return status, seconds

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def serve() -> None:
    """Fork for each line of the standard input."""
    sys.path[0] = os.getcwd()
    if Path("tests/conftest.py").is_file():
        sys.path.insert(1, str(Path("tests/helpers").resolve()))
        runpy.run_path("tests/conftest.py")  # its environment variables must be there before the imports
        for name in HEAVY:
            importlib.import_module(name)
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            run_tests(asked)
        print(json.dumps(wait(child, asked["limit"])), flush=True)


def run_tests(asked: dict) -> None:
    """Run pytest in this process, which is a fork, and end it."""
    import pytest

    os.setpgid(0, 0)
    log = os.open("tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(file, number)
    words = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", f"--basetemp={os.getcwd()}.tests"]
    status = 1
    try:
        if "torch" in sys.modules:
            torch = sys.modules["torch"]
            torch.set_num_threads(torch.get_num_threads())  # makes the threads anew, before two of them do it at once
        status = int(pytest.main([*words, *(() if asked["shapes"] else PLAIN), *asked["tests"]]))
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(child: int, limit: float) -> tuple[int | None, float]:
    """The exit status of a fork and its processor time with that of its own children; `None` after the limit."""
    end, late = time.monotonic() + limit, False
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            end_group(child)
            return None if late else 1 if code < 0 else code, used.ru_utime + used.ru_stime
        if time.monotonic() > end and not late:
            late = True
            end_group(child)
        time.sleep(0.02)


def end_group(leader: int) -> None:
    """End what a fork has started and left."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    serve()
