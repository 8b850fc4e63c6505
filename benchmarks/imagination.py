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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from imagination_tasks import TASKS, Task
from simulator_world import SimulatorWorld, true_judge

from policy_eval.evaluation import evaluate
from policy_eval.judge.find import reward_range
from policy_eval.judge.judge import LearnedJudge
from policy_eval.policies.clone import CloneConfig, check_clone, fit_policy, read_demonstrations
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.trials import cut, gather, run_cells
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from policy_eval.steering.scorers import by_value
from policy_eval.steering.steered import SteeredPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.config import DistilConfig
from rl_posttrain.imagination.dreams import prepare
from rl_posttrain.imagination.gate import confirm
from rl_posttrain.imagination.train import imagine, improve
from worldmodel.data import EpisodeCache, open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.fidelity.intervals import bootstrap_interval
from worldmodel.files import write_json
from worldmodel.model.card import table
from worldmodel.world_model import WorldModel


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
    arms: tuple[Literal["prioritised", "uniform", "distil"], ...] = ("prioritised", "uniform")
    """Actor and critic with starts drawn by priority or uniformly, or the distilled planner; every arm is run with
    every seed."""
    policy: Path | None = None
    """The clone to begin from, in place of the task's."""
    confirm: int = 64
    """Dreams from fresh starts by which the best policy must be better than the clone; 0 keeps it in any case."""
    distil: DistilConfig = field(default_factory=DistilConfig)
    """How a planner is distilled."""
    streams: int = 40
    """Dreams of an update; rounds of `distil` are shorter with fewer."""
    num_steps: int = 2
    """Denoising steps of a dreamt frame."""
    steered: bool = False
    """Also let the planner itself act for real, with the plans, the spread and the lookahead of `distil`."""
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
        task = task if self.policy is None else replace(task, policy=self.policy)
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
            folder = config.out / f"{name}-{seed}"
            folders[folder.name] = folder
            if not (folder / "imagination.json").is_file():
                resume = (folder / "state" / "state.json").is_file()
                imagine(imagine_config(config, folder, name, seed, resume=resume))
    for swapped in config.swap:
        name = {"world": "in-simulator", "both": "in-simulator-judged-by-it"}[swapped]
        folders[name] = config.out / name
        if not (folders[name] / "imagination.json").is_file():
            improve_in_simulator(config, folders[name], judged=swapped == "both")
    return folders


def improve_in_simulator(config: BenchmarkConfig, folder: Path, *, judged: bool) -> None:
    """The same run with a perfect dream: the simulator, seen by the same judge or by itself."""
    resume = (folder / "state" / "state.json").is_file()
    options = imagine_config(config, folder, "prioritised", config.seeds[0], resume=resume)
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


def imagine_config(config: BenchmarkConfig, folder: Path, arm: str, seed: int, *, resume: bool) -> ImagineConfig:
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
        method="distil" if arm == "distil" else "actor-critic",
        priority=0.0 if arm == "uniform" else 0.6,
        seed=seed,
        resume=resume,
        overwrite=not resume,
        patience=1000,
        save_interval=1,
        held_out=config.held_out,
        confirm=config.confirm,
        streams=config.streams,
        num_steps=config.num_steps,
        distil=config.distil,
        validation_interval=2 if arm == "distil" else 3,
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
    if config.steered:
        scores["real"]["steered"] = steered_scores(config)
    return scores


def steered_scores(config: BenchmarkConfig) -> Scores:
    """Real trials of the planner that `distil` teaches; kept in `steered.json`."""
    file, task, options = config.out / "steered.json", config.task, config.distil
    if file.is_file():
        return Scores.from_json(json.loads(file.read_text()))
    policy = ClonedPolicy.load(task.policy)
    world, judge = WorldModel.load(task.world), LearnedJudge.load(task.judge)
    steered = SteeredPolicy(
        policy,
        by_value(judge),
        world,
        k=options.plans,
        sigma=options.sigma * policy.action_std,
        lookahead=max(options.lookahead, policy.config.carried),
    )
    starts = Starts(open_episodes(task.held_out), range(config.episodes))
    envs = RealEnvs(lambda: make_env(config.env), starts, num_envs=20)
    scores = evaluate(steered, envs, name="steered", horizon=task.horizon)
    envs.close()
    write_json(file, scores.to_json())
    return scores


def share_kept(scores: Mapping[str, Scores], arm: np.ndarray) -> float:
    """`(distilled - clone) / (steered - clone)`, how much of the planner's gain the policy has learnt."""
    clone = scores["clone"].mean
    return float((arm.mean() - clone) / (scores["steered"].mean - clone))


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
    if config.steered and "distil" in config.arms:
        learnt = np.mean([scores["real"][f"distil-{seed}"].outcomes for seed in config.seeds], axis=0)
        policies["steered"] = {
            "real": scores["real"]["steered"].mean,
            "against_clone": compared(scores["real"], "clone", "steered"),
            "share_distilled": share_kept(scores["real"], learnt),
        }
    described = json.loads(json.dumps(asdict(config), default=str))
    pooled = over_seeds(config, scores["real"])
    return {"config": described, "policies": policies, "over_seeds": pooled, "trials": trials}


def show(found: dict) -> None:
    """Print Markdown tables: every policy, and the arms over all seeds; differences are in points of real success."""
    rows, controls = [], found["config"]["controls"]
    for name, row in found["policies"].items():
        against = row.get("against", {})
        parts = [row.get("optimism"), row.get("against_clone"), *(against.get(name) for name in controls)]
        cells = ["-" if part is None else words(part) for part in parts]
        dreamed = f"{row['dream']:.2f}" if "dream" in row else "-"
        rows.append([name, f"{row['real']:.2f}", dreamed, *cells])
    heads = ["policy", "real", "dream", "dream - real", "against the clone", *(f"against {name}" for name in controls)]
    print(f"## {found['config']['env']}\n\n{table(heads, rows)}\n")
    pooled = [[name, words(part)] for name, part in found["over_seeds"].items()]
    print(f"## Means over the seeds\n\n{table(['difference', 'points of real success'], pooled)}")
    if "steered" in found["policies"]:
        print(
            f"\nOf what the planner gains the policy has learnt {found['policies']['steered']['share_distilled']:.2f}."
        )


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
