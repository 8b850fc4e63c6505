"""Drive to a goal without a policy: imagine many pushes, judge where they lead, carry out the best, look again."""

import torch
from jaxtyping import Float32
from torch import Tensor

from demos.driving.counterfactuals import imagine_futures, proposals
from demos.driving.session import DriveSession, Moment
from policy_eval.judge.goals.judge import GoalJudge

FUTURES = 16
"""Pushes to choose from."""
HORIZON = 8
"""Imagined frames."""
CARRIED_OUT = 4
"""Frames of the best push that are carried out before the next choice."""
ARRIVED = 1.5
"""Steps from the goal, as the judge tells them, at which the drive ends. This is stricter than the judge's threshold:
whoever asks to go somewhere sees every step that is missing."""
PATIENCE = 32
"""Frames without coming nearer after which the drive ends, wherever it is."""


class GoThere:
    """Random shooting with a receding horizon, in the place of a policy.

    Of the futures of every key held, of rest, of random pushes and of the rest of the last plan it takes the one with
    the frame that is nearest to the goal, and carries it out up to that frame, but at most 4 frames.

    Args:
        judge: The judge, with the goal.
    """

    def __init__(self, judge: GoalJudge):
        self.judge = judge
        self.restart()

    def restart(self) -> None:
        """Forget the plan, for example after another start or an undo."""
        self.plan: list[Tensor] = []
        self.left, self.waited, self.best = 0, 0, float("inf")

    def steps(self, moment: Moment) -> float:
        """About how many steps a frame is away from the goal."""
        return float(self.judge.steps(moment.frames[None])[0])

    def step(self, session: DriveSession) -> bool:
        """Dream one frame towards the goal, unless the drive has ended; returns whether to go on."""
        away = self.steps(session.now)
        self.waited = 0 if away < self.best else self.waited + 1
        self.best = min(self.best, away)
        if away < ARRIVED or self.waited >= PATIENCE:
            self.restart()
            return False
        if not self.left:
            self.plan, self.left = self.choose(session)
        session.advance(self.plan.pop(0), frozenset({"go there"}))
        self.left -= 1
        return True

    def choose(self, session: DriveSession) -> tuple[list[Float32[Tensor, "a"]], int]:
        """The pushes of the best future, and how many of them to carry out."""
        seed = session.num_frames + 1
        pushes = proposals(session.bindings, k=FUTURES, horizon=HORIZON, speed=session.speed, seed=seed)
        if self.plan:
            again = torch.stack([*self.plan, *[torch.zeros(session.world.action_dim)] * HORIZON])[:HORIZON]
            pushes["the rest of the plan"] = again
        futures = imagine_futures(session, pushes)
        scores = self.judge.score(futures.frames[:, 1:].flatten(0, 1)).view(len(pushes), HORIZON)
        future, frame = divmod(int(scores.argmax()), HORIZON)
        return list(pushes[futures.names[future]]), min(frame + 1, CARRIED_OUT)
