"""Do dreams rank policies better if they say when not to trust them? A good world model and a worse one, three signals.

```
python benchmarks/abstention.py --worlds good checkpoints/pusht early 10ebcd38:checkpoints/pusht \
    --inverse-dynamics runs/inverse-dynamics --known runs/rollouts --out runs/abstention.json
```

Policies of known real success (`real.json` beside them) dream from the same starts in every world model. A dream may
be unsure because the decoded actions are not the commanded ones (`inverse-dynamics`), because a second dream of the
same actions differs (`seeds`), or because the judge cannot tell (`judge`, two conformal thresholds). Rollouts with
other starts set all limits, by the dreams of their actions; `recordings` is inverse dynamics with a limit from
recorded frames alone. `censored` counts a dream as long as it is trusted, as the Kaplan-Meier estimate does. Killed,
the command continues where it stood.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import tyro
from abstention_tables import Dreams, detection, printed, printed_detection, summary
from jaxtyping import Float64
from torch import Tensor

from policy_eval.abstention.calibrate import limit_by, peaks, replay
from policy_eval.abstention.signals import Signal, SignalSetup
from policy_eval.abstention.verdicts import find_limit, unsure_from
from policy_eval.evaluation import Trial, evaluate
from policy_eval.judge.calibration.conformal import Band, conformal_band
from policy_eval.judge.find import load_trained
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.ranking.outcomes import read_outcomes
from policy_eval.ranking.setup import TrialSetup
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.envs.record import SEED_STRIDE, RecordConfig, record
from worldmodel.files import read_object, write_json
from worldmodel.processes import work_through
from worldmodel.processes.workers import Workers
from worldmodel.streaming.state import Observation

KINDS = ("inverse-dynamics", "seeds")


@dataclass(frozen=True)
class AbstentionBenchmark:
    """Which worlds, policies and rollouts."""

    worlds: dict[str, str]
    """World models by name, as in good checkpoints/pusht early 10ebcd38:checkpoints/pusht. COMMIT:FOLDER is what the
    repository had at a commit, here the same world model after fewer training steps."""
    inverse_dynamics: Path
    """Folder of inverse dynamics."""
    known: Path
    """Real rollouts that set the limits; from other starts than those of `real.json`."""
    out: Path = Path("runs/benchmarks/abstention.json")
    """Where the figures go; the finished dreams are in the folder beside it."""
    task: str = "pusht-position"
    """The environment."""
    policies: Path = Path("checkpoints/policies/pusht-position")
    """Folder of policies and of `real.json`."""
    judge: Path = Path("checkpoints/judges/pusht-position")
    """The judge."""
    horizon: int = 60
    """Most steps of a trial."""
    episodes: int = 40
    """Starts of each policy, the first ones of `real.json`; with 0 only the dreams of the rollouts are made, and the
    signals are held against how these end."""
    recordings: int = 64
    """Rollouts that set the limits, the first ones."""
    batch: int = 20
    """Dreams side by side."""
    error: float = 0.1
    """Share of faithful trials that may be called unsure, and the error of the judge's two thresholds."""
    num_steps: int = 2
    """Denoising steps per frame."""
    resamples: int = 2000
    """Bootstrap samples of each interval."""
    workers: int = 2
    """Processes, each with one thread."""
    seed: int = 0
    """Seed of dreams and resampling."""

    @property
    def cells(self) -> Path:
        """Folder of the finished dreams."""
        return self.out.with_suffix("")


class Remembering:
    """A judge that keeps the scores of every step; it calls a success only where it is told to.

    Args:
        judge: The judge.
        calls: Whether it calls successes.
    """

    def __init__(self, judge: LearnedJudge, *, calls: bool):
        self.judge, self.calls = judge, calls
        self.heard: list[Tensor] = []

    def __call__(self, observation: Observation) -> Verdict:
        """The judge's reward, and its success or none."""
        scores, rewards = self.judge.predict(observation.frames)
        self.heard.append(scores.double().cpu())
        return Verdict(rewards, (scores > self.judge.threshold) & self.calls)

    def told(self) -> Float64[np.ndarray, "b t"]:
        """The scores so far, which are then forgotten."""
        scores = torch.stack(self.heard, dim=1).numpy()
        self.heard = []
        return scores


