"""How much faster do worlds stream than at the commit that the engine is measured against?

python benchmarks/engine.py --data data/heldout12 --json engine.json

Checks that commit out into a temporary git worktree, or takes the checkout in `--foundation`, and
lets both trees dream with their own shipped checkpoint, raw action in, pictures out. The trees take
turns, each time in a fresh process with one thread, because neighbours on a machine are noisy.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from worldmodel.files import write_json

FOUNDATION = "505cd1b06adfffd78a425c317a41a7a3eb843d32"
ROOT = Path(__file__).resolve().parents[1]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Rounds = Sequence[Mapping[str, float]]  # frames/s by batch, one mapping per process


@dataclass(frozen=True)
class EngineConfig:
    """Frames per second now and then."""

    data: Path
    """Recorded PushT episodes to dream on from; as many as the largest batch."""
    foundation: Path | None = None
    """A checkout of the commit to compare with; a temporary worktree when not given."""
    world: str = "checkpoints/pusht"
    """The world model, in either tree."""
    batches: tuple[int, ...] = (1, 8)
    """Dreams side by side."""
    num_steps: int = 2
    """Denoising steps per frame."""
    frames: int = 100
    """Frames per stream and process."""
    rounds: int = 5
    """Processes of either tree."""
    clock: Literal["wall", "cpu"] = "wall"
    """Wall time, or that of the process alone, which neighbours disturb less."""
    json: Path | None = None
    """File of all figures."""


def probe(
    data: str, world: str, batches: Sequence[int], num_steps: int, frames: int, clock: str
) -> dict[str, float]:
    """Frames/s by batch of the tree that this process imports; runs in either one."""
    from worldmodel.data import open_episodes, stack_clips
    from worldmodel.world_model import WorldModel

    torch.set_num_threads(1)
    model, source, now = WorldModel.load(world), open_episodes(data), CLOCKS[clock]
    clip = stack_clips([source.read(index, 0, 9, 1) for index in range(max(batches))])
    found = {}
    for batch in batches:
        context = clip.map(lambda x, batch=batch: x[:batch])
        state, seconds = model.start(context), []
        for _ in range(frames + 5):
            begin = now()
            observation, state = model.step(state, context.actions[:, -1], num_steps=num_steps)
            observation.frames.numpy()
            seconds.append(now() - begin)
        found[str(batch)] = batch / statistics.median(seconds[5:])
    return found


def run_probe(tree: Path, config: EngineConfig) -> dict[str, float]:
    """`probe` in a process of its own that imports the packages of `tree`."""
    values = {
        "data": str(config.data.resolve()), "world": config.world, "batches": config.batches,
        "num_steps": config.num_steps, "frames": config.frames, "clock": config.clock,
    }  # fmt: skip
    program = (
        "import json, runpy, sys; script = runpy.run_path(sys.argv[1]); "
        "print(json.dumps(script['probe'](**json.loads(sys.argv[2]))))"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).resolve()), json.dumps(values)]
    one = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=one, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def take_turns(foundation: Path, config: EngineConfig) -> dict[str, Rounds]:
    """The figures of every round, of the old tree and the new."""
    rounds = {"old": [], "new": []}
    for _ in range(config.rounds):
        for name, tree in (("old", foundation), ("new", ROOT)):
            rounds[name].append(run_probe(tree, config))
    return rounds


def summarise(rounds: Mapping[str, Rounds]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and of the ratios of neighbouring processes, by batch."""
    found = {}
    for batch in rounds["new"][0]:
        old, new = ([each[batch] for each in rounds[name]] for name in ("old", "new"))
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        found[batch] = {
            "old": statistics.median(old), "new": statistics.median(new),
            "ratio": statistics.median(ratios),
        }  # fmt: skip
    return found


def table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """What is printed."""
    shown = Table(title=f"frames/s on one thread, old is {FOUNDATION[:7]}")
    for column in ("batch", "old", "new", "new / old"):
        shown.add_column(column, justify="right")
    for batch, row in found.items():
        shown.add_row(batch, f"{row['old']:.1f}", f"{row['new']:.1f}", f"{row['ratio']:.2f}")
    return shown


def main(config: EngineConfig) -> None:
    """Measure, print, write."""
    if config.foundation is not None:
        rounds = take_turns(config.foundation.resolve(), config)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tree, git = Path(folder) / "foundation", ("git", "-C", str(ROOT), "worktree")
            subprocess.run([*git, "add", "--detach", str(tree), FOUNDATION], check=True)
            try:
                rounds = take_turns(tree, config)
            finally:
                subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    found = summarise(rounds)
    Console().print(table(found))
    if config.json is not None:
        described = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
        report = {"config": described, "foundation": FOUNDATION, "median": found, "rounds": rounds}
        write_json(config.json, report)


if __name__ == "__main__":
    main(tyro.cli(EngineConfig))
