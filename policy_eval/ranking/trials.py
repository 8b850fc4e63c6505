"""The trials of a ranking, split into cells. Processes share the cells, and finished cells survive a kill.

A worker returns what a cell gave, and the process that asked writes it: a worker may be on another machine.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from policy_eval.abstention.signals import Trace
from policy_eval.evaluation import Fault, Trial, evaluate
from policy_eval.policies.find import load_policy, policy_fingerprint
from policy_eval.policies.needs import check_fits
from policy_eval.policies.policy import Observations
from policy_eval.ranking.setup import TrialSetup
from policy_eval.scores import Scores
from worldmodel.files import read_object, write_json
from worldmodel.model.precision import choose_device
from worldmodel.processes import work_through
from worldmodel.processes.workers import ALONE, Workers

Actions = dict[int, list[list[float]]]
"""The recorded actions of trials, by reset seed."""


@dataclass(frozen=True)
class Cell:
    """Some trials of one policy in one place: one unit of work, stored in one file.

    Attributes:
        place: `dream`, `real`, or `replay`: a dream under the actions of failed real trials.
        policy: Name of the policy.
        spec: Folder or `module:name` of the policy.
        starts: Indices of the starts.
    """

    place: str
    policy: str
    spec: str | Path
    starts: tuple[int, ...]

    def file(self, out: Path) -> Path:
        """Where its outcomes are kept."""
        return out / "cells" / self.place / self.policy / f"{self.starts[0]}-{self.starts[-1]}.json"


class Replay:
    """A policy that carries out recorded actions again, by reset seed.

    Args:
        actions: The actions of each seed, in order; the last one is repeated.
    """

    def __init__(self, actions: dict[int, Sequence[Sequence[float]]]):
        self.actions = actions

    def reset(self, seeds: Sequence[int]) -> None:
        """Begin the episodes of these seeds."""
        self.rows = [self.actions[seed] for seed in seeds]
        self.step = 0

    def act(self, observation: Observations) -> torch.Tensor:
        """The recorded actions of this step."""
        chosen = [row[min(self.step, len(row) - 1)] for row in self.rows]
        self.step += 1
        return torch.tensor(chosen, dtype=torch.float32)


def check_policies(setup: TrialSetup, policies: Mapping[str, str | Path]) -> None:
    """Load every policy once, and compare what it needs with what the dreams give.

    Raises:
        ValueError: A policy cannot be loaded or does not fit.
    """
    starts = setup.loaded_starts
    for name, spec in policies.items():
        check_fits(load_policy(spec, choose_device(setup.device)), *starts.spaces(), name, starts.tasks)


def cut(places: Sequence[str], policies: Mapping[str, str | Path], starts: Sequence[int], size: int) -> list[Cell]:
    """Cells of at most `size` starts, for every policy in every place."""
    batches = [tuple(starts[i : i + size]) for i in range(0, len(starts), size)]
    return [Cell(place, name, spec, batch) for batch in batches for name, spec in policies.items() for place in places]


def run_cells(
    setup: TrialSetup,
    cells: Sequence[Cell],
    out: Path,
    *,
    workers: Workers = ALONE,
    progress: Callable[[Cell], None] = lambda cell: None,
) -> None:
    """Run the cells whose files do not exist yet, each in one process with one thread.

    Args:
        setup: The setup of the trials.
        cells: The cells to run.
        out: Folder of the files.
        workers: Who runs them.
        progress: Called with every finished cell.

    Raises:
        ValueError: The file of a cell was made with another setup, or a worker cannot run.
    """
    missing = []
    for cell in cells:
        if cell.file(out).exists():
            read_cell(setup, cell, out)
            progress(cell)
        else:
            missing.append(cell)
    if workers.alone or (len(missing) < 2 and not workers.cluster):
        for cell in missing:
            run_cell(setup, cell, out)
            progress(cell)
        return
    calls = [(cell, actions_for(setup, cell, out)) for cell in missing]
    theirs = replace(setup, device=workers.device(setup.device))  # a copy, without what the setup has loaded
    with closing(work_through(_work, calls, workers=workers, start=_prepare, start_with=(theirs,))) as done:
        for index, contents in done:
            keep(missing[index], contents, out)
            progress(missing[index])


def read_cell(setup: TrialSetup, cell: Cell, out: Path) -> dict:
    """The contents of a cell's file.

    Raises:
        ValueError: The file was made with another setup; the message names the difference.
    """
    file = cell.file(out)
    stored = read_object(file)
    if set(stored) != {"made_with", "scores", "failed", "faults", "signals"}:
        raise ValueError(f"{file}: holds {', '.join(stored) or 'nothing'}, expected a finished cell of a ranking")
    expected = _made_with(setup, cell)
    for name in expected | stored["made_with"]:
        old, new = stored["made_with"].get(name), expected.get(name)
        if old != new:
            raise ValueError(f"{file}: made with {name} {old}, now it is {new}; choose another --out")
    return stored


def run_cell(setup: TrialSetup, cell: Cell, out: Path) -> None:
    """Run the trials of a cell and write its file."""
    keep(cell, contents_of(setup, cell, actions_for(setup, cell, out)), out)


def keep(cell: Cell, contents: dict, out: Path) -> None:
    """Write the file of a cell."""
    file = cell.file(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, contents)


def contents_of(setup: TrialSetup, cell: Cell, actions: Actions) -> dict:
    """Run the trials of a cell; what its file holds."""
    trials: list[Trial] = []
    faults: list[Fault] = []
    is_read = cell.place == "dream" and setup.loaded_signal is not None
    scores = _played(setup, cell, actions, trials.append if cell.place == "real" or is_read else None, faults)
    failed = {trial.seed: trial.actions.tolist() for trial in trials if trial.outcome == 0 and cell.place == "real"}
    traces = setup.loaded_signal(trials) if is_read and trials else []
    signals = {trial.seed: trace.tolist() for trial, trace in zip(trials, traces, strict=False)}
    contents = {"made_with": _made_with(setup, cell), "scores": scores.to_json(), "failed": failed, "signals": signals}
    return contents | {"faults": [asdict(fault) for fault in faults]}


def play(
    setup: TrialSetup,
    cell: Cell,
    out: Path,
    record: Callable[[Trial], None] | None = None,
    faults: list[Fault] | None = None,
) -> Scores:
    """Run the trials of a cell; the actions of a replay are read from `out`."""
    return _played(setup, cell, actions_for(setup, cell, out), record, faults)


def _played(
    setup: TrialSetup, cell: Cell, actions: Actions, record: Callable[[Trial], None] | None, faults: list[Fault] | None
) -> Scores:
    envs = setup.simulators if cell.place == "real" else setup.dream
    policy = Replay(actions) if cell.place == "replay" else load_policy(cell.spec, choose_device(setup.device))
    options = {"name": cell.policy, "starts": cell.starts, "horizon": setup.horizon, "record": record}
    return evaluate(policy, envs, **options, faults=faults)


def actions_for(setup: TrialSetup, cell: Cell, out: Path) -> Actions:
    """The actions that a cell carries out again, by reset seed; none where a policy acts."""
    if cell.place != "replay":
        return {}
    failed, seeds = failed_actions(cell, out), setup.loaded_starts.seeds
    return {seeds[start]: failed[seeds[start]] for start in cell.starts}


def failed_actions(cell: Cell, out: Path) -> Actions:
    """The actions of the failed real trials of a cell's policy, by reset seed."""
    found = {}
    for file in sorted((out / "cells" / "real" / cell.policy).glob("*.json")):
        failed = read_object(file)["failed"]
        found |= {int(seed): actions for seed, actions in failed.items()}
    return found


