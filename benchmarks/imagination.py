"""Does imagination improve a cloned policy for real?

python benchmarks/imagination.py --quick --out runs/imagination-quick
python benchmarks/imagination.py --env metaworld:push-v3 --seeds 0 1 2 --out runs/imagination-push

Improves one cloned policy inside a world model, from prioritised and from uniform starts, and sets
it beside the clone and beside more behaviour cloning of the same demonstrations for the same time.
All act for real, and in the dream, from the same fresh starts. Writes `imagination.json` with every
trial, paired bootstrap intervals, and the curves of the held-out dream metric. Finished arms and
trials are kept, so a killed run continues.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from simulator_world import SimulatorWorld, true_judge

from policy_eval.judge.find import reward_range
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.clone import CloneConfig, check_clone, fit_policy, read_demonstrations
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import cut, gather, run_cells
from policy_eval.scores import Scores
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.dreams import prepare
from rl_posttrain.imagination.gate import confirm
from rl_posttrain.imagination.train import imagine, improve
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.envs import make_env
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import write_json
from worldmodel.model.card import table


@dataclass(frozen=True)
class Task:
    """What is improved where.

    Attributes:
        world: The world model.
        judge: The judge.
        policy: The cloned policy to begin from.
        demos: Its demonstrations, which the control clones on and whose first frames dreams begin
            from.
        longest: Most steps of a demonstration.
        held_out: Recorded episodes whose reset seeds the trials begin from; nothing is learnt from
            them.
        horizon: Most actions of a trial, and of a dream.
        noise: Standard deviation of the noise on the actions of the control, in their units.
    """

    world: str
    judge: Path
    policy: Path
    demos: Path
    longest: int | None
    held_out: Path
    horizon: int
    noise: float


JUDGES, POLICIES = Path("checkpoints/judges"), Path("checkpoints/policies")
TASKS = {
    "pusht-position": Task(
        "checkpoints/pusht",
        JUDGES / "pusht-position",
        POLICIES / "imagination/pusht-position",
        Path("data/pusht-position-demos-b"),
        None,
        Path("data/pusht-position-heldout"),
        60,
        20.0,
    ),
    "metaworld:push-v3": Task(
        "checkpoints/metaworld-push",
        JUDGES / "imagination/metaworld-push-v3",
        POLICIES / "imagination/metaworld-push-v3",
        Path("data/push"),
        25,
        Path("data/metaworld-push-v3-heldout"),
        30,
        0.15,
    ),
    "metaworld:window-open-v3": Task(
        "checkpoints/metaworld-window-open",
        JUDGES / "imagination/metaworld-window-open-v3",
        POLICIES / "metaworld-window-open-v3/demos-3",
        Path("data/window-open"),
        25,
        Path("data/window-open-heldout"),
        30,
        0.15,
    ),
}
"""The commands that record the data and clone the policies are in `benchmarks/policies.py`.

The judges are those of the tasks with the threshold at which this policy's dreams succeed as often
as 100 real rollouts that neither world model nor judge has seen; in PushT-Position the difference
may be chance, and the judge is that of the task. `benchmarks/rollouts.py --task T
--policies P --episodes 100 --seed 80 --out R`, `worldmodel calibrate --policies P --data R`.
"""


@dataclass(frozen=True)
class BenchmarkConfig:
    """Improve a policy in imagination and measure it for real."""

    out: Path
    """Folder of the arms, their trials, and `imagination.json`."""
    env: str = "pusht-position"
    """One of the tasks in this file."""
    data: Path = Path("data")
    """Folder of the data sets of demonstrations and of held-out starts."""
    episodes: int = 100
    """Real trials of every policy."""
    dream_episodes: int = 100
    """Dreamed trials of every policy, on the first of the same starts."""
    minutes: float = 15.0
    """CPU minutes of an improvement run, and of the control."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the improvement runs."""
    arms: tuple[Literal["prioritised", "uniform"], ...] = ("prioritised", "uniform")
    """How starts are drawn; every arm is run with every seed."""
    swap: tuple[Literal["world", "both"], ...] = ()
    """Also improve a policy with the simulator in place of the world model, or of world model and judge, as a
    diagnosis: what of an effect is due to which."""
    controls: tuple[Literal["more-cloning", "noise"], ...] = ("more-cloning", "noise")
    """What the arms are compared with besides the clone: more cloning for the same time, and the clone with noise on
    its actions."""
    held_out: float = 0.1
    """Share of the episodes whose first frames measure a run; few episodes need a larger one."""
    quick: bool = False
    """A CPU minute per arm, 60 real and 10 dreamed trials: less than ten minutes of one core."""

    @property
    def task(self) -> Task:
        """All that belongs to the environment."""
        task = TASKS[self.env]
        return replace(task, demos=self.data / task.demos.name, held_out=self.data / task.held_out.name)


