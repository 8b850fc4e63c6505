"""A world, a judge, policies and starts of PushT-Position, all untrained and tiny."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from worldmodel.envs.record import RecordConfig, record


@dataclass(frozen=True)
class RankSet:
    """Folders."""

    world: Path
    judge: Path
    policies: Path
    starts: Path

    def flags(self, out: Path, *more: str) -> list[str]:
        """Arguments of `worldmodel rank`."""
        flags = ["--world", self.world, "--judge", self.judge, "--policies", self.policies]
        flags += ["--data", self.starts, "--out", out, "--num-steps", "1", "--device", "cpu"]
        return [*map(str, flags), *more]


def write_rank_set(folder: Path, *, policies: int = 3, episodes: int = 4) -> RankSet:
    """Write everything that `worldmodel rank` reads; the judge has its opinions."""
    made = RankSet(*(folder / name for name in ("world", "judge", "policies", "starts")))
    settings = {"behaviour": "play", "workers": 1}
    record(RecordConfig("pusht-position", episodes=episodes, seed=5, out=made.starts, **settings))
    tiny_world(size=(64, 64)).save(made.world)
    torch.manual_seed(1)
    LearnedJudge(JudgeShape(("top", "wrist"), (64, 64), width=8), threshold=0.5).save(made.judge)
    for index in range(policies):
        torch.manual_seed(index)
        config = PolicyConfig(("top",), (64, 64), 2, 2, relative_to={0: 0, 1: 1}, width=8)
        policy = ClonedPolicy(config)
        policy.action_std.fill_(40.0)
        policy.save(made.policies / f"policy-{index}")
    return made
