"""Do two processes train as one does? The five commands that `accelerate launch` starts in several, in fp32.

python benchmarks/processes.py --data DATA                   first gradients, losses of 50 steps, order after a resume
python benchmarks/processes.py --data DATA --steps 2         a short look

Every command trains once in one process and once in two, which `accelerate` starts and joins by gloo, with the same
batch over all of them. Every process has one thread: other numbers of threads round otherwise, and pictures of dreams,
which are rounded to 256 levels, enlarge that. DATA is a set of PushT-Position with successes and failures. The exit
status is 1 if a bar is missed.
"""

import csv
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from accelerate import debug_launcher
from recorded_run import record
from safetensors.torch import load_file

from worldmodel.files import write_json
from worldmodel.model.card import table

GRADIENT_BAR, LOSS_BAR = 1e-5, 1e-3
NETWORK = "--dit.width 32 --dit.head-width 16 --dit.encoder-depth 2 --dit.decoder-depth 1 --dit.patch 8"
SHIPPED = "--world checkpoints/pusht --judge checkpoints/judges/pusht-position"
COMMANDS = {
    "pretrain": f"pretrain tiny --batch 8 --frames 5 --size 32 32 --log none --long-interval 5 {NETWORK}",
    "posttrain": (
        "posttrain --world {out}/pretrain-1/run --groups 8 --candidates 2 --prefix 2 --branch 2 --learning-rate 1e-4 "
        "--validation-horizon 4 --validation-interval 1000 --log none"
    ),
    "imagine": (
        f"imagine {SHIPPED} --policy checkpoints/policies/pusht-position/demos-60 --streams 8 --horizon 8 "
        "--updates 1 --confirm 0 --validation-starts 2 --validation-horizon 2 --learn.objective pmpo "
        "--learn.warmup 0 --learn.epochs 1 --no-trust --log none"
    ),
    "clone": "clone --batch 8 --steps {steps}",
    "judge": "judge --batch 8 --held-out 0.5 --steps {steps}",
}
COMPARED = {
    "pretrain": "8 clips; 4 in each process",
    "posttrain": "8 starts of 2 dreams; 4 starts in each",
    "imagine": "8 dreams of 8 actions; 4 in each, both learn from all",
    "clone": "8 frames; 4 in each",
    "judge": "8 frames; 4 in each",
}
STEPPED = ("pretrain", "posttrain")


@dataclass(frozen=True)
class ProcessesConfig:
    """What to train on and where."""

    data: Path
    """Episodes of PushT-Position with successes and failures."""
    episodes: str = ":24"
    """Which of them."""
    steps: int = 50
    """Optimiser steps of pretrain and posttrain, whose losses are compared."""
    only: tuple[str, ...] = tuple(COMMANDS)
    """Commands; posttrain needs pretrain."""
    work: Path = Path("runs/processes")
    """Folder for the runs."""
    json: Path | None = None
    """File of the figures."""


def train(config: ProcessesConfig, line: Sequence[str], name: str, processes: int) -> Path:
    """Run a command in some processes, and return the folder of its record; its run is in `run` there."""
    out = config.work / name
    data = ["--data", str(config.data), "--episodes", config.episodes, "--device", "cpu", "--out", str(out / "run")]
    debug_launcher(recorded, (out, [*line, *data]), num_processes=processes)
    return out


def recorded(out: Path, line: list[str]) -> None:
    """Run a command in this process, which the launcher has made."""
    torch.set_num_threads(1)  # the launcher gives one thread to each of two processes, and all cores to one
    if record(out, line):
        raise ValueError(f"{shlex.join(line)} was refused")


def gradient_error(one: Path, two: Path) -> float:
    """Length of the difference of the first gradients, relative to their length."""
    first, second = (load_file(each / "gradients.safetensors") for each in (one, two))
    if first.keys() != second.keys():
        raise ValueError(f"{two}: gradients of other weights than {one}")
    a, b = (torch.cat([each[name].double().flatten() for name in sorted(first)]) for each in (first, second))
    return float((a - b).norm() / a.norm())


def losses(record: Path) -> list[float]:
    """The losses of a run."""
    with (record / "run" / "losses.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def sampled(record: Path) -> dict[int, list[str]]:
    """Of every step the clips that were sampled, those of the first process first."""
    found: dict[int, list[str]] = {}
    for file in sorted(record.glob("samples-*.json")):
        for step, clips in json.loads(file.read_text()):
            found.setdefault(step, []).extend(clips)
    return found


def compare(config: ProcessesConfig, name: str) -> dict[str, float | int | None]:
    """How far two processes are from one."""
    text = COMMANDS[name].format(out=config.work, steps=min(config.steps, 10))
    line = [*text.split(), *(["--steps", str(config.steps)] if name in STEPPED else [])]
    one, two = (train(config, line, f"{name}-{processes}", processes) for processes in (1, 2))
    found: dict[str, float | int | None] = {"gradient": gradient_error(one, two), "losses": None, "steps": None}
    if name in STEPPED:
        pairs = list(zip(losses(one), losses(two), strict=True))
        found |= {"losses": max(abs(a - b) / abs(a) for a, b in pairs), "steps": len(pairs)}
    return found


def resumed(config: ProcessesConfig) -> bool:
    """Whether a run in 2, 1 and 2 processes samples what a run in one process does, in the same order."""
    line = COMMANDS["pretrain"].split()
    whole = sampled(train(config, [*line, "--steps", "6"], "resume-whole", 1))
    found: dict[int, list[str]] = {}
    for steps, processes in ((2, 2), (4, 1), (6, 2)):
        options = ["--steps", str(steps), *(["--resume"] if found else [])]
        record = train(config, [*line, *options], "resume-parts", processes)
        found |= sampled(record)
        for file in record.glob("samples-*.json"):
            file.unlink()
    return whole == found and len(whole) == 6


def main(config: ProcessesConfig) -> int:
    """Train, compare, print; returns the exit status."""
    rows = {name: compare(config, name) for name in config.only}
    same = resumed(config)
    shown = [
        [
            name,
            COMPARED[name],
            f"{row['gradient']:.1e}",
            "-" if row["losses"] is None else f"{row['losses']:.1e} ({row['steps']} steps)",
        ]
        for name, row in rows.items()
    ]
    print(table(["command", "batch", "first gradients", "largest difference of a loss"], shown))
    print(f"\nResumed in 2, 1 and 2 processes: {'the same samples in the same order' if same else 'OTHER SAMPLES'}")
    if config.json is not None:
        write_json(config.json, {"format": 1, "commands": rows, "same_samples": same})
    good = all(row["gradient"] <= GRADIENT_BAR and (row["losses"] or 0) <= LOSS_BAR for row in rows.values())
    return 0 if good and same else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(ProcessesConfig, description=__doc__)))
