"""Does choosing among imagined futures help? Real success of a policy, alone and steered.

python benchmarks/steering.py --policy checkpoints/policies/pusht-position/top-only

All rows are tried from the same starts, so differences are paired; finished rows are kept. Controls
without imagination: the policy alone, one of the K plans at random, the plan nearest their mean.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import Progress

from policy_eval.evaluation import evaluate
from policy_eval.judge.inverse_dynamics import InverseDynamics
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.policy import Policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.steering.scorers import Scorer, at_random, by_agreement, by_value, by_verifier, nearest_the_mean
from policy_eval.steering.steered import SteeredPolicy
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.world_model import WorldModel


@dataclass(frozen=True)
class SteeringConfig:
    """Real success of a policy, alone and steered by imagination."""

    policy: Path
    """Who is steered."""
    world: str = "checkpoints/pusht"
    """Who imagines."""
    judge: Path = Path("checkpoints/judges/pusht-position")
    """Value (its reward) and verifier (its success probability)."""
    inverse_dynamics: Path | None = None
    """Reads actions off imagined frames; without it the agreement is left out."""
    real: str = "pusht-position"
    """Where it is tried."""
    data: Path = Path("data/pusht-position-heldout")
    """Held-out episodes to start from."""
    episodes: int = 60
    """Trials of every row."""
    horizon: int = 60
    """Most steps of a trial."""
    k: int = 16
    """Plans to choose from."""
    sigma: float = 40.0
    """How far they lie apart, in raw units of the action."""
    lookahead: int = 8
    """Imagined steps."""
    num_steps: int = 1
    """Denoising steps per frame."""
    num_envs: int = 10
    """Simulators stepped together."""
    rows: tuple[str, ...] = ()
    """Which rows to do; all when not given."""
    against: str = "alone"
    """Row that the others are compared with."""
    out: Path = Path("runs/steering/pusht-position.json")
    """Every trial of every row; rows that are there are not repeated."""


def rows(config: SteeringConfig) -> dict[str, Policy]:
    """The rows of the table by name."""
    policy = ClonedPolicy.load(config.policy)
    world, judge = WorldModel.load(config.world), LearnedJudge.load(config.judge)

    def steered(scorer: Scorer, imagines: WorldModel | None, k: int = config.k) -> Policy:
        return SteeredPolicy(
            policy, scorer, imagines, k=k, sigma=config.sigma, lookahead=config.lookahead, num_steps=config.num_steps
        )

    found = {
        "alone": steered(nearest_the_mean, None, k=1),
        "random-of-k": steered(at_random(), None),
        "nearest-the-mean": steered(nearest_the_mean, None),
        "value": steered(by_value(judge), world),
        "verifier": steered(by_verifier(judge.score), world),
    }
    if config.inverse_dynamics is not None:
        dynamics = InverseDynamics.load(config.inverse_dynamics)
        found["agreement"] = steered(by_agreement(dynamics.decode, dynamics.commanded), world)
    return found


def main(config: SteeringConfig) -> None:
    """Try every row and print the table."""
    stored = json.loads(config.out.read_text()) if config.out.exists() else {}
    settings = {
        name: str(value)
        for name, value in vars(config).items()
        if name not in ("out", "rows", "against", "num_envs", "inverse_dynamics")
    }
    if stored.get("settings", settings) != settings:
        raise SystemExit(f"{config.out} is of other settings: {stored['settings']}")
    policies = rows(config)
    starts = Starts(open_episodes(config.data), range(config.episodes))
    envs = RealEnvs(lambda: make_env(config.real), starts, num_envs=config.num_envs)
    found = stored.setdefault("rows", {})
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with Progress(console=Console(stderr=True)) as progress:
        for name in config.rows or policies:
            if name in found:
                continue
            bar = progress.add_task(name, total=config.episodes)
            scores = evaluate(
                policies[name],
                envs,
                name=name,
                horizon=config.horizon,
                progress=lambda n, bar=bar: progress.advance(bar, n),
            )
            found[name] = scores.to_json()
            write_json(config.out, stored | {"settings": settings})
    envs.close()
    show({name: Scores.from_json(values) for name, values in found.items()}, config.against)


def show(found: dict[str, Scores], against: str) -> None:
    """Print success, and the paired difference from the row `against` with its interval."""
    cells = []
    for name, scores in found.items():
        difference = ["-", "-"]
        if name != against and against in found:
            order = pair_order(scores, found[against])
            difference = [f"{order.difference:+.2f}", f"{order.low:+.2f} to {order.high:+.2f}"]
        cells.append([name, f"{scores.mean:.2f}", str(len(scores)), *difference])
    print(table(["row", "real success", "trials", f"minus {against}", "95% interval"], cells))


if __name__ == "__main__":
    main(tyro.cli(SteeringConfig))
