"""Write a steered policy, and try it. `worldmodel steer --policy P --world W --judge J --out DIR`."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from policy_eval.policies.find import STEERED_FILE
from policy_eval.ranking.rank import Score
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import check_policies, cut, gather, gather_faults, run_cells
from policy_eval.scores import Scores
from policy_eval.statistics.difference import pair_order
from policy_eval.steering.film import film_steering
from policy_eval.steering.page import meaning, print_table, write_page
from policy_eval.steering.saved import SteeredDescription, build_steered, read_steered, save_steered
from worldmodel.data.options import DataPath
from worldmodel.display.progress import ProgressLine
from worldmodel.display.ranges import Count, Weight, Whole, check_ranges
from worldmodel.envs import check_env_name, make_simulator
from worldmodel.envs.protocol import episode_limit
from worldmodel.files import remove_unfinished, write_json
from worldmodel.model.folder import first_file
from worldmodel.model.precision import choose_device, command_device
from worldmodel.processes import single_thread
from worldmodel.processes.workers import read_workers

ALONE, RANDOM, STEERED = "alone", "random", "steered"
"""The rows of a trial: the policy itself, one of its plans at random, and the best of them."""
TRIALS = "trials"
"""Folder of the finished trials."""
BATCH = 25
"""Trials that are saved together."""


@dataclass(frozen=True)
class SteerConfig:
    """Let a policy choose, at every plan, the best of K plans that a world model imagines.

    The policy is not trained. Without `--real` the command only writes the folder. If it is killed, the same call
    goes on.
    """

    policy: str | Path
    """The policy to steer: a folder, hf://USER/NAME@REV, or module:name. It needs a method plan, as every cloned policy
    has."""
    world: str | Path
    """Folder of the world model that imagines, or hf://USER/NAME@REV."""
    out: Path
    """Folder of the steered policy. Every command takes it as a policy. It names the policy, the world model and the
    judge, and holds no copy of them."""
    judge: str | Path | None = None
    """Judge whose reward of the last imagined frame is the score of a plan: a folder, hf://USER/NAME@REV, module:name,
    or the address of a server. Only a --scorer of yours goes without."""
    k: Count = 4
    """Number of plans to choose from. In PushT, with two action dims, 4 do what 16 do; a robot arm with four may gain
    from 16, and a decision then takes four times as long."""
    lookahead: Count = 8
    """Number of imagined steps. When its plan is over, the policy goes on acting in the dream."""
    spread: Weight = 0.3
    """Standard deviation of the offsets between the plans, as a share of half the range of the actions that the world
    model was trained on (for actions relative to the state, of their displacements)."""
    proposal: str = "jitter"
    """Who makes the plans: jitter (the policy's plan and others near it), samples (of a policy that was cloned with
    --head flow), or module:name of yours."""
    scorer: str = "value"
    """Who scores the imagined plans: value (the judge's reward of the last frame) or module:name of yours."""
    context: Count = 4
    """Number of past frames that a dream begins with."""
    num_steps: Count = 1
    """Denoising steps per frame."""
    real: str = "none"
    """Environment in which to try the policy alone, with one of its K plans at random, and steered: pusht-position,
    metaworld:TASK, libero:SUITE/TASK, or module:Class."""
    data: DataPath | None = None
    """Recorded episodes to start the trials from, with reset seeds; nothing should have been trained on them."""
    episodes: Count | str = 100
    """Trials of each row: a number means the first episodes of the data, `0:50,60` means 0 to 49 and 60."""
    horizon: Count | None = None
    """Maximum number of steps of a trial; by default as the environment sets it."""
    workers: Whole | str = os.cpu_count() or 1
    """Number of processes that share the trials, each with one thread; ray, a Ray cluster that runs here or that is
    started; or ray://HOST:PORT, another one."""
    gpus_per_worker: Weight | None = None
    """Share of a GPU that each worker of a Ray cluster takes; with 0.25 four workers share one. By default a whole one
    where --device is CUDA."""
    device: str = "auto"
    """Where the networks run: auto is CUDA if there is a GPU, else the CPU; you can also name a device."""

    @property
    def described(self) -> SteeredDescription:
        """What is written to the folder."""
        names = ("k", "lookahead", "spread", "proposal", "scorer", "context", "num_steps")
        judge = None if self.judge is None else str(self.judge)
        return SteeredDescription(str(self.policy), str(self.world), judge, **{n: getattr(self, n) for n in names})