@dataclass(frozen=True)
class Place:
    """A world model with what is needed to dream in it.

    Attributes:
        config: The settings.
        name: Name of the world model.
        starts: Folder of the starts.
    """

    config: AbstentionBenchmark
    name: str
    starts: Path

    @cached_property
    def setup(self) -> TrialSetup:
        """World, judge, starts and simulator."""
        config = self.config
        return TrialSetup(
            config.worlds[self.name],
            config.judge,
            self.starts,
            max(config.episodes, 1),
            config.horizon,
            config.task,
            config.num_steps,
            config.batch,
            config.seed,
            device="cpu",
        )

    def signals(self, starts: Starts) -> dict[str, Signal]:
        """Both signals."""
        settings = {"num_steps": self.config.num_steps, "seed": self.config.seed}
        folders = {"inverse-dynamics": self.config.inverse_dynamics, "seeds": None}
        return {
            kind: SignalSetup(kind, folders[kind]).load(self.setup.loaded_world, starts, **settings) for kind in KINDS
        }

    def known(self) -> dict:
        """Outcomes of the rollouts and of the dreams of their actions, with the highest scores and signals of each."""
        config, setup = self.config, self.setup
        world = setup.loaded_world
        source = open_episodes(config.known, tuple(world.size), world.views)
        starts = Starts(source, range(min(config.recordings, len(source))))
        judge = Remembering(setup.loaded_judge, calls=True)
        settings = {"horizon": config.horizon, "num_steps": config.num_steps, "seed": config.seed}
        batch = len(starts)  # so that the scores are those of one batch
        replays = replay(world, judge, starts, **settings, batch=batch, log=config.cells / f"{self.name}.log")
        signals = self.signals(starts)
        return {
            "real": [trial.outcome for trial in replays.recorded],
            "dreamed": [trial.outcome for trial in replays.dreamed],
            "judge": judge.told().max(1).tolist(),
            **{kind: peaks(signal, replays.dreamed).tolist() for kind, signal in signals.items()},
            "recordings": peaks(signals["inverse-dynamics"], replays.recorded).tolist(),
        }

    def dream(self, policy: str, spec: str | Path, rows: range) -> dict:
        """Judge's scores and both signals of a policy's dreams from some starts."""
        setup = self.setup
        judge = Remembering(setup.loaded_judge, calls=False)
        trials: list[Trial] = []
        envs = DreamEnv(
            setup.loaded_world,
            setup.loaded_starts,
            judge,
            num_envs=len(rows),
            horizon=setup.horizon,
            num_steps=setup.num_steps,
            seed=setup.seed,
            like=setup.like,
            autoreset_mode="DISABLED",
        )
        evaluate(load_policy(spec), envs, name=policy, starts=rows, horizon=setup.horizon, record=trials.append)
        scores = judge.told()
        ended = [cut(trial, row, setup.loaded_judge.threshold) for trial, row in zip(trials, scores, strict=True)]
        traces = {kind: signal(ended) for kind, signal in self.signals(setup.loaded_starts).items()}
        found = {"start": [trial.seed for trial in trials], "scores": scores.tolist()}
        return found | {kind: [trace.tolist() for trace in some] for kind, some in traces.items()}


def cut(trial: Trial, scores: Float64[np.ndarray, "t"], threshold: float) -> Trial:
    """A dream up to its first success, as a ranking would end it."""
    steps, outcome = ending(scores, threshold)
    states = None if trial.states is None else trial.states[: steps + 1]
    return Trial(trial.seed, outcome, trial.frames[: steps + 1], trial.actions[:steps], states)


def ending(scores: Float64[np.ndarray, "t"], threshold: float) -> tuple[int, float]:
    """Steps up to the first success or the end, and the outcome."""
    above = np.flatnonzero(scores > threshold)
    return (int(above[0]) + 1, 1.0) if len(above) else (len(scores), 0.0)


@dataclass(frozen=True)
class Call:
    """One unit of work: some dreams of one policy, or without a policy the dreams of the rollouts."""

    world: str
    policy: str = ""
    spec: str | Path = ""
    rows: range = range(0)

    def file(self, config: AbstentionBenchmark) -> Path:
        """Where its result is kept."""
        name = f"{self.policy}/{self.rows.start}-{self.rows.stop}" if self.policy else "known"
        return config.cells / self.world / f"{name}.json"


def _prepare(config: AbstentionBenchmark, starts: Path) -> None:
    """Set up a process with one thread."""
    global _places
    torch.set_num_threads(1)
    _places = {name: Place(config, name, starts) for name in config.worlds}


def _work(call: Call) -> dict:
    place = _places[call.world]
    return place.dream(call.policy, call.spec, call.rows) if call.policy else place.known()


def run(config: AbstentionBenchmark, calls: Sequence[Call], starts: Path) -> None:
    """Do what is not done yet, in several processes."""
    missing = [call for call in calls if not call.file(config).exists()]
    workers = Workers(config.workers)
    with closing(work_through(_work, missing, workers=workers, start=_prepare, start_with=(config, starts))) as done:
        for count, (index, found) in enumerate(done, 1):
            file = missing[index].file(config)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, found)
            print(f"{count} of {len(missing)}: {file.relative_to(config.cells)}", flush=True)


def limits(config: AbstentionBenchmark, known: Mapping, threshold: float) -> dict:
    """The limits of both signals, of `recordings`, and the judge's two thresholds."""
    columns = {name: np.array(values) for name, values in known.items()}
    same, name = columns["real"] == columns["dreamed"], str(config.known)
    found: dict = {"limits": {}, "about": {}}
    for kind in KINDS:
        recorded = columns["recordings"] if kind == "inverse-dynamics" else None
        limit = limit_by(columns[kind], same, recorded, config.error, name)
        found["limits"][kind], found["about"][kind] = limit.value, limit.to_json()
    found["limits"]["recordings"] = find_limit([columns["recordings"]], config.error, name)
    band = conformal_band(columns["judge"], columns["real"], threshold, config.error, name)
    return found | {"threshold": band.threshold, "doubt": band.doubt}


