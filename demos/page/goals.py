"""Goals on the page of the drive: "make this frame the goal", then "go there"."""

from demos.driving.go_there import ARRIVED, GoThere
from demos.driving.pictures import picture
from demos.driving.session import DriveSession
from demos.driving.visitors import Visitors
from policy_eval.judge.goals.judge import GoalJudge
from worldmodel.dreams.verdict import Judge
from worldmodel.model.folder import find_optional
from worldmodel.world_model import WorldModel

SHIPPED_JUDGE = "checkpoints/judges/pusht-goals"
BUTTONS = (
    '<button type="button" class="act wide" data-do="goal">Make this frame the goal</button>'
    '<button type="button" class="act wide" data-do="go" aria-pressed="false">Go there</button>'
)
PLACE = (
    '<div id="goal" hidden><span>goal</span><span class="pictures"></span><span id="nearness" aria-live="polite">'
    "</span></div>"
)
"""Where the script shows the goal."""


class Goals:
    """The goals of all visitors.

    Args:
        judge: Tells how near a frame is to a goal.
        visitors: The visitors who drive.
    """

    def __init__(self, judge: GoalJudge, visitors: Visitors):
        self.judge, self.visitors = judge, visitors
        self._drives: dict[str, GoThere] = {}

    def set(self, visitor: str, session: DriveSession) -> dict:
        """Make the current frame of a session the visitor's goal; returns what the page shows of it."""
        self._drives = {name: drive for name, drive in self._drives.items() if self.visitors.is_here(name)}
        frames = session.now.frames
        self._drives[visitor] = GoThere(self.judge.with_goals(frames[None]))
        return {"goal": [picture(frame) for frame in frames], "nearness": "this frame"}

    def go(self, visitor: str, session: DriveSession) -> dict:
        """Dream one frame towards the visitor's goal; returns what the page says about it.

        Raises:
            ValueError: There is no goal yet.
        """
        if visitor not in self._drives:
            raise ValueError("there is no goal yet: drive to a frame, make it the goal, then drive or start elsewhere")
        drive = self._drives[visitor]
        going = drive.step(session)
        away = drive.steps(session.now)
        said = "reached" if away < ARRIVED else f"about {away:.0f} steps away"
        return {"going": going, "nearness": said if going or away < ARRIVED else f"{said}, no way nearer was found"}

    def stop(self, visitor: str) -> None:
        """The visitor does something else: the plan is forgotten, the goal is kept."""
        if visitor in self._drives:
            self._drives[visitor].restart()


def find_goal_judge(judge: Judge | None, world: WorldModel) -> GoalJudge | None:
    """The judge of the demo if it is one of goals; else the shipped one if it looks at the world model's pictures."""
    if isinstance(judge, GoalJudge):
        return judge
    if find_optional(SHIPPED_JUDGE, "judge.json") is None:
        return None
    shipped = GoalJudge.load(SHIPPED_JUDGE, world.device)
    fits = (tuple(shipped.shape.views), tuple(shipped.shape.size)) == (tuple(world.views), tuple(world.size))
    return shipped if fits else None
