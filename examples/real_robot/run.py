"""The whole story of a real robot, with the Unitree G1 as the example: data, world, policies, judge, ranking, server.

    python examples/real_robot/run.py --data data/g1_bottle --out runs/g1-story

It prints every command before it runs it. There is no simulator, and the data has no reset seeds. The outcomes on
the robot are INVENTED (`invented.csv`), because nobody has run these policies on it: they show the form of the file,
and that a ranking is compared with it; the agreement means nothing.
"""

import csv
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import worldmodel
from policy_eval.ranking.outcomes import COLUMNS

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Story:
    """How long each part takes."""

    data: Path
    """LeRobot data set of the G1 (80 episodes; the last 16 are held out)."""
    out: Path
    """Folder for everything that is made."""
    world: str = ""
    """A world model to use; by default one is trained, for a short time."""
    pretrain_minutes: float = 10.0
    """CPU minutes of training the world model."""
    clone_steps: int = 600
    """Optimiser steps of the better policy; the other one takes an eighth, on four episodes."""
    trials: int = 16
    """Dreamed trials of each policy, from the held-out episodes."""
    horizon: int = 60
    """Steps of a trial; with a stride of 3, 60 steps are 6 s."""
    port: int = 8093
    """Where the world model is served."""


def command(*arguments: object) -> None:
    """Print a command of worldmodel, and run it in the folder of this script, where the judge is."""
    print(f"\n$ worldmodel {shlex.join(map(str, arguments))}", flush=True)
    subprocess.run([sys.executable, "-m", "worldmodel.cli", *map(str, arguments)], check=True, cwd=HERE)


def invent(file: Path, policies: list[str], episodes: range) -> None:
    """Outcomes that nobody saw, so that there is a file to read."""
    rng = np.random.default_rng(0)
    with file.open("w", newline="") as text:
        table = csv.writer(text)
        table.writerow(COLUMNS)
        for number, name in enumerate(policies):
            table.writerows([name, episode, int(rng.random() < 0.8 - 0.5 * number)] for episode in episodes)


def serve(story: Story, world: str, data: Path, episodes: str) -> None:
    """Serve the world model in a process of its own, and drive it from this one."""
    call = ["serve", "--world", world, "--data", data, "--episodes", episodes, "--port", story.port, "--batch", 1]
    print(f"\n$ worldmodel {shlex.join(map(str, call))}", flush=True)
    run = [sys.executable, "-m", "worldmodel.cli", *map(str, call)]
    server = subprocess.Popen(run, cwd=HERE, stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            print(line, end="", flush=True)
            if "is served at" in line:
                break
        env = worldmodel.connect(f"ws://127.0.0.1:{story.port}")
        observation, _ = env.reset(options={"start": 0})
        began = time.perf_counter()
        for _ in range(10):
            observation, *_ = env.step(observation["observation.state"])
        print(f"10 served steps in {time.perf_counter() - began:.2f} s: {sorted(observation)}")
        env.close()
    finally:
        server.terminate()
        server.wait(30)


def main(story: Story) -> None:
    """Tell the story."""
    data, out = story.data.resolve(), story.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    total = len(worldmodel.open_episodes(data))
    held_out = range(total - story.trials, total)
    training = f"0:{total - story.trials}"
    command("info", data)
    size = ["--size", "72", "96"]
    world = os.path.abspath(story.world) if Path(story.world).is_dir() else story.world
    if not world:
        world = str(out / "world")
        relative = [str(dim) for dim in range(26) for _ in range(2)]
        limit = ["--minutes", story.pretrain_minutes, "--clock", "cpu", "--validation-episodes", story.trials]
        command(
            *("pretrain", "tiny", "--data", data, "--out", world, "--stride", "3", *size, *limit),
            *("--loss.forward-passes", "3", "--relative-to", *relative),
        )
    short = ["--demos", "4", "--steps", max(story.clone_steps // 8, 1)]
    command("clone", "--data", data, "--episodes", training, *size, "--out", out / "long", "--steps", story.clone_steps)
    command("clone", "--data", data, "--episodes", training, *size, "--out", out / "short", *short)
    invent(out / "invented.csv", ["long", "short"], held_out)
    command(
        *("rank", "--world", world, "--judge", "judge:reached", "--policies", out / "long", out / "short"),
        *("--data", data, "--episodes", f"{held_out.start}:{held_out.stop}", "--horizon", story.horizon),
        *("--real", out / "invented.csv", "--out", out / "ranking"),
    )
    serve(story, world, data, f"{held_out.start}:{held_out.stop}")


if __name__ == "__main__":
    main(tyro.cli(Story))
