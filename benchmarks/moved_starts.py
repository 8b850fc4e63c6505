"""What can a replay tell? The simulator instead of a world model, with the block a little elsewhere at the start.

```
python benchmarks/replays.py --worlds before checkpoints/pusht --starts starts --out replays
python benchmarks/moved_starts.py --replays replays --world before --out moved-starts
```

`benchmarks/replays.py` has what policies did in PushT-Position, and how the same actions ended in a dream. Here the
simulator carries them out again, from the same start but for the block, which is moved by a part of a pixel in a random
direction. Its physics is right and it needs no judge, so what it gets wrong says how far a push magnifies a small
difference: a world model that knows the block to that part of a pixel cannot be asked for more. Killed, the command
continues where it stood.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from replays import printed, summary

from worldmodel.envs.pusht.env import PushTPosition
from worldmodel.envs.pusht.objects import SCALE
from worldmodel.envs.pusht.scene import WORLD_SIZE
from worldmodel.files import read_object, write_json
from worldmodel.processes import single_thread


@dataclass(frozen=True)
class MovedStarts:
    """Which replays, and how far the block is moved."""

    replays: Path
    """Folder that `benchmarks/replays.py` wrote; its environment is pusht-position."""
    out: Path
    """Folder of the outcomes, and of `moved-starts.json`."""
    world: str = "before"
    """Name of the world model in whose dreams the trials were replayed; the first row of the table."""
    moves: tuple[float, ...] = (0.25, 1.0, 2.0)
    """How far the block is moved, px of a 64-pixel frame."""
    horizon: int = 60
    """Most actions of a trial, as there."""
    seed: int = 0
    """Seed of the directions; a start has the same one for all policies and distances."""


class Unseen(PushTPosition):
    """The simulator without its pictures, which nobody looks at here."""

    def get_obs(self) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}


def solved(env: PushTPosition, seed: int, actions: Sequence[Sequence[float]], offset: np.ndarray, horizon: int) -> bool:
    """Whether the actions, the last one repeated, still solve the task when the block begins `offset` world units off.

    Args:
        env: The simulator.
        seed: Reset seed of the trial.
        actions: Those of the trial, in order.
        offset: Displacement (x, y) of the block at the start.
        horizon: Most actions.
    """
    env.reset(seed=seed)
    env.block.position = env.block.position + offset
    env.space.reindex_shapes_for_body(env.block)
    steps = (actions[min(step, len(actions) - 1)] for step in range(horizon))
    return any(env.step(np.asarray(action, np.float32))[2] for action in steps)


def direction(seed: int, start: int) -> np.ndarray:
    """The unit vector along which the block of a start is moved."""
    angle = np.random.default_rng([seed, start]).uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def moved(config: MovedStarts, env: PushTPosition, name: str, pixels: float) -> list[float]:
    """Outcomes of a policy's trials with the block moved, in their order; made once."""
    file = config.out / f"{pixels:g}" / f"{name}.json"
    if not file.exists():
        real = read_object(config.replays / "real" / f"{name}.json")
        units, outcomes = pixels * WORLD_SIZE / SCALE, []
        for seed, actions in zip(real["seeds"], real["actions"], strict=True):
            offset = units * direction(config.seed, seed)
            outcomes.append(float(solved(env, seed, actions, offset, config.horizon)))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"outcomes": outcomes})
        print(f"moved by {pixels:g} px, {name}: {np.mean(outcomes):.2f}, {np.mean(real['outcomes']):.2f}", flush=True)
    return read_object(file)["outcomes"]


def main(config: MovedStarts) -> None:
    """Carry out every trial with each distance, and print the table.

    Raises:
        ValueError: The folder has no trials.
    """
    names = sorted(file.stem for file in (config.replays / "real").glob("*.json"))
    if not names:
        raise ValueError(f"{config.replays}: no trials; run benchmarks/replays.py first")
    trials = [read_object(config.replays / "real" / f"{name}.json") for name in names]
    dreams = [read_object(config.replays / config.world / f"{name}.json")["outcomes"] for name in names]
    outcomes = {"the dream": np.concatenate(dreams)}
    env = Unseen(time_limit=config.horizon)
    with single_thread():
        for pixels in config.moves:
            parts = [moved(config, env, name, pixels) for name in names]
            outcomes[f"the simulator, block moved by {pixels:g} px"] = np.concatenate(parts)
    real = np.concatenate([each["outcomes"] for each in trials])
    start = np.concatenate([each["seeds"] for each in trials])
    policy = np.repeat(np.arange(len(trials)), [len(each["seeds"]) for each in trials])
    rows = summary(outcomes, real, policy, start)
    write_json(config.out / "moved-starts.json", {"rows": rows, "policies": names, "trials": len(real)})
    print(f"\n{printed(rows)}")


if __name__ == "__main__":
    main(tyro.cli(MovedStarts, description=__doc__))
