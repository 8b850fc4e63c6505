"""How often the script solves the ten tasks of libero_object, from the fixed starts of the benchmark.

python benchmarks/libero_expert.py                 ten starts of every task, about five CPU minutes; nothing is drawn

The shifts are tried on one start each: a script that fails there would make recordings out of distribution useless. An
interrupted run goes on where it was.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from policy_eval.statistics.resampling import wilson_interval
from worldmodel.envs import make_env
from worldmodel.envs.scripts import behave
from worldmodel.files import read_object, write_json
from worldmodel.model.card import table

TASKS = 10


@dataclass(frozen=True)
class ExpertConfig:
    """How often the script solves the ten tasks of libero_object."""

    starts: int = 10
    """Starts of every task, from the first one on."""
    behaviours: tuple[str, ...] = ("expert",)
    """Who acts."""
    shifts: tuple[str, ...] = ("start-region", "object-swap")
    """Shifts that the expert is tried under."""
    shifted_starts: int = 1
    """Starts of every task under each shift."""
    tasks: int = TASKS
    """The first so many tasks."""
    horizon: int = 280
    """Steps after which an episode has failed."""
    out: Path = Path("runs/benchmarks/libero-expert.json")
    """File of the outcomes; tasks that are in it already are not tried again."""


def steps_to_success(env, behaviour: str, start: int, horizon: int) -> int | None:
    """Steps until the task is solved from a start; `None` if it is not."""
    env.reset(seed=start)
    actions = behave(behaviour, env, np.random.default_rng([start, 1]))
    for step in range(horizon):
        if env.step(next(actions))[4]["success"]:
            return step + 1
    return None


def try_task(number: int, config: ExpertConfig) -> dict:
    """Outcomes of one task: the words, and for each behaviour and shift the steps to success of every start."""
    outcomes = {}
    for shift in ("", *config.shifts):
        env = make_env(f"libero:libero_object/{number}", shift=shift)
        env.get_obs = dict  # the script does not look at pictures
        for behaviour in config.behaviours if not shift else ("expert",):
            starts = range(config.starts if not shift else config.shifted_starts)
            found = [steps_to_success(env, behaviour, start, config.horizon) for start in starts]
            outcomes[shift or behaviour] = found
        words = env.task
        env.close()
    return {"task": words, "steps": outcomes}


def shares(found: list[int | None]) -> str:
    """How many succeeded, as `9 of 10`."""
    return f"{sum(each is not None for each in found)} of {len(found)}"


def pooled(found: list[int | None]) -> str:
    """The share that succeeded, with its 95% interval."""
    share = sum(each is not None for each in found) / len(found)
    low, high = wilson_interval(share, len(found))
    return f"{share:.2f} [{low:.2f}, {high:.2f}]"


def tried_before(config: ExpertConfig, settings: dict) -> list[dict]:
    """The outcomes that an interrupted run with the same settings has left.

    Raises:
        ValueError: The file holds outcomes with other settings.
    """
    if not config.out.is_file():
        return []
    there = read_object(config.out)
    if there["settings"] != settings:
        raise ValueError(f"{config.out} holds outcomes with {there['settings']}, you asked for {settings}")
    return there["tasks"]


def main(config: ExpertConfig) -> None:
    """Try every task, write the outcomes, and print the table."""
    config.out.parent.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps({**vars(config), "out": ""}))
    rows, everything = [], tried_before(config, settings)
    for number in range(config.tasks):
        if number == len(everything):
            everything.append(try_task(number, config))
            write_json(config.out, {"settings": settings, "tasks": everything})
        steps = everything[number]["steps"]
        solved = [each for each in steps[config.behaviours[0]] if each is not None]
        median = f"{np.median(solved):.0f}" if solved else "-"
        rows.append([str(number), everything[number]["task"], *(shares(found) for found in steps.values()), median])
        print(f"task {number} is done", flush=True)
    columns = list(everything[0]["steps"])
    every = [pooled([each for task in everything for each in task["steps"][name]]) for name in columns]
    rows.append(["", "all tasks, 95% interval", *every, ""])
    print(table(["task", "in words", *columns, f"steps of the {config.behaviours[0]}"], rows))


if __name__ == "__main__":
    main(tyro.cli(ExpertConfig))