def steer(config: SteerConfig) -> dict[str, Any]:
    """Write the steered policy and, with an environment, try it; returns what `steering.json` holds.

    Raises:
        ValueError: The parts do not fit, a number is out of range, or `--out` holds something else.
    """
    check_ranges(config)
    check(config)
    policy = build_steered(config.described, choose_device(config.device))
    claim(config)
    save_steered(config.described, config.out)
    print(
        f"{config.out}: {config.policy}, steered: the best of {policy.k} plans, imagined {policy.lookahead} steps ahead"
    )
    if config.real == "none":
        return {}
    policies = rows_of(config)
    setup = trial_setup(config)
    with single_thread():
        command_device(config.device)
        scores = run_trials(config, setup, policies)
        film = film_steering(setup, {name: policies[name] for name in (ALONE, STEERED)}, scores, config.out)
    found = {
        **compared(scores),
        "decision_ms": film.decision_ms,
        "settings": {name: str(value) for name, value in asdict(config).items()},
        "made_with": setup.made_with,
    }
    write_json(config.out / "steering.json", found)
    write_page(found, film, config.out / "report.html")
    print_table(found)
    print("\n".join([*meaning(found), str(config.out / "report.html")]))
    return found


def rows_of(config: SteerConfig) -> dict[str, str | Path]:
    """The policies of the rows; the control, which takes one of the plans at random, is written beside the trials."""
    control = config.out / TRIALS / RANDOM
    save_steered(replace(config.described, scorer="random"), control)
    return {ALONE: config.policy, RANDOM: control, STEERED: config.out}


def compared(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Success of every row, and the differences of the steered policy from the others, start by start."""
    rows = {name: {**asdict(Score.of(each.outcomes)), "trials": each.to_json()} for name, each in scores.items()}
    pairs = {f"{STEERED} minus {name}": asdict(pair_order(scores[STEERED], scores[name])) for name in (ALONE, RANDOM)}
    return {"rows": rows, "pairs": pairs}


def check(config: SteerConfig) -> None:
    """Raise a `ValueError` for options that contradict each other."""
    read_workers(config.workers, config.gpus_per_worker)
    if config.scorer == "value" and config.judge is None:
        raise ValueError("--scorer value is the reward of a judge; pass --judge")
    if config.real != "none":
        check_env_name(config.real)
        if config.data is None:
            raise ValueError(f"--real {config.real}: trials start from recorded episodes; pass --data")
        if config.judge is None:
            raise ValueError(f"--real {config.real}: the judge is part of the set-up of trials; pass --judge")
    elif config.data is not None:
        raise ValueError("--data holds the starts of trials, and without --real there are none; pass --real")


def claim(config: SteerConfig) -> None:
    """Make the folder, or go on with the same steered policy.

    Raises:
        ValueError: The folder holds something else.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file, expected a folder")
    out.mkdir(parents=True, exist_ok=True)
    remove_unfinished(out)
    if (out / STEERED_FILE).is_file():
        stored, now = asdict(read_steered(out)), asdict(config.described)
        for name, value in now.items():
            if stored[name] != value and not same_place(stored[name], value):
                raise ValueError(
                    f"{out / STEERED_FILE}: has {name} {stored[name]}, now it is {value}; choose another --out"
                )
        return
    found = first_file(out)
    if found is not None:
        raise ValueError(f"{out} holds {found.relative_to(out)} and is no steered policy; choose another --out")


def same_place(first: object, second: object) -> bool:
    """Whether two names are those of one folder."""
    if not isinstance(first, str) or not isinstance(second, str) or not Path(first).exists():
        return False
    return Path(first).resolve() == Path(second).resolve()


def trial_setup(config: SteerConfig) -> TrialSetup:
    """The setup of the trials.

    Raises:
        ValueError: There is no horizon, neither given nor of the environment.
    """
    setup = TrialSetup(
        world=config.world,
        judge=config.judge,
        data=config.data,
        episodes=config.episodes,
        horizon=config.horizon or 1,
        real=config.real,
        num_steps=config.num_steps,
        num_envs=BATCH,
        device=config.device,
    )
    if config.horizon is not None:
        return setup
    env = make_simulator(config.real)
    steps = episode_limit(env, "policy")
    env.close()
    if steps is None:
        raise ValueError(f"environment {config.real} does not state how many steps an episode has; pass --horizon")
    return replace(setup, horizon=max(1, int(steps) // setup.loaded_world.stride))


def run_trials(config: SteerConfig, setup: TrialSetup, policies: Mapping[str, str | Path]) -> dict[str, Scores]:
    """Run the real trials that are missing; returns those of every row.

    Raises:
        ValueError: A policy does not fit the environment or fails in a trial, or the finished trials were made with
            another setup.
    """
    check_policies(setup, policies)
    cells = cut(["real"], policies, range(len(setup.loaded_starts)), BATCH)
    out = config.out / TRIALS
    total = sum(len(cell.starts) for cell in cells)
    with ProgressLine("steer", total, unit="trials", log=out / "steer.log") as line:
        try:
            run_cells(
                setup,
                cells,
                out,
                workers=read_workers(config.workers, config.gpus_per_worker, choose_device(config.device).type),
                progress=lambda cell: line.advance(len(cell.starts), cell.policy),
            )
        finally:
            remove_unfinished(out)
    for name, faults in gather_faults(setup, cells, out).items():
        if faults:
            raise ValueError(f"{name}: the policy failed in {len(faults)} trials: {faults[0].reason}")
    return gather(setup, cells, out)
