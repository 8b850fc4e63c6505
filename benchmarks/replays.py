"""Do trials that failed in the simulator succeed in a dream? The same actions again, in several world models.

```
python benchmarks/replays.py --worlds before checkpoints/pusht after runs/posttrained --starts starts --out replays
```

Policies act in the simulator, and what they did is written down. Every trial is then dreamed again, action by action,
in every world model, and the judge, whose threshold stays as it is, says whether it succeeded. A world model in which
failures succeed flatters policies; one in which successes fail is too strict. Killed, the command continues where it
stood.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from policy_eval.evaluation import Trial, evaluate
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import Replay
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table
from worldmodel.processes import single_thread


@dataclass(frozen=True)
class ReplayBenchmark:
    """Which trials are replayed, and where."""

    out: Path
    """Folder of trials and replays, and of `replays.json`."""
    starts: Path
    """Recorded episodes to start from, others than those that a world model or the judge was trained on."""
    worlds: dict[str, Path] = field(default_factory=dict)
    """World models by name, as in before checkpoints/pusht after runs/posttrained; the first one is the one that the
    others are held against."""
    env: str = "pusht-position"
    """The simulator."""
    judge: Path = Path("checkpoints/judges/pusht-position")
    """Judge of the dreams."""
    policies: Path = Path("checkpoints/policies/pusht-position")
    """Folder of policies."""
    episodes: int = 64
    """Starts of each policy."""
    horizon: int = 60
    """Most actions of a trial."""
    num_steps: int = 2
    """Denoising steps per frame."""
    seed: int = 0
    """Seed of the dreams."""

    def setup(self, world: Path) -> TrialSetup:
        """Simulators and dreams from the starts."""
        return TrialSetup(
            world, self.judge, self.starts, self.episodes, self.horizon, self.env, self.num_steps, seed=self.seed
        )


def real_trials(config: ReplayBenchmark, setup: TrialSetup, name: str, spec: str | Path) -> dict:
    """`seeds`, `outcomes` and `actions` of a policy's trials in the simulator; made once."""
    file = config.out / "real" / f"{name}.json"
    if not file.exists():
        trials: list[Trial] = []
        evaluate(load_policy(spec), setup.simulators, name=name, horizon=config.horizon, record=trials.append)
        rows = {
            "seeds": [trial.seed for trial in trials],
            "outcomes": [trial.outcome for trial in trials],
            "actions": [trial.actions.tolist() for trial in trials],
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, rows)
    return read_object(file)


def replayed(config: ReplayBenchmark, setup: TrialSetup, world: str, name: str, real: Mapping) -> list[float]:
    """Outcomes of the same trials in the dream, in their order; made once."""
    file = config.out / world / f"{name}.json"
    if not file.exists():
        policy = Replay(dict(zip(real["seeds"], real["actions"], strict=True)))
        scores = evaluate(policy, setup.dream, name=name, horizon=config.horizon)
        found = dict(zip(scores.seeds.tolist(), scores.outcomes.tolist(), strict=True))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"outcomes": [found[seed] for seed in real["seeds"]]})
        print(f"{world} {name}: {scores.outcomes.mean():.2f} in the dream, {np.mean(real['outcomes']):.2f}", flush=True)
    return read_object(file)["outcomes"]


def summary(outcomes: Mapping[str, np.ndarray], real: np.ndarray, policy: np.ndarray, start: np.ndarray) -> list[dict]:
    """How many failures and successes succeed in every world model, and the difference to the first one.

    Args:
        outcomes: Of every trial in each world model; 0 or 1.
        real: Of the same trials in the simulator.
        policy: Number of the policy of each trial.
        start: Seed of its start; the bootstrap (95%) draws starts, with the trials of all policies from them.

    Returns:
        A row for each world model: `failures` and `successes` with `share`, `interval`, `change` to the first world
        model and its `change_interval` and `n`, all but `n` are `None` without such a trial; `r`, Pearson's between the
        policies' successes in the dream and the real ones, `None` where either are equal, and `bias`, dreamed minus
        real successes.
    """
    first, rows = next(iter(outcomes)), []
    names = np.unique(policy)
    rates = [real[policy == each].mean() for each in names]
    for world, dreamed in outcomes.items():
        row: dict = {"world": world}
        for kind, mask in (("failures", real == 0), ("successes", real == 1)):
            row[kind] = _part(dreamed[mask], outcomes[first][mask], start[mask])
        means = [dreamed[policy == each].mean() for each in names]
        row["r"] = float(np.corrcoef(means, rates)[0, 1]) if np.ptp(means) > 0 and np.ptp(rates) > 0 else None
        row["bias"] = float((dreamed - real).mean())
        rows.append(row)
    return rows


def _part(dreamed: np.ndarray, before: np.ndarray, start: np.ndarray) -> dict:
    if not len(dreamed):
        return dict.fromkeys(("share", "interval", "change", "change_interval")) | {"n": 0}
    change = dreamed - before
    return {
        "share": float(dreamed.mean()),
        "interval": bootstrap_interval(dreamed, start),
        "change": float(change.mean()),
        "change_interval": bootstrap_interval(change, start),
        "n": len(dreamed),
    }


def printed(rows: Sequence[Mapping]) -> str:
    """A Markdown table."""
    head = ["world", "failures that succeed", "change", "successes that succeed", "change", "r over policies", "bias"]
    cells = []
    for row in rows:
        line = [row["world"]]
        for kind in ("failures", "successes"):
            part = row[kind]
            if not part["n"]:
                line += ["-", "-"]
                continue
            line += [
                f"{part['share']:.3f} {_between(part['interval'])} of {part['n']}",
                f"{part['change']:+.3f} {_between(part['change_interval'])}",
            ]
        line += ["-" if row["r"] is None else f"{row['r']:.3f}", f"{row['bias']:+.3f}"]
        cells.append(line)
    return table(head, cells)


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def main(config: ReplayBenchmark) -> None:
    """Make the trials, replay them in every world model, print the table.

    Raises:
        ValueError: No world model is named.
    """
    if not config.worlds:
        raise ValueError("--worlds: name at least one world model, as in before checkpoints/pusht")
    specs = find_policies([config.policies])
    setups = {name: config.setup(world) for name, world in config.worlds.items()}
    first = next(iter(setups.values()))
    with single_thread():
        trials = {name: real_trials(config, first, name, spec) for name, spec in specs.items()}
        outcomes = {
            world: np.concatenate([replayed(config, setup, world, name, real) for name, real in trials.items()])
            for world, setup in setups.items()
        }
    real = np.concatenate([each["outcomes"] for each in trials.values()])
    start = np.concatenate([each["seeds"] for each in trials.values()])
    policy = np.repeat(np.arange(len(trials)), [len(each["seeds"]) for each in trials.values()])
    rows = summary(outcomes, real, policy, start)
    write_json(config.out / "replays.json", {"rows": rows, "policies": list(specs), "trials": len(real)})
    print(printed(rows))


if __name__ == "__main__":
    main(tyro.cli(ReplayBenchmark, description=__doc__))