def settings(config: BenchmarkConfig) -> BenchmarkConfig:
    """The configuration with `--quick` worked in."""
    if not config.quick:
        return config
    return replace(config, minutes=1.0, episodes=60, dream_episodes=10, seeds=(0,))


def arms(config: BenchmarkConfig) -> dict[str, Path]:
    """Make every policy that is not there yet; returns the folders by name."""
    folders = {"clone": config.task.policy} | {name: config.out / name for name in config.controls}
    for name in config.controls:
        if not (folders[name] / "training.json").is_file():
            {"more-cloning": clone_longer, "noise": clone_with_noise}[name](config, folders[name])
    for seed in config.seeds:
        for name in config.arms:
            priority = {"prioritised": 0.6, "uniform": 0.0}[name]
            folder = config.out / f"{name}-{seed}"
            folders[folder.name] = folder
            if not (folder / "imagination.json").is_file():
                resume = (folder / "state" / "state.json").is_file()
                imagine(imagine_config(config, folder, priority, seed, resume=resume))
    for swapped in config.swap:
        name = {"world": "in-simulator", "both": "in-simulator-judged-by-it"}[swapped]
        folders[name] = config.out / name
        if not (folders[name] / "imagination.json").is_file():
            improve_in_simulator(config, folders[name], judged=swapped == "both")
    return folders


def improve_in_simulator(config: BenchmarkConfig, folder: Path, *, judged: bool) -> None:
    """The same run with a perfect dream: the simulator, seen by the same judge or by itself."""
    resume = (folder / "state" / "state.json").is_file()
    options = imagine_config(config, folder, 0.6, config.seeds[0], resume=resume)
    options = replace(options, noise_seeds=1, context=1, trust=False)
    source = EpisodeCache(open_episodes(options.data))
    world = SimulatorWorld(lambda: make_env(config.env, time_limit=1000), source)
    judge = LearnedJudge.load(options.judge)
    judge = true_judge(judge, world) if judged else judge
    low, high = reward_range(LearnedJudge.load(options.judge))
    setting = replace(prepare(options, world, judge, source), reward_scale=1 / (high - low))
    clone = ClonedPolicy.load(options.policy)
    found = confirm(options, setting, clone, improve(options, setting, clone))
    write_json(folder / "imagination.json", found)


def imagine_config(config: BenchmarkConfig, folder: Path, priority: float, seed: int, *, resume: bool) -> ImagineConfig:
    """One improvement run; every run ends when its minutes are over."""
    task = config.task
    options = ImagineConfig(
        task.world,
        task.judge,
        task.policy,
        task.demos,
        folder,
        updates=100_000,
        minutes=config.minutes,
        clock="cpu",
        horizon=task.horizon,
        validation_horizon=task.horizon,
        priority=priority,
        seed=seed,
        resume=resume,
        overwrite=not resume,
        patience=1000,
        save_interval=1,
        held_out=config.held_out,
    )
    if config.quick:
        return replace(options, streams=20, validation_starts=16, trust=False)
    return options


def clone_longer(config: BenchmarkConfig, out: Path) -> None:
    """Continue behaviour cloning from the same policy for the same CPU time."""
    task = config.task
    policy = ClonedPolicy.load(task.policy).train()
    training = json.loads((task.policy / "training.json").read_text())
    shown = policy.config
    options = CloneConfig(
        task.demos,
        out,
        demos=training["demonstrations"],
        longest=task.longest,
        steps=20,
        views=shown.views,
        proprioception=shown.state_dim > 0,
        relative_to=shown.relative_to,
        cap=training["cap"],
        batch=training["batch"],
        learning_rate=3e-4,
        seed=training["seed"] + 1,
    )
    source = EpisodeCache(open_episodes(task.demos))
    rows = read_demonstrations(options, source, check_clone(options, source))
    began = time.process_time()
    fit_policy(ClonedPolicy.load(task.policy), rows, options)
    seconds = (time.process_time() - began) / options.steps
    steps = max(round(60 * config.minutes / seconds), 1)
    loss = fit_policy(policy, rows, replace(options, steps=steps))
    policy.save(out, dtype=torch.float32)
    write_json(out / "training.json", {**training, "more_steps": steps, "last_loss": loss})


def clone_with_noise(config: BenchmarkConfig, out: Path) -> None:
    """The clone itself with noise on its actions, which frees a policy that is stuck."""
    policy = ClonedPolicy.load(config.task.policy)
    policy.config = replace(policy.config, action_noise=config.task.noise)
    policy.save(out, dtype=torch.float32)
    write_json(out / "training.json", {"action_noise": config.task.noise})


