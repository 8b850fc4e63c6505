"""Failures that succeed in a dream: does the judge err on real frames, too, or did the world model move something?

```
python benchmarks/replays.py --worlds before checkpoints/pusht --starts starts --out replays
python benchmarks/near_misses.py --replays replays --world before --out near-misses
```

`benchmarks/replays.py` has what policies did in the simulator, and how the same actions ended in a dream. Here the
simulator carries out the same actions once more, and the judge looks at its frames. A failure that the judge calls a
success on real frames is a near miss: a perfect world model would not help. Killed, the command continues where it
stood.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from torch import Tensor

from policy_eval.judge.find import load_judge
from worldmodel.dreams.verdict import Judge
from worldmodel.envs import make_simulator
from worldmodel.envs.protocol import succeeded
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.processes import single_thread
from worldmodel.streaming.state import Observation


@dataclass(frozen=True)
class NearMisses:
    """Which replays, and who judges them."""

    replays: Path
    """Folder that `benchmarks/replays.py` wrote."""
    out: Path
    """Folder of the verdicts, and of `near-misses.json`."""
    world: str = "before"
    """Name of the world model in whose dreams the trials were replayed."""
    env: str = "pusht-position"
    """The simulator."""
    judge: Path = Path("checkpoints/judges/pusht-position")
    """The judge of the dreams."""
    views: tuple[str, ...] = ("top", "wrist")
    """Cameras that the judge is shown."""
    size: int = 64
    """Side of a frame."""
    starts: int | None = None
    """Number of starts of each policy, the first ones; all by default."""


def frames_of(
    env: gymnasium.Env, seed: int, actions: Sequence[Sequence[float]], views: Sequence[str]
) -> tuple[UInt8[Tensor, "t v H W 3"], bool]:
    """The frames after each action, up to the success, and whether there was one."""
    env.reset(seed=seed)
    seen, solved = [], False
    for action in actions:
        observation, _, terminated, _, info = env.step(np.asarray(action, np.float32))
        seen.append(np.stack([observation[f"observation.images.{view}"] for view in views]))
        solved = succeeded(terminated, info)
        if solved:
            break
    return torch.from_numpy(np.stack(seen)), solved


def judged(config: NearMisses, env: gymnasium.Env, judge: Judge, name: str) -> Mapping[str, list]:
    """Of every trial of a policy: its seed, its outcome then and now, in the dream, and by the judge; made once."""
    file = config.out / f"{name}.json"
    if not file.exists():
        real = read_object(config.replays / "real" / f"{name}.json")
        dream = read_object(config.replays / config.world / f"{name}.json")["outcomes"]
        rows: dict[str, list] = {"seeds": [], "outcomes": [], "again": [], "dream": [], "judge": []}
        trials = zip(real["seeds"], real["outcomes"], real["actions"], dream, strict=True)
        for seed, outcome, actions, dreamed in list(trials)[: config.starts]:
            frames, solved = frames_of(env, seed, actions, config.views)
            verdict = bool(judge(Observation(frames, None)).successes.any())
            values = (seed, outcome, float(solved), dreamed, float(verdict))
            for column, value in zip(rows.values(), values, strict=True):
                column.append(value)
        write_json(file, rows)
        print(f"{name}: the judge sees success in {np.mean(rows['judge']):.2f} of the real trials", flush=True)
    return read_object(file)


def summary(rows: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """How often judge and dream call failures and successes a success, together and apart.

    Args:
        rows: `seeds`, `outcomes`, `dream` and `judge` of all trials; the bootstrap (95%) draws seeds.

    Returns:
        For `failures` and `successes` the number of trials `n`, and shares with their intervals: `judge` (on real
        frames), `dream`, `dream_if_judge` and `dream_if_not` (dreams of the trials that the judge calls a success on
        real frames, and of the others), and `judge_if_dream`, the near misses among those that succeed in the dream.
    """
    found = {}
    for kind, outcome in (("failures", 0), ("successes", 1)):
        these = rows["outcomes"] == outcome
        judge, dream = rows["judge"] == 1, rows["dream"] == 1
        parts = {
            "judge": (judge, these),
            "dream": (dream, these),
            "dream_if_judge": (dream, these & judge),
            "dream_if_not": (dream, these & ~judge),
            "judge_if_dream": (judge, these & dream),
        }
        found[kind] = {"n": int(these.sum())}
        for name, (values, mask) in parts.items():
            value = float(values[mask].mean()) if mask.any() else None
            between = bootstrap_interval(values[mask].astype(float), rows["seeds"][mask]) if mask.any() else None
            found[kind][name] = {"share": value, "interval": between, "n": int(mask.sum())}
    return found


def printed(found: Mapping[str, dict]) -> str:
    """A Markdown table."""
    labels = {
        "judge": "the judge says success on real frames",
        "dream": "success in the dream",
        "dream_if_judge": "success in the dream, of those that the judge calls a success on real frames",
        "dream_if_not": "success in the dream, of the others",
        "judge_if_dream": "the judge says success on real frames, of those that succeed in the dream",
    }
    lines = [
        [label, *(_cell(found[kind][name]) for kind in ("failures", "successes"))] for name, label in labels.items()
    ]
    heads = [f"{kind} in the simulator, {found[kind]['n']}" for kind in ("failures", "successes")]
    return table(["share", *heads], lines)


def _cell(part: Mapping) -> str:
    if part["share"] is None:
        return "-"
    ends = part["interval"]
    between = "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    return f"{part['share']:.3f}{between} of {part['n']}"


def main(config: NearMisses) -> None:
    """Judge the real frames of every trial, and print the table."""
    names = sorted(file.stem for file in (config.replays / "real").glob("*.json"))
    if not names:
        raise ValueError(f"{config.replays}: no trials; run benchmarks/replays.py first")
    judge = load_judge(config.judge, torch.device("cpu"), views=config.views, size=(config.size, config.size))
    env = make_simulator(config.env, size=config.size)
    config.out.mkdir(parents=True, exist_ok=True)
    with single_thread():
        parts = [judged(config, env, judge, name) for name in names]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    differ = int((rows["again"] != rows["outcomes"]).sum())
    found = summary(rows)
    write_json(config.out / "near-misses.json", {"policies": names, "differ": differ, "figures": found})
    print(f"\n{printed(found)}\n\n{differ} of {len(rows['outcomes'])} outcomes in the simulator differ from those then")


if __name__ == "__main__":
    main(tyro.cli(NearMisses, description=__doc__))
