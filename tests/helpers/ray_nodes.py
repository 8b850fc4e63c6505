"""A Ray cluster of several nodes on this machine, each begun by `ray start` and ended with all of its processes."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from places import ROOT

LITTLE = ["--num-cpus=1", "--object-store-memory=80000000", "--block"]
SECONDS = 300  # generous, for a machine that is busy with other work
AUTHENTICATION = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
"""Variables of the environment with which a process can join; Ray reads them when it is imported."""


@dataclass
class Nodes:
    """The nodes; the first one is the head.

    Attributes:
        address: Where the head answers, for `RAY_ADDRESS`.
        client: Where it answers to Ray Client.
    """

    address: str
    client: str
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """Variables of the environment of a process that uses the cluster."""
        return {**AUTHENTICATION, "RAY_ADDRESS": self.address}

    def start(self, *options: str) -> None:
        """Start a node of one CPU, and wait until it says so."""
        command = [str(Path(sys.executable).with_name("ray")), "start", *options, *LITTLE]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, **AUTHENTICATION, "PYTHONPATH": paths}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, start_new_session=True, env=environment, **pipes)
        self.processes.append(process)
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        raise AssertionError("".join(said))

    def kill(self, number: int) -> None:
        """Kill a node with all of its processes, as if its plug was pulled."""
        process = self.processes[number]
        with contextlib.suppress(psutil.NoSuchProcess):
            everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for each in everyone:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(everyone, SECONDS)
        process.wait()

    def raylet(self, number: int) -> int:
        """The process of a node that is the parent of its workers."""
        children = psutil.Process(self.processes[number].pid).children(recursive=True)
        (found,) = [each.pid for each in children if each.name() == "raylet"]
        return found


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """A cluster of two nodes with one CPU each."""
    port, client = _free(), _free()
    nodes = Nodes(f"127.0.0.1:{port}", f"ray://127.0.0.1:{client}")
    folder = tempfile.mkdtemp(prefix="ray")  # short, since the paths of sockets are
    try:
        options = ["--head", f"--port={port}", f"--ray-client-server-port={client}", f"--temp-dir={folder}"]
        nodes.start(*options, "--include-dashboard=false", "--node-ip-address=127.0.0.1")
        nodes.start(f"--address={nodes.address}", "--node-ip-address=127.0.0.1")
        yield nodes
    finally:
        for number in reversed(range(len(nodes.processes))):
            nodes.kill(number)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(what: str, happened: Callable[[], bool]) -> None:
    """Wait until `happened()` is true."""
    until = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def _free() -> int:
    """A port that nobody has, and that is none of those that Ray gives to its workers (10002 to 19999)."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        if port > 20000:
            return port