def measure(config: BenchmarkConfig, folders: Mapping[str, Path]) -> dict[str, dict[str, Scores]]:
    """Trials of every policy, real and dreamed, from the same starts."""
    scores = {}
    for place, episodes in (("real", config.episodes), ("dream", config.dream_episodes)):
        task = config.task
        setup = TrialSetup(task.world, task.judge, task.held_out, episodes, task.horizon, real=config.env)
        cells = cut([place], dict(folders), range(episodes), setup.num_envs)
        run_cells(setup, cells, config.out)
        scores[place] = gather(setup, cells, config.out)
    return scores


def compared(scores: Mapping[str, Scores], first: str, second: str) -> dict:
    """Mean success of `second` minus `first` over the same starts, with its paired interval."""
    return difference_of(scores[first].outcomes, scores[second].outcomes)


def difference_of(first: np.ndarray, second: np.ndarray) -> dict:
    """Mean of `second - first` with its paired interval."""
    difference = second - first
    interval = bootstrap_interval(difference, np.arange(len(difference)), resamples=4000)
    return {"difference": float(difference.mean()), "interval": interval, "n": len(difference)}


def over_seeds(config: BenchmarkConfig, scores: Mapping[str, Scores]) -> dict[str, dict]:
    """Differences of the arms' means over all seeds, with intervals over the starts."""
    means = {arm: np.mean([scores[f"{arm}-{seed}"].outcomes for seed in config.seeds], axis=0) for arm in config.arms}
    means |= {name: scores[name].outcomes for name in ("clone", *config.controls)}
    others = ("clone", *config.controls, *config.arms)
    before = 1 + len(config.controls)
    pairs = [(arm, other) for i, arm in enumerate(config.arms) for other in others[: before + i]]
    return {f"{arm} - {other}": difference_of(means[other], means[arm]) for arm, other in pairs}


def optimism(scores: Mapping[str, Mapping[str, Scores]], name: str) -> dict:
    """Dreamed minus real success over the starts that both have, with its paired interval."""
    dreamed = scores["dream"][name].outcomes
    return difference_of(scores["real"][name].outcomes[: len(dreamed)], dreamed)


def report(config: BenchmarkConfig, folders: Mapping[str, Path], scores: Mapping[str, Mapping[str, Scores]]) -> dict:
    """Everything that the table shows, and every trial."""
    policies = {}
    for name, folder in folders.items():
        row = {
            "real": scores["real"][name].mean,
            "dream": scores["dream"][name].mean,
            "optimism": optimism(scores, name),
        }
        if name != "clone":
            row["against_clone"] = compared(scores["real"], "clone", name)
        if name not in ("clone", *config.controls):
            row["against"] = {control: compared(scores["real"], control, name) for control in config.controls}
            row["run"] = json.loads((folder / "imagination.json").read_text())
            lines = (folder / "validation.jsonl").read_text().splitlines()
            row["curve"] = [json.loads(line) for line in lines]
        policies[name] = row
    trials = [
        {"policy": name, "place": place, "seed": int(seed), "outcome": float(outcome), "steps": int(steps)}
        for place, by_policy in scores.items()
        for name, each in by_policy.items()
        for seed, outcome, steps in zip(each.seeds, each.outcomes, each.steps, strict=True)
    ]
    described = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    pooled = over_seeds(config, scores["real"])
    return {"config": described, "policies": policies, "over_seeds": pooled, "trials": trials}


def show(found: dict) -> None:
    """Print Markdown tables: every policy, and the arms over all seeds; differences are in points of real success."""
    rows, controls = [], found["config"]["controls"]
    for name, row in found["policies"].items():
        against = row.get("against", {})
        parts = [row["optimism"], row.get("against_clone"), *(against.get(name) for name in controls)]
        cells = ["-" if part is None else words(part) for part in parts]
        rows.append([name, f"{row['real']:.2f}", f"{row['dream']:.2f}", *cells])
    heads = ["policy", "real", "dream", "dream - real", "against the clone", *(f"against {name}" for name in controls)]
    print(f"## {found['config']['env']}\n\n{table(heads, rows)}\n")
    pooled = [[name, words(part)] for name, part in found["over_seeds"].items()]
    print(f"## Means over the seeds\n\n{table(['difference', 'points of real success'], pooled)}")


def words(part: dict) -> str:
    """A difference in points with its interval."""
    low, high = part["interval"]
    return f"{100 * part['difference']:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"


def main(config: BenchmarkConfig) -> None:
    """Improve, measure, write, print."""
    if config.env not in TASKS:
        raise SystemExit(f"there is no task {config.env!r}; known are {', '.join(TASKS)}")
    config = settings(config)
    torch.set_num_threads(1)  # two threads wait for each other on frames this small
    config.out.mkdir(parents=True, exist_ok=True)
    folders = arms(config)
    found = report(config, folders, measure(config, folders))
    write_json(config.out / "imagination.json", found)
    show(found)


if __name__ == "__main__":
    main(tyro.cli(BenchmarkConfig))
