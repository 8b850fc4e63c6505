"""Train a graded set of policies and measure their real success.

python benchmarks/policies.py --task pusht-position

The recipes differ in demonstrations, training, cameras, proprioception, planning and noise, so that
the policies fail in different ways; at most a third of a set is noise on another policy's actions.
Finished policies are kept, so a killed run continues. Writes one folder per policy and `real.json`
with every trial.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.progress import Progress

from policy_eval.evaluation import evaluate
from policy_eval.policies.clone import CloneConfig, clone
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.ranking.rank import Score
from policy_eval.real_envs import RealEnvs
from policy_eval.scores import Scores
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.files import write_json


@dataclass(frozen=True)
class Noisy:
    """Another policy of the set with noise on its actions."""

    policy: str
    sigma: float


@dataclass(frozen=True)
class Task:
    """A graded set.

    Attributes:
        env: The environment.
        demonstrations: The data set to clone from, and the command that records it.
        starts: The data set of held-out starts, likewise.
        horizon: Most steps of a trial.
        common: Settings that all recipes share.
        recipes: What is special about each policy.
    """

    env: str
    demonstrations: str
    starts: str
    horizon: int
    common: dict
    recipes: dict[str, dict | Noisy]


SECOND = "data/pusht-position-demos-b"

TASKS = {
    # worldmodel record pusht-position --behaviour expert --episodes 400 --seed 1 --out ...-demos
    # worldmodel record pusht-position --behaviour expert --episodes 160 --seed 11 --out ...-demos-b
    # worldmodel record pusht-position --episodes 120 --seed 2 --out ...-heldout
    "pusht-position": Task(
        env="pusht-position",
        demonstrations="data/pusht-position-demos",
        starts="data/pusht-position-heldout",
        horizon=60,
        common={"relative_to": {0: 0, 1: 1}},
        recipes={
            "demos-150": {"data": SECOND, "demos": 150, "steps": 1200},
            "top-only": {"steps": 1200, "views": ("top",)},
            "chunk-4": {"data": SECOND, "demos": 150, "steps": 900, "chunk": 4},
            "no-proprioception": {
                "data": SECOND,
                "demos": 150,
                "steps": 900,
                "proprioception": False,
                "relative_to": {},
            },
            "short-training": {"data": SECOND, "demos": 150, "steps": 500},
            "demos-60": {"data": SECOND, "demos": 60, "steps": 700},
            "noise-150": Noisy("demos-150", 150.0),
            "noise-60": Noisy("demos-150", 60.0),
        },
    ),
    # worldmodel record metaworld:push-v3 --episodes 400 --out data/push
    # worldmodel record metaworld:push-v3 --episodes 120 --seed 2 --out ...-heldout
    "metaworld-push-v3": Task(
        env="metaworld:push-v3",
        demonstrations="data/push",
        starts="data/metaworld-push-v3-heldout",
        horizon=30,
        common={"longest": 25},
        recipes={
            "demos-134": {"demos": 134, "steps": 800},
            "demos-50": {"demos": 50, "steps": 600},
            "wrist-only": {"demos": 134, "steps": 600, "views": ("wrist",), "proprioception": False},
            "demos-15": {"demos": 15, "steps": 400},
            "short-training": {"demos": 134, "steps": 250},
            "noise-15": Noisy("demos-134", 0.15),
            "noise-30": Noisy("demos-134", 0.3),
            "chunk-3": {"demos": 134, "steps": 500, "chunk": 3},
        },
    ),
    # worldmodel record metaworld:window-open-v3 --episodes 400 --out data/window-open
    # worldmodel record metaworld:window-open-v3 --episodes 120 --seed 2 --out ...-heldout
    "metaworld-window-open-v3": Task(
        env="metaworld:window-open-v3",
        demonstrations="data/window-open",
        starts="data/window-open-heldout",
        horizon=30,
        common={"longest": 25},
        recipes={
            "demos-8": {"demos": 8, "steps": 300},
            "demos-4": {"demos": 4, "steps": 300},
            "demos-3": {"demos": 3, "steps": 300},
            "demos-2": {"demos": 2, "steps": 300},
            "scene-only": {"demos": 20, "steps": 300, "views": ("scene",), "proprioception": False},
            "wrist-only": {"demos": 20, "steps": 300, "views": ("wrist",), "proprioception": False},
            "chunk-4": {"demos": 3, "steps": 300, "chunk": 4},
            "noise-100": Noisy("demos-8", 1.0),
            "noise-150": Noisy("demos-8", 1.5),
        },
    ),
    # worldmodel record metaworld:button-press-topdown-v3 --episodes 300 --out data/button-press
    # worldmodel record metaworld:button-press-topdown-v3 --episodes 120 --seed 2 --out ...-heldout
    "metaworld-button-press-topdown-v3": Task(
        env="metaworld:button-press-topdown-v3",
        demonstrations="data/button-press",
        starts="data/button-press-heldout",
        horizon=30,
        common={"longest": 25},
        recipes={
            "demos-2": {"demos": 2, "steps": 300},
            "demos-1": {"demos": 1, "steps": 300},
            "short-60": {"demos": 20, "steps": 60},
            "short-30": {"demos": 20, "steps": 30},
            "scene-only": {"demos": 20, "steps": 300, "views": ("scene",), "proprioception": False},
            "scene-3": {"demos": 3, "steps": 300, "views": ("scene",), "proprioception": False},
            "wrist-1": {"demos": 1, "steps": 300, "views": ("wrist",), "proprioception": False},
            "chunk-4": {"demos": 3, "steps": 300, "chunk": 4},
            "noise-100": Noisy("demos-2", 1.0),
        },
    ),
}


CARD = """\
# Graded policies

