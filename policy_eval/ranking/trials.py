"""The trials of a ranking, split into cells: processes share them, and finished cells are kept after a kill."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from policy_eval.evaluation import Trial, evaluate
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.find import is_yours, load_policy
from policy_eval.policies.policy import Observations, Policy
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.data.options import DataOptions, DataPath
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.envs import has_simulator, is_foreign, make_simulator
from worldmodel.files import read_object, write_json
from worldmodel.model.folder import fingerprint
from worldmodel.model.precision import choose_device
from worldmodel.processes import end_with_parent, work_through
from worldmodel.resolve import source_hash
from worldmodel.world_model import WorldModel

SIMULATORS = 5
"""Real environments stepped together in one process."""


@dataclass(frozen=True)
class TrialSetup:
    """The setup of the trials of a ranking; every process has its own copy.

    Attributes:
        world: Folder of the world model, or `hf://USER/NAME@REV`.
        judge: Folder of the judge of dreamed frames, likewise.
        data: Recorded episodes to start from.
        reading: Which episodes and columns of the data to read.
        episodes: Number of episodes to start from, the first ones of those.
        horizon: Maximum number of steps of a trial.
        real: The real environment, a name or `module:Class`; `none` without one.
        num_steps: Denoising steps per frame.
        num_envs: Dreams in a batch.
        seed: Seed of the dreams' noise.
        copy_last: Whether the dream is the control whose frames never change.
        stored: Whether real trials come from a file; the dream then has the spaces of the
            environment that `data` was recorded in.
        device: Where the networks run; see `choose_device`.
    """

    world: str | Path
    judge: str | Path
    data: DataPath
    episodes: int
    horizon: int
    real: str = "none"
    num_steps: int = 2
    num_envs: int = 25
    seed: int = 0
    copy_last: bool = False
    stored: bool = False
    device: str = "auto"
    reading: DataOptions = field(default_factory=DataOptions)

    @cached_property
    def loaded_world(self) -> WorldModel:
        """The world model."""
        kind = CopyLastWorld if self.copy_last else WorldModel
        return kind.load(self.world, choose_device(self.device))

    @cached_property
    def loaded_judge(self) -> LearnedJudge:
        """The judge."""
        return LearnedJudge.load(self.judge, choose_device(self.device))

    @cached_property
    def loaded_starts(self) -> Starts:
        """The starts.

        Raises:
            ValueError: There are fewer episodes than asked for.
        """
        world = self.loaded_world
        source = open_episodes(self.data, tuple(world.size), world.views, self.reading)
        if not 1 <= self.episodes <= len(source):
            raise ValueError(f"{source.name}: has {len(source)} episodes to start from, --episodes is {self.episodes}")
        return Starts(source, range(self.episodes))

    @cached_property
    def dream(self) -> DreamEnv:
        """The dreams, with the spaces of the real environment if there is one."""
        return DreamEnv(
            self.loaded_world,
            self.loaded_starts,
            self.loaded_judge,
            num_envs=self.num_envs,
            horizon=self.horizon,
            num_steps=self.num_steps,
            seed=self.seed,
            like=None if self.place == "none" else self.simulators.envs[0],
            autoreset_mode=AutoresetMode.DISABLED,
        )

    @cached_property
    def place(self) -> str:
        """The real environment, whose spaces the dream has; `none` without one."""
        recorded = self.loaded_starts.source.robot_type
        return recorded if self.stored and has_simulator(recorded) else self.real

    @cached_property
    def simulators(self) -> RealEnvs:
        """Several copies of the real environment."""
        size, stride = self.loaded_starts.source.size[0], self.loaded_world.stride
        return RealEnvs(
            lambda: make_simulator(self.place, size=size, time_limit=self.horizon * stride),
            self.loaded_starts,
            num_envs=min(SIMULATORS, self.episodes),
            stride=stride,
        )

    @cached_property
    def made_with(self) -> dict[str, object]:
        """What the outcomes depend on; a dream also on what is listed under `dream`."""
        dream = {
            "world": fingerprint(self.world),
            "judge": fingerprint(self.judge),
            "num_steps": self.num_steps,
            "num_envs": self.num_envs,
            "seed": self.seed,
            "copy_last": self.copy_last,
        }
        data = self.loaded_starts.source.fingerprint
        made_with = {"data": data, "horizon": self.horizon, "real": self.place, "dream": dream}
        columns = [*self.reading.action_keys, *self.reading.state_keys]
        made_with |= {"stride": self.loaded_world.stride, "columns": columns}
        if is_foreign(self.place):
            made_with["real_source"] = source_hash(self.place, "environment")
        return made_with


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


def policy_fingerprint(spec: str | Path) -> str:
    """Hash of the files of a cloned policy, or of the source text that `module:name` is in."""
    return source_hash(str(spec), "policy") if is_yours(spec) else fingerprint(spec)


def cut(places: Sequence[str], policies: Mapping[str, str | Path], starts: Sequence[int], size: int) -> list[Cell]:
    """Cells of at most `size` starts, for every policy in every place."""
    batches = [tuple(starts[i : i + size]) for i in range(0, len(starts), size)]
    return [Cell(place, name, spec, batch) for batch in batches for name, spec in policies.items() for place in places]


def run_cells(
    setup: TrialSetup,
    cells: Sequence[Cell],
    out: Path,
    *,
    processes: int = 1,
    progress: Callable[[Cell], None] = lambda cell: None,
) -> None:
    """Run the cells whose files do not exist yet, each in one process with one thread.

    Args:
        setup: The setup of the trials.
        cells: The cells to run.
        out: Folder of the files.
        processes: Number of processes; with 1 the cells run in this one.
        progress: Called with every finished cell.

    Raises:
        ValueError: The file of a cell was made with another setup.
    """
    missing = []
    for cell in cells:
        if cell.file(out).exists():
            read_cell(setup, cell, out)
            progress(cell)
        else:
            missing.append(cell)
    if processes == 1 or len(missing) < 2:
        for cell in missing:
            run_cell(setup, cell, out)
            progress(cell)
        return
    number = min(processes, len(missing))
    with_this = (replace(setup), out)  # a copy, without what the setup has loaded
    with closing(work_through(_work, missing, processes=number, start=_prepare, start_with=with_this)) as done:
        for index, _ in done:
            progress(missing[index])


def read_cell(setup: TrialSetup, cell: Cell, out: Path) -> dict:
    """The contents of a cell's file.

    Raises:
        ValueError: The file was made with another setup; the message names the difference.
    """
    file = cell.file(out)
    stored = read_object(file)
    if set(stored) != {"made_with", "scores", "failed"}:
        raise ValueError(f"{file}: holds {', '.join(stored) or 'nothing'}, expected a finished cell of a ranking")
    expected = _made_with(setup, cell)
    for name in expected | stored["made_with"]:
        old, new = stored["made_with"].get(name), expected.get(name)
        if old != new:
            raise ValueError(f"{file}: made with {name} {old}, now it is {new}; take another --out")
    return stored


def run_cell(setup: TrialSetup, cell: Cell, out: Path) -> None:
    """Run the trials of a cell and write its file."""
    trials: list[Trial] = []
    scores = play(setup, cell, out, trials.append if cell.place == "real" else None)
    failed = {trial.seed: trial.actions.tolist() for trial in trials if trial.outcome == 0}
    file = cell.file(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    contents = {"made_with": _made_with(setup, cell), "scores": scores.to_json(), "failed": failed}
    write_json(file, contents)


def play(setup: TrialSetup, cell: Cell, out: Path, record: Callable[[Trial], None] | None = None) -> Scores:
    """Run the trials of a cell; the actions of a replay are read from `out`."""
    envs = setup.simulators if cell.place == "real" else setup.dream
    policy: Policy
    if cell.place == "replay":
        policy = Replay(failed_actions(cell, out))
    else:
        policy = load_policy(cell.spec, choose_device(setup.device))
    return evaluate(policy, envs, name=cell.policy, starts=cell.starts, horizon=setup.horizon, record=record)


def failed_actions(cell: Cell, out: Path) -> dict[int, list[list[float]]]:
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
        cells += cut(["replay"], {name: spec}, failed[:each], setup.num_envs)
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


def _made_with(setup: TrialSetup, cell: Cell) -> dict:
    common = {k: v for k, v in setup.made_with.items() if k != "dream"}
    special = {} if cell.place == "real" else setup.made_with["dream"]
    loaded = setup.loaded_starts
    origins = [loaded.source.origins[loaded.episodes[start]] for start in cell.starts]
    begun = {"starts": list(cell.starts), "episodes": [[each.fingerprint, each.number] for each in origins]}
    return common | special | begun | {"policy": policy_fingerprint(cell.spec)}


def _prepare(setup: TrialSetup, out: Path) -> None:
    """Set up a worker with one thread; it ends when its parent ends, even if the parent is killed."""
    global _work_with
    torch.set_num_threads(1)
    _work_with = (setup, out)
    end_with_parent()


def _work(cell: Cell) -> None:
    setup, out = _work_with
    run_cell(setup, cell, out)
