"""Does choosing among imagined futures help? Real success of a policy, alone and steered.

python benchmarks/steering.py --policy checkpoints/policies/pusht-position/top-only

All rows are tried from the same starts, so differences are paired; finished batches are kept. Controls
without imagination: the policy alone, one of the K plans at random, the plan nearest their mean. `value-16` is `value`
with 16 plans. With `--time` it prints how long a decision for one robot takes.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from steering_rows import Certain, KeepsTheOffset, PastConsistent, TwoRounds, memory, side_by_side

from policy_eval.evaluation import evaluate
from policy_eval.judge.find import load_judge
from policy_eval.judge.inverse_dynamics import InverseDynamics
from policy_eval.policies.find import load_policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.steering.proposals import samples
from policy_eval.steering.scorers import at_random, by_agreement, by_value, by_verifier, nearest_the_mean
from policy_eval.steering.steered import SteeredPolicy, offsets
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class SteeringConfig:
    """Real success of a policy, alone and steered by imagination."""

    policy: str
    """Who is steered."""
    world: str = "checkpoints/pusht"
    """Who imagines."""
    judge: str = "checkpoints/judges/pusht-position"
    """Value (its reward) and verifier (its success probability)."""
    inverse_dynamics: Path | None = None
    """Reads actions off imagined frames, for the row agreement."""
    others: tuple[str, ...] = ()
    """Policies that propose plans, too, for the row side-by-side."""
    memories: Path | None = None
    """Episodes with successes, for the row memory."""
    real: str = "pusht-position"
    """Where it is tried."""
    data: Path = Path("data/pusht-position-heldout")
    """Held-out episodes to start from."""
    episodes: int = 60
    """Trials of every row."""
    horizon: int = 60
    """Most steps of a trial."""
    k: int = 4
    """Plans to choose from."""
    spread: float = 0.3
    """How far they lie apart, as in `worldmodel steer`."""
    lookahead: int = 8
    """Imagined steps."""
    num_steps: int = 1
    """Denoising steps per frame."""
    num_envs: int = 20
    """Simulators stepped together."""
    rows: tuple[str, ...] = ("alone", "random-of-k", "value")
    """Which rows to do."""
    against: tuple[str, ...] = ("alone", "random-of-k")
    """Rows that the others are compared with."""
    time: int = 0
    """Decisions of the row value to time for one robot, of a batch of its own."""
    out: Path = Path("runs/steering/pusht-position.json")
    """Every trial of every row; batches that are there are not repeated."""


def make_row(name: str, config: SteeringConfig) -> SteeredPolicy:
    """The policy of a row.

    Raises:
        ValueError: There is no such row, or it needs an option that is missing.
    """
    policy, world = load_policy(config.policy), WorldModel.load(config.world)
    judge = load_judge(config.judge, views=world.views, size=tuple(world.size))
    sigma = offsets(world, config.spread)
    settings = {"sigma": sigma, "lookahead": config.lookahead, "num_steps": config.num_steps, "k": config.k}
    value = by_value(judge)
    many = re.fullmatch(r"value-(\d+)", name)
    if many:
        return SteeredPolicy(policy, value, world, **settings | {"k": int(many[1])})
    if name == "agreement":
        dynamics = InverseDynamics.load(_given(config, "inverse_dynamics"))
        return SteeredPolicy(
            policy, by_agreement(dynamics.decode, dynamics.commanded, dynamics.visible), world, **settings
        )
    if name == "side-by-side":
        others = [load_policy(spec) for spec in _given(config, "others")]
        return SteeredPolicy(policy, value, world, proposal=side_by_side(others), **settings)
    if name == "memory":
        source = open_episodes(_given(config, "memories"), tuple(world.size), world.views)
        return SteeredPolicy(policy, value, world, proposal=memory(policy, source), **settings)
    rows: dict[str, Callable[[], SteeredPolicy]] = {
        "alone": lambda: SteeredPolicy(policy, nearest_the_mean, **settings | {"k": 1}),
        "random-of-k": lambda: SteeredPolicy(policy, at_random, **settings),
        "nearest-the-mean": lambda: SteeredPolicy(policy, nearest_the_mean, **settings),
        "value": lambda: SteeredPolicy(policy, value, world, **settings),
        "samples": lambda: SteeredPolicy(policy, value, world, proposal=samples, **settings),
        "verifier": lambda: SteeredPolicy(policy, by_verifier(judge.score), world, **settings),
        "certain": lambda: Certain(policy, value, world, **settings),
        "past-consistent": lambda: PastConsistent(policy, value, world, **settings),
        "keeps-the-offset": lambda: KeepsTheOffset(policy, value, world, **settings),
        "two-rounds": lambda: TwoRounds(policy, value, world, **settings),
    }
    if name not in rows:
        raise ValueError(
            f"there is no row {name!r}; known are {', '.join(rows)}, agreement, side-by-side, memory, value-K"
        )
    return rows[name]()


def _given(config: SteeringConfig, name: str) -> Any:
    value = getattr(config, name)
    if not value:
        raise ValueError(f"this row needs --{name.replace('_', '-')}")
    return value


def try_row(name: str, config: SteeringConfig, starts: Starts, envs: RealEnvs, stored: dict) -> None:
    """Try the starts of a row that are missing, one batch after the other; each is stored when it is finished."""
    seconds = time.process_time()
    policy = make_row(name, config)
    parts = stored["rows"].setdefault(name, [])
    tried = {seed for part in parts for seed in part["seeds"]}
    missing = [i for i in range(len(starts)) if starts.seeds[i] not in tried]
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(name, total=len(starts), completed=len(tried))
        for first in range(0, len(missing), envs.num_envs):
            batch = missing[first : first + envs.num_envs]
            scores = evaluate(policy, envs, name=name, horizon=config.horizon, starts=batch)
            parts.append(scores.to_json())
            stored["cpu_seconds"][name] = stored["cpu_seconds"].get(name, 0.0) + time.process_time() - seconds
            seconds = time.process_time()
            write_json(config.out, stored)
            progress.advance(bar, len(batch))


def joined(parts: list[dict]) -> Scores:
    """The trials of a row."""
    columns = {name: [x for part in parts for x in part[name]] for name in ("seeds", "outcomes", "returns", "steps")}
    return Scores.from_json({"policy": parts[0]["policy"]} | columns)


def time_decisions(config: SteeringConfig, starts: Starts) -> None:
    """Print how long one robot waits for a decision: time that passed, and time of the processor."""
    torch.set_num_threads(1)
    policy = make_row("value", config)
    clip = starts.clip([0])
    observation = {f"observation.images.{view}": clip.frames[:, 0, i] for i, view in enumerate(starts.views)}
    if clip.states is not None:
        observation["observation.state"] = clip.states[:, 0]
    passed, used = [], []
    policy.reset([0])
    while len(passed) < config.time + 3:
        began, cpu = time.perf_counter(), time.process_time()
        before = policy.choice
        policy.act(observation)
        if policy.choice is not before:
            passed.append(1000 * (time.perf_counter() - began))
            used.append(1000 * (time.process_time() - cpu))
    cells = [
        [what, *(f"{np.percentile(each[3:], q):.0f}" for q in (50, 99))]
        for what, each in (("passed", passed), ("of the processor", used))
    ]
    print("\n## A decision for one robot\n")
    print(table(["ms of a decision", "p50", "p99"], cells))


def main(config: SteeringConfig) -> None:
    """Try every row and print the table."""
    stored = json.loads(config.out.read_text()) if config.out.exists() else {}
    free = ("out", "rows", "against", "num_envs", "inverse_dynamics", "others", "memories", "episodes", "time")
    settings = {name: str(value) for name, value in vars(config).items() if name not in free}
    if stored.get("settings", settings) != settings:
        raise SystemExit(f"{config.out} is of other settings: {stored['settings']}")
    stored = {"settings": settings, "rows": stored.get("rows", {}), "cpu_seconds": stored.get("cpu_seconds", {})}
    starts = Starts(open_episodes(config.data), range(config.episodes))
    config.out.parent.mkdir(parents=True, exist_ok=True)
    envs = RealEnvs(lambda: make_env(config.real), starts, num_envs=min(config.num_envs, len(starts)))
    for name in config.rows:
        try_row(name, config, starts, envs, stored)
    envs.close()
    show({name: joined(parts) for name, parts in stored["rows"].items() if parts}, config.against)
    if config.time:
        time_decisions(config, starts)


def show(found: dict[str, Scores], against: Sequence[str]) -> None:
    """Print success, and the paired differences from the rows `against` with their intervals."""
    compared = [name for name in against if name in found]
    cells = []
    for name, scores in found.items():
        line = [name, f"{scores.mean:.2f}", str(len(scores))]
        for other in compared:
            order = pair_order(scores, found[other])
            said = f"{order.difference:+.2f} [{order.low:+.2f}, {order.high:+.2f}]"
            line.append("-" if name == other else said)
        cells.append(line)
    print(table(["row", "real success", "trials", *(f"minus {name}" for name in compared)], cells))


if __name__ == "__main__":
    main(tyro.cli(SteeringConfig))