def replays(setup: TrialSetup, policies: Mapping[str, str | Path], out: Path, *, limit: int) -> tuple[list[Cell], int]:
    """Cells that dream failed real trials again, up to as many for each policy, and the number of failures."""
    index = {seed: start for start, seed in enumerate(setup.loaded_starts.seeds)}
    cells, failures = [], 0
    each = -(-limit // len(policies))
    for name, spec in policies.items():
        failed = sorted(index[s] for s in failed_actions(Cell("real", name, spec, ()), out))
        failures += len(failed)
        cells += cut(["replay"], {name: spec}, failed[:each], setup.batch)
    return cells, failures


def gather(setup: TrialSetup, cells: Sequence[Cell], out: Path) -> dict[str, Scores]:
    """The scores of every policy, joined from finished cells of one place."""
    parts: dict[str, list[Scores]] = {}
    for cell in cells:
        scores = Scores.from_json(read_cell(setup, cell, out)["scores"])
        parts.setdefault(cell.policy, []).append(scores)
    columns = ("seeds", "outcomes", "returns", "steps")
    return {
        name: Scores(name, *(np.concatenate([getattr(s, c) for s in some]) for c in columns))
        for name, some in parts.items()
    }


def gather_faults(setup: TrialSetup, cells: Sequence[Cell], out: Path) -> dict[str, list[Fault]]:
    """The trials of every policy that have a fault, from finished cells of one place."""
    found: dict[str, list[Fault]] = {}
    for cell in cells:
        found.setdefault(cell.policy, []).extend(Fault(**each) for each in read_cell(setup, cell, out)["faults"])
    return found


def gather_signals(setup: TrialSetup, cells: Sequence[Cell], out: Path) -> dict[str, dict[int, Trace]]:
    """The signal of every dream without a fault, by policy and seed, from finished cells of one place."""
    found: dict[str, dict[int, Trace]] = {}
    for cell in cells:
        signals = read_cell(setup, cell, out)["signals"]
        found.setdefault(cell.policy, {}).update({int(seed): np.array(each) for seed, each in signals.items()})
    return found


def _made_with(setup: TrialSetup, cell: Cell) -> dict:
    common = {k: v for k, v in setup.made_with.items() if k != "dream"}
    special = {} if cell.place == "real" else setup.made_with["dream"]
    loaded = setup.loaded_starts
    origins = [loaded.source.origins[loaded.episodes[start]] for start in cell.starts]
    begun = {"starts": list(cell.starts), "episodes": [[each.fingerprint, each.number] for each in origins]}
    return common | special | begun | {"policy": policy_fingerprint(cell.spec)}


def _prepare(setup: TrialSetup) -> None:
    """Set up a worker with one thread."""
    global _work_with
    torch.set_num_threads(1)
    _work_with = setup


def _work(call: tuple[Cell, Actions]) -> dict:
    return contents_of(_work_with, *call)
