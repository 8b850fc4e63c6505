"""The machine on which a quickstart ran, for its report."""

import os
import platform
from pathlib import Path

import torch

from worldmodel.model.precision import choose_device, describe


def machine(device: str) -> dict[str, str | int]:
    """The machine, for the report."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count() or 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": describe(choose_device(device)),
    }
