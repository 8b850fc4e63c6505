"""Memory, disk and time that `worldmodel pretrain tiny` takes on large pictures, against the bars.

python benchmarks/memory.py                                  93 episodes of 300 frames of 640 x 480, made by code
python benchmarks/memory.py --episodes 4 --frames 40         a short look

The data is written to `--work` once. A process of its own trains for two steps; its peak resident memory, the size
of the cache of decoded frames, and the time from its start to the end of the first step are printed. The exit status
is 1 if a bar is missed.
"""

import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from worldmodel.data.video.write import encode_video
from worldmodel.model.card import table

BARS = {"resident GB": 4.0, "cache GB": 2.0, "minutes to the first step": 3.0}
DIFFERENT = 3  # videos; the other episodes are copies


@dataclass(frozen=True)
class MemoryConfig:
    """What to make and where."""

    episodes: int = 93
    """Episodes."""
    frames: int = 300
    """Frames of each."""
    size: tuple[int, int] = (480, 640)
    """Height and width of a picture."""
    work: Path = Path("runs/memory")
    """Folder for the data, the cache and the run."""


def draw(config: MemoryConfig, seed: int) -> np.ndarray:
    """A square that moves over a fixed background with texture."""
    rng = np.random.default_rng(seed)
    height, width = config.size
    background = np.kron(rng.integers(0, 256, (height // 16, width // 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    frames = np.repeat(background[None], config.frames, axis=0)
    for index, frame in enumerate(frames):
        row, column = (40 * seed + 3 * index) % (height - 64), (5 * index) % (width - 64)
        frame[row : row + 64, column : column + 64] = (250, 40, 40)
    return frames


def make_data(config: MemoryConfig, folder: Path) -> None:
    """Plain folders with one camera and two actions."""
    aside = folder.with_name("making")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for seed in range(min(DIFFERENT, config.episodes)):
        encode_video(aside / f"{seed}.mp4", draw(config, seed), 10)
    for episode in range(config.episodes):
        (aside / f"episode_{episode:03d}").mkdir()
        shutil.copy(aside / f"{episode % DIFFERENT}.mp4", aside / f"episode_{episode:03d}" / "top.mp4")
        actions = np.random.default_rng(episode).normal(size=(config.frames - 1, 2))
        np.save(aside / f"episode_{episode:03d}" / "actions.npy", actions)
    for video in aside.glob("*.mp4"):
        video.unlink()
    aside.rename(folder)


def measure(config: MemoryConfig, data: Path) -> dict[str, float]:
    """Train for two steps in a process of its own."""
    out, cache = config.work / "run", config.work / "cache"
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "worldmodel.cli", "pretrain", "tiny", "--data", data, "--out", out, "--steps", "2"]
    command += ["--validation-interval", "1000", "--save-interval", "1000", "--validation-episodes", "1"]
    start = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), env={**os.environ, "WORLDMODEL_CACHE": str(cache)})
    table = out / "losses.csv"
    first = None
    while process.poll() is None:
        if first is None and table.is_file() and table.read_text().count("\n") > 1:
            first = time.monotonic() - start
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"pretrain ended with {process.returncode}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    return {
        "resident GB": peak * 1024 / 1e9,
        "cache GB": size / 1e9,
        "minutes to the first step": (first or time.monotonic() - start) / 60,
    }


def main(config: MemoryConfig) -> int:
    """Make the data where it is missing, measure, print; returns the exit status."""
    data = config.work / f"data-{config.episodes}-{config.frames}-{config.size[0]}"
    if not data.is_dir():
        make_data(config, data)
    found = measure(config, data)
    rows = [[name, f"{value:.2f}", f"at most {BARS[name]:g}"] for name, value in found.items()]
    print(table(["figure", "measured", "bar"], rows))
    return int(any(value > BARS[name] for name, value in found.items()))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(MemoryConfig, description=__doc__)))