Small visuomotor policies, cloned from scripted experts to be differently good, on purpose; chosen
before they were let into a dream. `python benchmarks/policies.py --task TASK` trains and measures
them, and `real.json` holds every trial with its reset seed, in the form that `worldmodel rank
--real` reads. Settings that a recipe does not name are those of the task in
`benchmarks/policies.py`.

`imagination/` is what `benchmarks/imagination.py` begins from, cloned until more steps brought
little: `worldmodel clone --data data/push --demos 25 --longest 25 --steps 2500`, and `worldmodel
clone --data data/pusht-position-demos-b --demos 25 --relative-to 0 0 1 1 --steps 3000`.
"""


@dataclass(frozen=True)
class PoliciesConfig:
    """Train a graded set of policies and measure their real success."""

    task: str = "pusht-position"
    """One of the sets in this file."""
    out: Path = Path("runs/policies")
    """Policies go to a folder per task below this one."""
    episodes: int = 100
    """Real trials of each policy, from held-out starts."""
    num_envs: int = 10
    """Simulators stepped together."""
    only: tuple[str, ...] = ()
    """Names of the policies to do; all when not given."""


def train(task: Task, name: str, out: Path) -> Path:
    """Clone one policy, unless it is there already."""
    folder = out / name
    if (folder / "policy.json").exists():
        return folder
    recipe = task.recipes[name]
    if isinstance(recipe, Noisy):
        policy = ClonedPolicy.load(train(task, recipe.policy, out))
        policy.config = replace(policy.config, action_noise=recipe.sigma)
        policy.save(folder)
        return folder
    settings = {"data": task.demonstrations} | task.common | recipe
    return clone(CloneConfig(**settings | {"data": Path(settings["data"]), "out": folder}))


def measure(task: Task, folders: list[Path], config: PoliciesConfig) -> dict[str, Scores]:
    """Real success of every policy; trials that are stored already are not repeated."""
    file = config.out / config.task / "real.json"
    stored = json.loads(file.read_text()) if file.exists() else {}
    starts = Starts(open_episodes(Path(task.starts)), range(config.episodes))
    envs = RealEnvs(lambda: make_env(task.env), starts, num_envs=config.num_envs)
    with Progress() as progress:
        bar = progress.add_task("real trials", total=len(folders) * config.episodes)
        for folder in folders:
            known = stored.get(folder.name)
            if known and tuple(known["seeds"]) == starts.seeds:
                progress.advance(bar, config.episodes)
                continue
            scores = evaluate(
                ClonedPolicy.load(folder),
                envs,
                name=folder.name,
                horizon=task.horizon,
                progress=lambda n: progress.advance(bar, n),
            )
            stored[folder.name] = scores.to_json()
            write_json(file, stored)
    envs.close()
    return {folder.name: Scores.from_json(stored[folder.name]) for folder in folders}


def write_card(folder: Path) -> None:
    """A README with the real success of every measured set in `folder`."""
    rows = []
    for task, about in TASKS.items():
        file = folder / task / "real.json"
        if not file.exists():
            continue
        for name, stored in json.loads(file.read_text()).items():
            score = Score.of(Scores.from_json(stored).outcomes)
            recipe = about.recipes[name]
            if isinstance(recipe, Noisy):
                words = f"{recipe.policy} with noise of sigma {recipe.sigma:g} on its actions"
            else:
                words = ", ".join(f"{key} {value}" for key, value in recipe.items())
            shown = f"{score.score:.2f} ({score.low:.2f}..{score.high:.2f}) of {score.n}"
            rows.append(f"| {task} | {name} | {shown} | {words} |")
    head = "| task | policy | real success, 95% interval | recipe |\n|---|---|---|---|"
    (folder / "README.md").write_text(f"{CARD}\n{head}\n" + "\n".join(rows) + "\n")


def main(config: PoliciesConfig) -> None:
    """Train, measure, print."""
    if config.task not in TASKS:
        raise SystemExit(f"there is no set {config.task!r}; known are {', '.join(TASKS)}")
    task = TASKS[config.task]
    out = config.out / config.task
    unknown = sorted(set(config.only) - set(task.recipes))
    if unknown:
        raise SystemExit(f"{config.task} has no policies {unknown}; known: {list(task.recipes)}")
    folders = [train(task, name, out) for name in config.only or task.recipes]
    for name, scores in measure(task, folders, config).items():
        print(f"{name:20} {scores.mean:.2f} of {len(scores)}, {scores.steps.mean():.1f} steps")
    write_card(config.out)


if __name__ == "__main__":
    main(tyro.cli(PoliciesConfig))
