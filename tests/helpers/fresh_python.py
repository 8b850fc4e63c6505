"""Run `python ...` in a fork of a process that has imported what commands import, which takes seconds of its own.

A fork has its own folder, environment, modules and output, as a new process has. What is tested at the start or the
end of a process needs a real one: `subprocess`.
"""

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from collections.abc import Mapping
from pathlib import Path

import psutil
from places import ROOT

LATE = (
    "gym_pusht.envs.pusht",
    "matplotlib.backends.backend_agg",
    "pandas",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "torchmetrics.functional.image",
    "torchvision.models",
    "worldmodel.envs.pusht.env",
)
"""What many commands import on their way: their optimisers, metrics, tables and plots."""


def python(
    *arguments: object, cwd: Path | str | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` (`-m MODULE ...`, `-c CODE ...` or `FILE ...`); returns status and text."""
    words = [str(each) for each in arguments]
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        asked = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
        server.connect(_server())
        server.sendall((json.dumps(asked | {"files": [str(file) for file in files]}) + "\n").encode())
        status = int(server.makefile().readline())
        return subprocess.CompletedProcess(words, status, *(file.read_text() for file in files))


def worldmodel(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run `worldmodel ARGUMENTS`; the settings are those of `python`."""
    return python("-m", "worldmodel.cli", *arguments, **settings)


@functools.cache
def _server() -> str:
    """The socket of the one server of all processes of a test session; the first of them starts it."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    address = Path(tempfile.gettempdir(), f"fresh-python-{os.getuid()}-{owner}")
    with address.with_suffix(".lock").open("w") as lock, socket.socket(socket.AF_UNIX) as trial:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if trial.connect_ex(str(address)):
            command = [sys.executable, __file__, str(address), str(owner)]
            started = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
            assert started.stdout.readline() == b"ready\n", "the server of the forks did not start"
            _kept.append(started)
    return str(address)


_kept: list[subprocess.Popen[bytes]] = []


def _serve(address: str, owner: int) -> None:
    """Fork for each connection, until the owner has ended."""
    sys.path.insert(1, str(ROOT))
    from worldmodel.cli import COMMANDS

    for command in COMMANDS.values():
        if command.module != "demos.page.app":  # Gradio starts threads
            importlib.import_module(command.module)
    for late in LATE:
        importlib.import_module(late)
    gc.freeze()  # what was imported is never looked through for garbage again
    assert threading.active_count() == 1, "threads do not survive a fork"
    Path(address).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        server.settimeout(1)
        print("ready", flush=True)
        while psutil.pid_exists(owner):
            with contextlib.suppress(TimeoutError):
                _answer(server.accept()[0])
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
    for file in (Path(address), Path(address).with_suffix(".lock")):
        file.unlink(missing_ok=True)


def _answer(connection: socket.socket) -> None:
    """Do in a fork what a connection asks, and let another fork say with which status that one ended."""
    with connection:
        if os.fork():
            return
        asked = json.loads(connection.makefile().readline())
        child = os.fork()
        if child == 0:
            connection.close()
            os._exit(_status(asked))
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)


def _status(asked: dict) -> int:
    """Do what is asked; returns the exit status. What runs at the end of a process has run, but nothing is freed."""
    status = 0
    try:
        _run(asked)
    except SystemExit as ended:
        status = ended.code or 0
        if not isinstance(status, int):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _run(asked: dict) -> None:
    for number, name in enumerate([os.devnull, *asked["files"]]):
        file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    import torch

    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update({"GLIBC_TUNABLES": ""} | asked["env"])  # or pretraining would start itself anew
    torch.set_num_threads(
        torch.get_num_threads()
    )  # makes PyTorch's threads anew, which two threads must not do at once
    kind, *words = asked["words"]
    if kind not in ("-m", "-c"):
        sys.argv, sys.path[0] = [kind, *words], str(Path(kind).parent)
        runpy.run_path(kind, run_name="__main__")
        return
    sys.argv, sys.path[0] = words, asked["cwd"]
    if kind == "-m":
        sys.modules.pop(words[0], None)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[0], "<string>", "exec"), sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
