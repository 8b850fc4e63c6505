"""Does a judge with two thresholds keep its promise on rollouts that did not set them?

    python benchmarks/rollouts.py --task pusht-position --episodes 320 --seed 91 --out data/pusht-careful
    python benchmarks/conformal.py --judge checkpoints/judges/pusht-position --data data/pusht-careful --horizon 60

The rollouts are cut in half at random, many times: one half sets the thresholds (`worldmodel calibrate --error`), the
other one is fresh. Every figure is the mean over the cuts, with the 2.5% and 97.5% quantiles over them in brackets.
With `--world` and `--policies` the judge sees dreams from the starts of the rollouts, and is compared with what
happened for real.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float64

from policy_eval.judge.calibration.calibrate import CalibrateConfig, counts, dreams_and_outcomes
from policy_eval.judge.calibration.conformal import Band, conformal_band
from policy_eval.judge.find import load_trained
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.model.precision import command_device
from worldmodel.processes import single_thread

COLUMNS = ("thresholds", "failures called a success", "successes called a failure", "decided", "wrong among decided")


@dataclass(frozen=True)
class ConformalConfig:
    """Which judge to try, and on what."""

    judge: str
    """Folder of the judge."""
    data: Path
    """Real rollouts that neither the judge nor the world model was trained on."""
    horizon: int
    """Most steps of a trial."""
    out: Path = Path("runs/benchmarks/conformal.json")
    """Where the figures go."""
    world: str | None = None
    """Folder of the world model that dreams; without it the recorded frames count."""
    policies: tuple[str, ...] = ()
    """Folders of the policies of the rollouts; goes with --world."""
    errors: tuple[float, ...] = (0.05, 0.1, 0.2)
    """Errors to ask for."""
    cuts: int = 300
    """Number of random cuts."""
    episodes: int | None = None
    """Rollouts to use, the first ones; by default all."""
    seed: int = 0
    """Seed of the cuts."""
    device: str = "auto"
    """Where the networks run."""


def main(config: ConformalConfig) -> None:
    """Score the rollouts once, cut them many times, print a table."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    device = command_device(config.device)
    judge = load_trained(config.judge, device)
    reading = CalibrateConfig(
        config.judge,
        config.data,
        config.out.parent,
        config.horizon,
        world=config.world,
        policies=config.policies,
        error=config.errors[0],
        episodes=config.episodes,
        seed=config.seed,
    )
    with single_thread():
        _, scores, real, _ = dreams_and_outcomes(reading, judge, device)
    rows = [("as it was", *shown(tried(config, scores, real, judge.threshold, None)))]
    for error in config.errors:
        rows.append((f"error {error:g}", *shown(tried(config, scores, real, judge.threshold, error))))
    text = [f"{len(real)} rollouts, {real.mean():.0%} succeed", "", table(COLUMNS, rows)]
    write_json(config.out, {"rollouts": len(real), "real": float(real.mean()), "columns": COLUMNS, "rows": rows})
    print("\n".join(text))


def tried(
    config: ConformalConfig,
    scores: Float64[np.ndarray, "e"],
    real: Float64[np.ndarray, "e"],
    threshold: float,
    error: float | None,
) -> Float64[np.ndarray, "cuts 4"]:
    """The four shares of fresh halves, one row for each cut."""
    generator, found = np.random.default_rng(config.seed), []
    for _ in range(config.cuts):
        order = generator.permutation(len(real))
        known, fresh = order[: len(order) // 2], order[len(order) // 2 :]
        band = Band(threshold, None)
        if error is not None:
            band = conformal_band(scores[known], real[known], threshold, error, str(config.data))
        verdicts = band.verdicts(scores[fresh])
        said, outcomes = counts(verdicts, real[fresh]), real[fresh]
        decided = len(fresh) - said["unsure"]
        wrong = said["false_successes"] + said["false_failures"]
        found.append(
            (
                said["false_successes"] / max((outcomes == 0).sum(), 1),
                said["false_failures"] / max((outcomes == 1).sum(), 1),
                decided / len(fresh),
                wrong / max(decided, 1),
            )
        )
    return np.array(found)


def shown(found: Float64[np.ndarray, "cuts 4"]) -> list[str]:
    """Means, with quantiles over the cuts in brackets."""
    low, high = np.quantile(found, (0.025, 0.975), axis=0)
    return [f"{m:.1%} [{a:.0%}, {b:.0%}]" for m, a, b in zip(found.mean(0), low, high, strict=True)]


if __name__ == "__main__":
    main(tyro.cli(ConformalConfig))
