"""How many outcomes of dreamed trials depend on the number of dreams in a batch.

    worldmodel record pusht-position --episodes 50 --seed 977 --behaviour expert --out data/batch-starts
    python benchmarks/batch_sizes.py --data data/batch-starts
    python benchmarks/batch_sizes.py --data data/batch-starts --place pusht-position --num-envs 8 1 --policies lerobot:P

Every policy dreams from the same starts with the same noise, once for each batch size; only the rounding of sums
differs, because matrix products of other sizes add their terms in another order. The table says how many outcomes
differ from those of the first batch size, with the upper end of Wilson's 95% interval as the bound. The last
column compares two runs of the same batch size: a call that is repeated must give the same outcomes.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from gymnasium.vector import VectorEnv
from jaxtyping import Float64

from policy_eval.evaluation import evaluate
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.ranking.trials import TrialSetup
from policy_eval.real_envs import RealEnvs
from policy_eval.statistics.resampling import wilson_interval
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.files import write_json
from worldmodel.model.precision import choose_device, command_device, full_precision
from worldmodel.processes import single_thread

Outcomes = dict[str, Float64[np.ndarray, "e"]]


@dataclass(frozen=True)
class BatchSizesConfig:
    """Which dreams to compare."""

    data: Path
    """Recorded episodes to start from."""
    world: str = "checkpoints/pusht"
    """Folder of the world model."""
    judge: str = "checkpoints/judges/pusht-position"
    """Folder of the judge."""
    policies: tuple[str, ...] = ("checkpoints/policies/pusht-position",)
    """Folders of policies."""
    only: tuple[str, ...] = ()
    """Names of the policies to try; all of them when not given."""
    episodes: int = 50
    """Trials of each policy."""
    horizon: int = 60
    """Most steps of a trial."""
    num_envs: tuple[int, ...] = (25, 25, 8, 4, 1)
    """Batch sizes; the first is compared with the others."""
    num_steps: int = 2
    """Denoising steps per frame."""
    place: str = "dream"
    """Where the policies act: `dream`, or an environment's name for trials in simulators."""
    full: bool = False
    """Compute in fp32 instead of bf16."""
    device: str = "auto"
    """Where the networks run."""
    out: Path = Path("runs/benchmarks/batch_sizes.json")
    """Where the outcomes go."""


def places_of(config: BatchSizesConfig, num_envs: int) -> VectorEnv:
    """`num_envs` dreams, or as many simulators, side by side."""
    if config.place != "dream":
        starts = Starts(open_episodes(config.data), range(config.episodes))
        return RealEnvs(lambda: make_env(config.place), starts, num_envs=num_envs)
    setup = TrialSetup(
        world=config.world,
        judge=config.judge,
        data=config.data,
        episodes=config.episodes,
        horizon=config.horizon,
        num_steps=config.num_steps,
        num_envs=num_envs,
        device=config.device,
    )
    return setup.dream


def outcomes_of(config: BatchSizesConfig, num_envs: int) -> Outcomes:
    """Outcomes of every policy, `num_envs` trials side by side."""
    envs = places_of(config, num_envs)
    specs = {k: v for k, v in find_policies(config.policies).items() if not config.only or k in config.only}
    found = {}
    for name, spec in specs.items():
        policy = load_policy(spec, choose_device(config.device))
        found[name] = evaluate(policy, envs, name=name, horizon=config.horizon).outcomes
    return found


def row_of(first: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How many outcomes differ, the share with its interval, and the largest change of a policy's score."""
    differs = np.concatenate([first[name] != other[name] for name in first])
    low, high = wilson_interval(float(differs.mean()), len(differs))
    moved = max(abs(first[name].mean() - other[name].mean()) for name in first)
    return {"differ": int(differs.sum()), "trials": len(differs), "low": low, "high": high, "moved": float(moved)}


def main(config: BatchSizesConfig) -> None:
    """Dream at every batch size, and print a Markdown table row by row."""
    found: list[Outcomes] = []
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with single_thread(), full_precision() if config.full else nullcontext():
        command_device(config.device)
        print("| trials side by side | outcomes that differ | bound (95%) | largest change of a score | s |")
        print("|---|---|---|---|---|", flush=True)
        for num_envs in config.num_envs:
            begun = time.perf_counter()
            found.append(outcomes_of(config, num_envs))
            row, seconds = row_of(found[0], found[-1]), time.perf_counter() - begun
            if len(found) > 1:
                counts = f"{row['differ']} of {row['trials']} | {row['high']:.1%} | {row['moved']:.3f}"
                print(f"| {config.num_envs[0]} and {num_envs} | {counts} | {seconds:.0f} |", flush=True)
            stored = [{name: values.tolist() for name, values in each.items()} for each in found]
            write_json(config.out, {"num_envs": config.num_envs, "outcomes": stored})


if __name__ == "__main__":
    main(tyro.cli(BatchSizesConfig))
