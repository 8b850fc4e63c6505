"""Record what the graded policies of a task really do, failures included, to train a world on.

    python benchmarks/rollouts.py --task metaworld-push-v3 --out data/push-rollouts

Policies take turns. They act for the whole horizon, also after a success, since a world that has
never seen what follows one cannot dream it. Killed, the command continues where it stood.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from policies import TASKS
from rich.progress import Progress

from policy_eval.policies.find import find_policies, load_policy
from policy_eval.real_rollouts import record_rollouts
from worldmodel.envs import make_env


@dataclass(frozen=True)
class RolloutsConfig:
    """What to record."""

    task: str
    """A task of `benchmarks/policies.py`."""
    out: Path
    """Folder of the LeRobot data set."""
    policies: tuple[str | Path, ...] = ()
    """Folders of policies, folders of such folders, or module:name; the graded set by default."""
    episodes: int = 700
    """Real rollouts, over all policies."""
    seed: int = 77
    """Rollout `i` begins from the reset seed `seed * 100000 + i`; no start may be among them."""


def main(config: RolloutsConfig) -> None:
    """Record."""
    torch.set_num_threads(1)
    task = TASKS[config.task]
    specs = find_policies(config.policies or (Path("checkpoints/policies") / config.task,))
    policies = {name: load_policy(spec) for name, spec in specs.items()}
    with Progress() as progress:
        bar = progress.add_task(f"{len(policies)} policies", total=config.episodes)
        record_rollouts(
            policies,
            make_env(task.env),
            config.out,
            episodes=config.episodes,
            horizon=task.horizon,
            seed=config.seed,
            play_on=True,
            progress=lambda done: progress.update(bar, completed=done),
        )


if __name__ == "__main__":
    main(tyro.cli(RolloutsConfig))