def dreams_of(known: Mapping, threshold: float, parts: Mapping[str, Sequence[Mapping]]) -> Dreams:
    """The outcomes of all dreams in a world model, with those that each way of abstaining leaves undecided."""
    band = Band(known["threshold"], known["doubt"])
    columns: dict[str, list] = {name: [] for name in ("start", "outcomes", "steps", "judge", *known["limits"])}
    for some in parts.values():
        row: dict[str, list] = {name: [] for name in columns}
        for part in some:
            for index, seed in enumerate(part["start"]):
                scores = np.array(part["scores"][index])
                steps, outcome = ending(scores, threshold)
                row["start"].append(seed)
                row["outcomes"].append(outcome)
                row["steps"].append(steps)
                row["judge"].append(float(band.verdicts(scores.max(keepdims=True))[0]))
                for kind, limit in known["limits"].items():
                    trace = np.array(part["inverse-dynamics" if kind == "recordings" else kind][index])
                    begin = unsure_from(trace, limit)
                    row[kind].append(np.nan if begin is None else begin)
        for name, values in row.items():
            columns[name].append(values)
    arrays = {name: np.array(values, float) for name, values in columns.items()}
    breaks = {kind: arrays[kind] for kind in known["limits"]}
    return Dreams(arrays["start"][0].astype(int), arrays["outcomes"], arrays["steps"], arrays["judge"], breaks)


def check_settings(config: AbstentionBenchmark) -> None:
    """Raise a `ValueError` if the finished dreams were made with other settings; those of the figures may differ."""
    free = ("workers", "resamples", "out", "error", "episodes")
    values = {name: value for name, value in asdict(config).items() if name not in free}
    now = json.loads(json.dumps(values, default=str))
    file = config.cells / "settings.json"
    if not file.exists():
        write_json(file, now)
    before = read_object(file)
    other = [f"{name} {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]
    if other:
        raise ValueError(f"{file}: made with {'; '.join(other)}; choose another --out")


def fetched(config: AbstentionBenchmark) -> AbstentionBenchmark:
    """The settings with the world models of earlier commits written to folders."""
    folders = {}
    for name, spec in config.worlds.items():
        commit, _, inside = str(spec).partition(":")
        folders[name] = spec
        if inside:
            folders[name] = str(config.cells / "worlds" / name / inside)
            packed = subprocess.run(["git", "archive", commit, inside], capture_output=True, check=True).stdout
            with tarfile.open(fileobj=io.BytesIO(packed)) as files:
                files.extractall(config.cells / "worlds" / name, filter="data")
    return replace(config, worlds=folders)


def record_starts(config: AbstentionBenchmark, stored: Scores) -> Path:
    """Two steps of every episode with the reset seeds of the stored trials; who acts in them is of no account."""
    out = config.cells / "starts"
    first = int(stored.seeds[0])
    if stored.seeds.tolist() != list(range(first, first + len(stored))) or first % SEED_STRIDE:
        raise ValueError(f"{config.policies}/real.json: has other seeds than `worldmodel record` gives")
    if not (out / "meta" / "info.json").is_file():
        number, seed = max(config.episodes, 1), first // SEED_STRIDE
        record(RecordConfig(config.task, out, episodes=number, seed=seed, horizon=2, behaviour="play", workers=1))
    return out


def main(config: AbstentionBenchmark) -> None:
    """Dream, set the limits, print how well every way of abstaining ranks."""
    config.cells.mkdir(parents=True, exist_ok=True)
    check_settings(config)
    config = fetched(config)
    policies = find_policies([config.policies])
    real = read_outcomes(config.policies / "real.json", policies)
    starts = record_starts(config, next(iter(real.values())))
    batches = [range(i, min(i + config.batch, config.episodes)) for i in range(0, config.episodes, config.batch)]
    dreams = [Call(w, name, spec, rows) for rows in batches for name, spec in policies.items() for w in config.worlds]
    run(config, [*map(Call, config.worlds), *dreams], starts)
    truth = np.array([each.outcomes for each in real.values()])
    seeds = next(iter(real.values())).seeds
    threshold = load_trained(config.judge).threshold
    options = {"resamples": config.resamples, "seed": config.seed}
    found = {}
    for world in config.worlds:
        measured = read_object(Call(world).file(config))
        known = limits(config, measured, threshold)
        found[world] = {"known": known, "detection": detection(measured, **options)}
        if config.episodes:
            mine = [call for call in dreams if call.world == world]
            parts = {name: [read_object(c.file(config)) for c in mine if c.policy == name] for name in policies}
            found[world] |= summary(dreams_of(known, threshold, parts), seeds, truth, **options)
    write_json(config.out, {"policies": list(policies), "worlds": found})
    print(printed(found) if config.episodes else printed_detection(found))


if __name__ == "__main__":
    main(tyro.cli(AbstentionBenchmark, description=__doc__))
