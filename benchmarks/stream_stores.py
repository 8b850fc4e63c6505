"""Real stores on this machine, for `benchmarks/stream.py`: an HTTP server, and moto's server of the protocol of S3."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec

BUCKET = "worldmodel"
SECONDS = 120
"""How long a server is given to answer."""


@contextmanager
def http_store(folder: Path) -> Iterator[str]:
    """The URL of a folder behind Python's own HTTP server, which lists folders as pages; needs aiohttp."""
    port = free_port()
    where = ["--bind", "127.0.0.1", "--directory", str(folder.parent)]
    with serving([sys.executable, "-m", "http.server", str(port), *where], port):
        yield f"http://127.0.0.1:{port}/{folder.name}"


@contextmanager
def s3_store(folder: Path) -> Iterator[str]:
    """The URL of a copy of a folder in a bucket of moto's server; needs s3fs and moto[server]."""
    port = free_port()
    settings = {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    before = {name: os.environ.get(name) for name in settings}
    with serving([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        os.environ.update(settings)
        try:
            fsspec.get_filesystem_class("s3").clear_instance_cache()  # a driver of before asks at another port
            system = fsspec.filesystem("s3")
            system.mkdir(BUCKET)
            for file in folder.rglob("*"):
                if file.is_file():
                    system.pipe_file(f"{BUCKET}/{file.relative_to(folder.parent).as_posix()}", file.read_bytes())
            yield f"s3://{BUCKET}/{folder.name}"
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


STORES = {"http": http_store, "s3": s3_store}


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def serving(command: list[str], port: int) -> Iterator[None]:
    """A server in a process of its own, as soon as it answers.

    Raises:
        ValueError: It does not.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(10 * SECONDS):
            if process.poll() is not None:
                raise ValueError(f"{' '.join(command)} ended with the status {process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                break
        else:
            raise ValueError(f"{' '.join(command)} did not answer within {SECONDS} s")
        yield
    finally:
        process.terminate()
        process.wait()
