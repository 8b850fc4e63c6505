"""What a figure is measured on: the processor, and what the machine has."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

PROGRAMS = ("chromium",)
PACKAGES = ("libero", "metaworld", "lerobot", "stable_baselines3", "playwright", "scipy", "omegaconf", "wandb")
PROCESSORS = {"AMX": "amx_bf16", "AVX512-bf16": "avx512_bf16", "AVX2": "avx2"}
"""The most that a processor can do, best first, and the flag of Linux for it."""


def processor() -> tuple[str, str]:
    """The name of the processor, and the best of `PROCESSORS` that it has, or an empty text."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    best = next((name for name, flag in PROCESSORS.items() if flag in flags), "")
    return facts.get("model name", "unknown processor"), best


def describe_machine(*, gpu: bool = False) -> str:
    """The machine in words, with the load of the last minute: other work on it disturbs what is timed."""
    if gpu:
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name, best = processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = (name, f"{cores} cores", best, f"torch {torch.__version__}", f"load {os.getloadavg()[0]:.1f}")
    return ", ".join(fact for fact in facts if fact)


def missing(needs: Sequence[str]) -> list[str]:
    """The needs that this machine does not have.

    Raises:
        ValueError: A need is unknown.
    """
    return [need for need in needs if not _has(need)]


def _has(need: str) -> bool:
    if need == "gpu":
        return torch.cuda.is_available()
    if need in PROCESSORS:
        return processor()[1] == need
    if need in PROGRAMS:
        return shutil.which(need) is not None
    if need in PACKAGES:
        return find_spec(need) is not None
    raise ValueError(f"need {need!r}: expected one of {', '.join(('gpu', *PROCESSORS, *PROGRAMS, *PACKAGES))}")


def revision(root: Path) -> str:
    """The commit of the tree, with a plus where files differ from it; empty where there is no git."""
    try:
        run = {"cwd": root, "capture_output": True, "text": True, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], **run).stdout.strip()
        made = (".", ":!benchmarks/results", ":!docs")  # what a run of figures itself writes does not count
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no", *made], **run).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + "+" * bool(changed)
