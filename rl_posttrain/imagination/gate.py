"""No harm: check the world model before a policy is improved in it, and the policy before it replaces the clone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from policy_eval.judge.find import judge_fingerprint
from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.before_after import before_after
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.dreams import Setting, dream
from rl_posttrain.imagination.learner import Learner
from worldmodel.fidelity.intervals import TOO_FEW, bootstrap_interval
from worldmodel.model.folder import fingerprint
from worldmodel.training.share import share

UNKNOWN = (
    "It is not known whether this world model ranks policies correctly: run `worldmodel rank --real` "
    "and pass its ranking.json with --ranking. If it does not, the dreams improve while the policy "
    "gets worse."
)
WORST_STANDING = 0.1  # share of perfect simulators with as many trials that do no better


def check_ranking(file: Path | None, world: str | Path, judge: str | Path) -> str:
    """What a `ranking.json` says of a world model and a judge, in a sentence.

    Args:
        file: Written by `worldmodel rank` with real trials; `None` when there is none.
        world: Folder of the world model, or `hf://USER/NAME@REV`.
        judge: Folder of the judge.

    Raises:
        ValueError: The file is not a ranking, was made with another world model or has no
            correlations; or the dream ranks worse than nine in ten perfect simulators.
    """
    if file is None:
        return UNKNOWN
    try:
        report = json.loads(file.read_text())
        ranked, agreement = report["made_with"]["dream"], report["agreement"]
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: no ranking.json of `worldmodel rank`: {error!r}") from error
    if ranked["world"] != fingerprint(world):
        raise ValueError(f"{file}: made with world model {ranked['world']}, {world} is {fingerprint(world)}")
    if agreement is None or agreement["refusal"] is not None:
        why = "no real trials" if agreement is None else agreement["refusal"]
        raise ValueError(f"{file}: does not say how well dream and reality agree: {why}")
    pearson, ceiling = agreement["pearson"], agreement["noise_ceiling"]["pearson"]
    figures = f"Pearson {pearson['value']:.2f}, nine in ten perfect simulators {ceiling['p10']:.2f}"
    if pearson["standing"] < WORST_STANDING:
        raise ValueError(
            f"{file}: this dream does not rank policies ({figures}), so a policy that improves in "
            "it may get worse; without --ranking the run begins nevertheless"
        )
    by = "" if ranked["judge"] == judge_fingerprint(judge) else ", with another judge"
    return f"This dream ranks policies about as a perfect simulator would{by} ({figures})."


@dataclass(frozen=True)
class Confirmation:
    """The best policy against the clone, from the same starts.

    Attributes:
        clone: Share of the clone's trials that succeed.
        learner: Share of those of the best policy.
        interval: Of the paired difference, 95%, from a bootstrap over episodes; `None` with fewer than two episodes.
        n: Trials of each.
    """

    clone: float
    learner: float
    interval: tuple[float, float] | None
    n: int

    @property
    def gains(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.interval is not None and self.interval[0] > 0

    def sentence(self, trials: str) -> str:
        """What was found in `trials`, dreams or real ones."""
        if self.interval is None:
            known = TOO_FEW
        else:
            low, high = self.interval
            known = f"95% interval of the difference {low:+.0%} to {high:+.0%}"
        return (
            f"In {self.n} {trials} the clone succeeds in {self.clone:.0%} and the best policy in {self.learner:.0%} "
            f"({known})"
        )


def compare(
    clone: Float64[np.ndarray, "n"], learner: Float64[np.ndarray, "n"], episodes: Int64[np.ndarray, "n"]
) -> Confirmation:
    """Outcomes of both policies, 0 or 1, from the same starts of the given episodes."""
    interval = bootstrap_interval(learner - clone, episodes, resamples=4000)
    return Confirmation(float(clone.mean()), float(learner.mean()), interval, len(clone))


def confirm(config: ImagineConfig, setting: Setting, clone: ClonedPolicy, report: dict[str, Any]) -> dict[str, Any]:
    """Compare the kept policy with the clone in dreams from fresh starts, and keep the clone unless it is better.

    The best of several measured policies is too good on the starts by which it was chosen; these starts are others.
    This is a comparison in dreams: where the world model or the judge is wrong, so is this, see `check_ranking`.

    Returns:
        The report with `kept`, the update of the kept policy (0 for the clone), and `confirmation`.
    """
    kept = report["best"]["step"]
    if kept == 0 or config.confirm == 0:
        return report | {"kept": kept, "confirmation": None}
    policies = clone, ClonedPolicy.load(config.out, clone.action_mean.device)
    outcomes = []
    for policy in policies:
        learner = Learner(policy, config.learn).to(policy.action_mean.device).eval()
        options = {"horizon": config.validation_horizon, "seed": 1_000_003, "noise_seeds": 1, "explore": False}
        imagined = dream(config, setting, learner, setting.fresh, **options)
        outcomes.append(imagined.solved.double().cpu().numpy())
    found = compare(*outcomes, setting.fresh.episodes)
    print(found.sentence("dreams from fresh starts") + ("." if found.gains else ": no sure gain, the clone is kept."))
    if not found.gains and share().first:
        clone.save(config.out, dtype=torch.float32)
    return report | {"kept": kept if found.gains else 0, "confirmation": asdict(found)}


def confirm_for_real(
    config: ImagineConfig, clone: ClonedPolicy, report: dict[str, Any], *, stride: int
) -> dict[str, Any]:
    """Let the kept policy and the clone act in the real environment, and keep the clone if it succeeds as often.

    No comparison in dreams can see that the dreams themselves are wrong; this one can.

    Returns:
        The report with `kept` and `confirmation_for_real`.

    Raises:
        ValueError: There are fewer recorded starts than trials.
    """
    scores = before_after(
        {"before": config.policy, "after": config.out},
        config.real,
        config.data if config.real_data is None else config.real_data,
        config.out / "videos",
        videos=config.videos,
        horizon=config.video_steps,
        episodes=max(config.real_trials, config.videos),
        stride=stride,
    )
    found = compare(scores["before"].outcomes, scores["after"].outcomes, scores["before"].seeds)
    harmless = report["kept"] == 0 or found.learner > found.clone
    print(found.sentence("real trials") + ("." if harmless else ": not more often, the clone is kept."))
    if not harmless:
        clone.save(config.out, dtype=torch.float32)
    return report | {"kept": report["kept"] if harmless else 0, "confirmation_for_real": asdict(found)}
