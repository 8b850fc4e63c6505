"""The tasks of `imagination.py`: world, judge, clone, demonstrations and held-out starts."""

from dataclasses import dataclass
from pathlib import Path


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
