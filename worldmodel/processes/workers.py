"""What `--workers` means: how many processes of this machine share the work, or which Ray cluster does it."""

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from worldmodel.resolve import absent, missing_extra

RAY = "ray"
ADDRESS = re.compile(r"ray://[^/\s]+:\d+")


@dataclass(frozen=True)
class Workers:
    """Who shares the calls of `work_through`.

    Attributes:
        number: How many processes of this machine; it is 0 with a cluster, which has as many as its CPUs allow.
        cluster: `ray`, the Ray cluster that runs here or is named by `RAY_ADDRESS`, else a new one of this machine;
            `ray://HOST:PORT`, another one; empty without a cluster.
        gpus: Share of a GPU that each worker of the cluster takes.
    """

    number: int = 1
    cluster: str = ""
    gpus: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether this process does everything itself."""
        return self.number == 1

    def device(self, own: str) -> str:
        """Where the networks of a worker run, if those of this process run at `own`.

        A worker of a cluster sees only its own GPUs, whatever their numbers are here.
        """
        if not self.cluster:
            return own
        return "cuda" if self.gpus else "cpu"

    @property
    def address(self) -> str:
        """The address of the cluster that was asked for; empty where nothing names one."""
        return os.environ.get("RAY_ADDRESS", "") if self.cluster == RAY else self.cluster

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """Where that cluster answers; `None` where no address names a port."""
        parts = urlsplit(self.address if "://" in self.address else f"//{self.address}")
        return None if parts.hostname is None or parts.port is None else (parts.hostname, parts.port)


ALONE = Workers()


def read_workers(option: int | str, gpus: float | None = None, device: str = "cpu") -> Workers:
    """The workers that `--workers` and `--gpus-per-worker` ask for; 0 means one per core.

    Args:
        option: A number of processes, `ray`, or `ray://HOST:PORT`.
        gpus: Share of a GPU for each worker; by default a whole one where `device` is CUDA.
        device: Where the networks run in this process.

    Raises:
        ValueError: The option has another form, a number is out of range, GPUs are asked for without Ray, or Ray is not
            installed.
    """
    text = str(option)
    if text == RAY or ADDRESS.fullmatch(text):
        if absent("ray") is not None:
            raise ValueError(f"--workers {text} {missing_extra('ray')}")
        share = float(device.startswith("cuda")) if gpus is None else gpus
        if share < 0 or (share > 1 and share != int(share)):
            raise ValueError(f"--gpus-per-worker is within 0..1, or a whole number, got {gpus}")
        return Workers(0, text, share)
    if not text.lstrip("-").isdecimal():
        raise ValueError(f"--workers is a number of processes, ray, or ray://HOST:PORT, got {option!r}")
    if int(text) < 0:
        raise ValueError(f"--workers is at least 0, got {option}")
    if gpus is not None:
        raise ValueError(f"--gpus-per-worker goes with --workers ray, got --workers {option}")
    return Workers(int(text) or os.cpu_count() or 1)
