"""Abstention in a ranking: its options, its limit, and the dreams that it leaves undecided."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from policy_eval.abstention.calibrate import Limit, calibrate, replay
from policy_eval.abstention.signals import Kind, SignalSetup, Trace
from policy_eval.abstention.verdicts import Bounds, decided, unsure_from
from policy_eval.evaluation import Fault
from policy_eval.ranking.setup import TrialSetup
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.data.options import DataOptions, DataPath
from worldmodel.display.ranges import ErrorRate
from worldmodel.dreams.starts import Starts
from worldmodel.files import read_object, write_json


@dataclass(frozen=True)
class AbstainOptions:
    """When a dreamed trial is unsure, so that it is left out of the ranking and counted."""

    abstain: Kind = "none"
    """Say of each dream from which step on it is not to be trusted. With inverse-dynamics this is where the actions
    decoded from the frames differ from those that the policy gave; with seeds, where a second dream of the same actions
    differs. Such a trial is unsure, unless it has succeeded before. The policies are then ranked by their other trials,
    and you are told how many those are and between which two rates the success of all trials lies. In PushT-Position
    neither signal told wrong dreams from right ones, so look at the report before you believe it."""
    abstain_data: DataPath | None = None
    """Recorded episodes that set the limit of --abstain, with `next.success` and with actions like those of the
    policies, such as real rollouts of them; other episodes than those of --data. The world model dreams them again.
    At most a share --abstain-error of the recordings, and of the dreams that end as the recording did, is above it."""
    abstain_error: ErrorRate = 0.1
    """Share of faithful dreams that may be called unsure, above 0 and below 0.5. With 0.1 it takes at least 9 dreams
    that end as the recording did."""
    inverse_dynamics: str | Path | None = None
    """Folder of inverse dynamics that `worldmodel inverse-dynamics` trained, or hf://USER/NAME@REV; for --abstain
    inverse-dynamics."""

    @property
    def signal(self) -> SignalSetup:
        """The signal that is computed of every dream."""
        return SignalSetup(self.abstain, self.inverse_dynamics)

    def check(self) -> None:
        """Raise a `ValueError` for options that are missing, out of range, or of no effect."""
        if self.abstain == "none":
            given = {"--abstain-data": self.abstain_data, "--inverse-dynamics": self.inverse_dynamics}
            named = [name for name, value in given.items() if value is not None]
            if named:
                raise ValueError(
                    f"{' and '.join(named)}: of no effect without --abstain; add --abstain inverse-dynamics"
                )
            return
        if self.abstain_data is None:
            raise ValueError(
                f"--abstain {self.abstain} needs recorded episodes that set its limit, --abstain-data DATA"
            )
        if (self.abstain == "inverse-dynamics") != (self.inverse_dynamics is not None):
            raise ValueError(
                f"--inverse-dynamics goes with --abstain inverse-dynamics; got --abstain {self.abstain} and "
                f"--inverse-dynamics {self.inverse_dynamics}"
            )


def limit_of(options: AbstainOptions, setup: TrialSetup, out: Path) -> Limit:
    """The limit of the signal, from `abstention.json` in `out` if it was set before with the same settings.

    Raises:
        ValueError: The recordings do not fit the world model or have no `next.success`, or too few of their dreams end
            as they did.
    """
    world, size = setup.loaded_world, tuple(setup.loaded_world.size)
    source = open_episodes(options.abstain_data, size, world.views, DataOptions(**asdict(setup.columns)))
    dream = {**setup.made_with["dream"], "horizon": setup.horizon}
    made_with = json.loads(json.dumps({"data": source.fingerprint, "error": options.abstain_error, **dream}))
    file = out / "abstention.json"
    if file.is_file():
        stored = read_object(file)
        if stored.get("made_with") == made_with:
            return Limit(**stored["limit"])
    starts = Starts(source)
    settings = {"num_steps": setup.num_steps, "seed": setup.seed}
    signal = options.signal.load(world, starts, **settings)
    replays = replay(
        world, setup.loaded_judge, starts, horizon=setup.horizon, batch=setup.num_envs, log=out / "rank.log", **settings
    )
    limit = calibrate(signal, replays, options.abstain_error, source.name)
    write_json(file, {"limit": limit.to_json(), "made_with": made_with})
    return limit


@dataclass(frozen=True)
class Abstained:
    """The dreams of a ranking that abstains.

    Attributes:
        kind: Name of the signal.
        limit: Its limit.
        traces: The signal of each dream, by policy and by seed of the start.
        dreams: All dreams that would count without abstention, by policy.
    """

    kind: str
    limit: Limit
    traces: Mapping[str, Mapping[int, Trace]]
    dreams: Mapping[str, Scores]

    def breaks(self, policy: str) -> dict[int, int | None]:
        """The step from which each dream of a policy is unsure, `None` for one that is to be trusted, by seed."""
        return {seed: unsure_from(trace, self.limit.value) for seed, trace in self.traces.get(policy, {}).items()}

    def decided(self) -> tuple[dict[str, Scores], list[dict]]:
        """The dreams that are decided, by policy, and a row for each of the others; a policy without any is missing."""
        found, rows = {}, []
        for name, scores in self.dreams.items():
            breaks = self.breaks(name)
            kept = decided(scores, breaks)
            if kept.any():
                found[name] = scores.rows(kept)
            for seed in scores.seeds[~kept].tolist():
                reason = f"not to be trusted from step {breaks[seed]} on ({self.kind})"
                rows.append({"policy": name, "place": "dream", **asdict(Fault(seed, "dream", reason))})
        return found, rows

    def to_json(self) -> dict:
        """What `ranking.json` says: the limit; of every policy its bounds, the steps, and the signal over time."""
        policies = []
        for name, scores in self.dreams.items():
            breaks = self.breaks(name)
            kept = decided(scores, breaks)
            left_out = {str(seed): breaks[seed] for seed in scores.seeds[~kept].tolist()}
            row = {"name": name, **asdict(Bounds.of(scores.outcomes, kept)), "unsure_from": left_out}
            policies.append({**row, "upper": upper(self.traces.get(name, {}))})
        return {"signal": self.kind, "limit": self.limit.to_json(), "policies": policies}


def upper(traces: Mapping[int, Trace]) -> list[float]:
    """The signal that one dream in ten exceeds, at each step, of the dreams that get so far."""
    longest = max((len(trace) for trace in traces.values()), default=0)
    rows = [[trace[step] for trace in traces.values() if len(trace) > step] for step in range(longest)]
    return [float(np.quantile(row, 0.9)) for row in rows]
