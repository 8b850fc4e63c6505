"""How much faster do worlds stream and train than at another commit, by default that of the first release?

python benchmarks/engine.py --data data/heldout12 --out engine.json
python benchmarks/engine.py --data data/heldout12 --against HEAD~1 --rounds 15 --training-steps 0

Checks that commit out into a temporary git worktree, or takes the checkout in `--foundation`, and
lets both trees dream with their own shipped checkpoint, raw action in, pictures out, and train it
further as `worldmodel pretrain tiny` does. The trees take turns, each time in a fresh process with
one thread, because neighbours on a machine are noisy. The interval is that of the mean ratio.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import write_json

FOUNDATION = "505cd1b06adfffd78a425c317a41a7a3eb843d32"
ROOT = Path(__file__).resolve().parents[1]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SHARES = (0.4, 0.3, 0.3)  # of training batches with 0, 1 and 2 self-forwarding passes
Rounds = Sequence[Mapping[str, float]]  # frames/s by batch and of training, one mapping per round


@dataclass(frozen=True)
class EngineConfig:
    """Frames per second now and then."""

    data: Path
    """Recorded PushT episodes to dream on from; as many as the largest batch."""
    against: str = FOUNDATION
    """The commit to compare with."""
    foundation: Path | None = None
    """A checkout of it; a temporary worktree when not given."""
    world: str = "checkpoints/pusht"
    """The world model, in either tree."""
    batches: tuple[int, ...] = (1, 8)
    """Dreams side by side."""
    num_steps: int = 2
    """Denoising steps per frame."""
    frames: int = 100
    """Frames per stream and process."""
    training_steps: int = 3
    """Optimiser steps per process with each number of self-forwarding passes; 0: no training."""
    rounds: int = 5
    """Turns of either tree."""
    clock: Literal["wall", "cpu"] = "wall"
    """Wall time, or that of the process alone, which neighbours disturb less."""
    out: Path | None = None
    """File of all figures."""


def probe(data: str, world: str, batches: Sequence[int], num_steps: int, frames: int, clock: str) -> dict[str, float]:
    """Frames/s by batch of the tree that this process imports; runs in either one."""
    from worldmodel.data import open_episodes, stack_clips
    from worldmodel.world_model import WorldModel

    torch.set_num_threads(1)
    model, source, now = WorldModel.load(world), open_episodes(data), CLOCKS[clock]
    clip = stack_clips([source.read(index, 0, 9, 1) for index in range(max(batches))])
    found = {}
    for batch in batches:
        context = clip.map(lambda x, batch=batch: x[:batch])
        stream, seconds = model.stream(context), []
        for _ in range(frames + 5):
            begin = now()
            observation = stream.step(context.actions[:, -1], num_steps=num_steps)
            observation.frames.numpy()
            seconds.append(now() - begin)
        found[str(batch)] = batch / statistics.median(seconds[5:])
    return found


def probe_training(data: str, world: str, steps: int, clock: str) -> dict[str, float]:
    """Predicted frames/s of training in the tree that this process imports; runs in either one.

    Batches are of 8 clips with as many frames as the tree's preset `tiny`; with 0, 1 and 2
    self-forwarding passes as often as in a run after its first part.
    """
    from worldmodel.data import EpisodeCache, open_episodes
    from worldmodel.data.sample import sample_clips
    from worldmodel.model.precision import autocast
    from worldmodel.training.loss import LossConfig, draw, training_loss
    from worldmodel.training.optimizers import build_optimizers
    from worldmodel.training.pretrain import PretrainConfig
    from worldmodel.world_model import WorldModel

    torch.set_num_threads(1)
    model, loss_config, now = WorldModel.load(world).train(), LossConfig(), CLOCKS[clock]
    source, frames = EpisodeCache(open_episodes(data)), PretrainConfig.frames
    optimizers, total = build_optimizers(model, 1e-6, muon=True), 0.0
    for passes, share in enumerate(SHARES):
        seconds = []
        for step in range(steps + 1):
            begin = now()
            generator = torch.Generator().manual_seed(step)
            draws = draw(model, loss_config, batch=8, frames=frames, generator=generator)
            clip = sample_clips(
                source, batch=8, length=frames, stride=1, seed=0, index=step, episodes=range(len(source))
            )
            with autocast("cpu"):
                loss, _ = training_loss(model, clip, replace(draws, passes=passes), loss_config)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            seconds.append(now() - begin)
        total += share * min(seconds[1:])  # the first one warms up
    return {"training": 8 * (frames - 1) / total}


def run_probe(tree: Path, name: str, values: Mapping[str, object]) -> dict[str, float]:
    """A probe of this file in a process of its own that imports the packages of `tree`."""
    program = (
        "import json, runpy, sys; script = runpy.run_path(sys.argv[1]); "
        "print(json.dumps(script[sys.argv[2]](**json.loads(sys.argv[3]))))"
    )
    for file, module in (("training/malloc.py", "training.malloc"), ("memory.py", "memory")):
        if name == "probe_training" and (tree / "worldmodel" / file).exists():
            program = f"import worldmodel.{module} as m; m.keep_freed_memory(); " + program
    script = "engine.py" if (tree / "worldmodel" / "streaming" / "stream.py").exists() else "engine_legacy.py"
    path = str(ROOT / "benchmarks" / script)
    command = [sys.executable, "-c", program, path, name, json.dumps(values)]
    one = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tree, env=one, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(tree: Path, config: EngineConfig) -> dict[str, float]:
    """One round of one tree."""
    shared = {"data": str(config.data.resolve()), "world": config.world, "clock": config.clock}
    streaming = {"batches": config.batches, "num_steps": config.num_steps, "frames": config.frames}
    found = run_probe(tree, "probe", {**shared, **streaming})
    if config.training_steps:
        found |= run_probe(tree, "probe_training", {**shared, "steps": config.training_steps})
    return found


def take_turns(foundation: Path, config: EngineConfig) -> dict[str, Rounds]:
    """The figures of every round, of the old tree and the new."""
    rounds = {"old": [], "new": []}
    for _ in range(config.rounds):
        for name, tree in (("old", foundation), ("new", ROOT)):
            rounds[name].append(measure(tree, config))
    return rounds


def summarise(rounds: Mapping[str, Rounds]) -> dict[str, dict[str, float]]:
    """Medians over the rounds, and of the ratios of neighbouring processes, by batch."""
    found = {}
    for batch in rounds["new"][0]:
        old, new = ([each[batch] for each in rounds[name]] for name in ("old", "new"))
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        found[batch] = {
            "old": statistics.median(old),
            "new": statistics.median(new),
            "ratio": statistics.median(ratios),
            "interval": bootstrap_interval(np.array(ratios), np.arange(len(ratios))),
        }
    return found


def markdown(found: Mapping[str, Mapping[str, float]], against: str) -> str:
    """The table that is printed: frames/s on one thread."""
    columns = ("frames/s, one thread", f"old ({against[:7]})", "new", "new / old", "95% interval")
    rows = [columns, ["---"] * len(columns)]
    for batch, row in found.items():
        name = f"streaming, batch {batch}" if batch.isdigit() else batch
        interval = "-" if row["interval"] is None else "{:.3f} to {:.3f}".format(*row["interval"])
        rows.append([name, f"{row['old']:.1f}", f"{row['new']:.1f}", f"{row['ratio']:.2f}", interval])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(config: EngineConfig) -> None:
    """Measure, print, write."""
    if config.foundation is not None:
        rounds = take_turns(config.foundation.resolve(), config)
    else:
        with tempfile.TemporaryDirectory() as folder:
            tree, git = Path(folder) / "foundation", ("git", "-C", str(ROOT), "worktree")
            subprocess.run([*git, "add", "--detach", str(tree), config.against], check=True)
            try:
                rounds = take_turns(tree, config)
            finally:
                subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    found = summarise(rounds)
    print(markdown(found, config.against))
    if config.out is not None:
        described = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
        report = {"config": described, "foundation": config.against, "median": found, "rounds": rounds}
        write_json(config.out, report)


if __name__ == "__main__":
    main(tyro.cli(EngineConfig))
