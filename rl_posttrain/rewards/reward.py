"""What a reward is, and the rollouts that it scores."""

import traceback
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rl_posttrain.rewards.credit import Values
from worldmodel.data.clip import Clip
from worldmodel.resolve import one_line


@dataclass(frozen=True)
class Rollout:
    """Imagined frames and the recorded ones, under the same actions; rewards score this.

    Attributes:
        imagined: `t + 1` frames, the first the one at which the first action is applied, with the
            predicted states; its actions are the commanded ones.
        reference: The recorded frames, states and successes of the same stretch; `None` where there is no
            recording, as in `imagine`.
    """

    imagined: Clip
    reference: Clip | None


@runtime_checkable
class Reward(Protocol):
    """A reward is called with a rollout of `b` candidates; a plain function is enough.

    See `docs/extend/reward.md` for rewards of yours.
    """

    def __call__(self, rollout: Rollout) -> Values:
        """Higher is better: one number for each candidate, or a map over frames, cameras and cells.

        A map has the axes `b t v h w`: `t` dreamed frames (the first frame, which is given, is left out), `v` cameras,
        and `h w` cells of equal size; `t`, `v`, `h` and `w` may be 1.
        """
        ...


def failure(name: str, error: Exception) -> str:
    """One line about a reward of the user that raised an error: which one, what, and the line of the reward itself."""
    place = traceback.extract_tb(error.__traceback__)[:2][-1]  # not a line of what the reward calls
    return f"reward {name}: {one_line(error)} ({place.filename}, line {place.lineno})"
