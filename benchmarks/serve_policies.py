"""Do policies behind a server act as they do in the process? `python benchmarks/serve.py policies`.

Every policy is served by `worldmodel serve --policy` in a process of its own, and acts from the same starts as its twin
in this process. A trial counts as different if its outcome or its number of steps is another one.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from serve import started

from policy_eval.evaluation import evaluate
from policy_eval.policies.find import find_policies, load_policy
from policy_eval.policies.remote import RemotePolicy
from policy_eval.real_envs import RealEnvs
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.envs import make_env
from worldmodel.model.card import table
from worldmodel.processes import single_thread


@dataclass(frozen=True)
class ServedPolicies:
    """Trials of policies in this process and behind a server."""

    data: Path
    """Recorded episodes to start from."""
    policies: tuple[str, ...] = ("checkpoints/policies/pusht-position",)
    """Policies, or folders of policies."""
    real: str = "pusht-position"
    """The environment in which they act."""
    episodes: int = 20
    """Trials of each policy."""
    horizon: int = 60
    """Most steps of a trial."""
    num_envs: int = 5
    """Trials side by side."""


def compare_policies(config: ServedPolicies) -> dict[str, int]:
    """Trials that differ, by policy; prints them."""
    starts = Starts(open_episodes(config.data), range(config.episodes))
    envs = RealEnvs(lambda: make_env(config.real), starts, num_envs=config.num_envs)
    differ, rows = {}, []
    with single_thread():
        for name, spec in find_policies(config.policies).items():
            here = evaluate(load_policy(spec), envs, name=name, horizon=config.horizon)
            with started("--policy", str(spec), "--device", "cpu", threads=1) as (url, _):
                remote = RemotePolicy(url)
                there = evaluate(remote, envs, name=name, horizon=config.horizon)
                remote.close()
            others = (here.outcomes != there.outcomes) | (here.steps != there.steps)
            differ[name] = int(np.sum(others))
            cells = [f"{here.mean:.2f}", f"{there.mean:.2f}", f"{differ[name]} of {len(others)}"]
            rows.append([name, *cells])
    envs.close()
    print(table(["policy", "success in the process", "success over the wire", "trials that differ"], rows))
    return differ
