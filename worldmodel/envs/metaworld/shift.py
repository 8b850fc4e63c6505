"""Controlled shifts of Meta-World, one change each, to measure world models out of distribution."""

from gymnasium import spaces

SHIFTS = ("start-region", "goal-region", "camera", "action-noise")
CAMERA = {"azimuth": 150.0, "elevation": -30.0}
"""The scene camera of the shift `camera`: turned by 15 degrees and lowered by 5 degrees."""


def move_start_region(task: str, region: spaces.Box) -> None:
    """Move x of the object's start into the strip beside its region, half as wide.

    The random vector of Meta-World's tasks begins with the object's x. For push-v3, -0.1..0.1 m
    becomes 0.1..0.2 m, within reach of hand and play; what else is random stays as it is.

    Args:
        task: Name of the task, for the message.
        region: The region from which the task draws its random vector; changed in place.

    Raises:
        ValueError: The object's x is not random in this task.
    """
    low, high = region.low[0], region.high[0]
    if low == high:
        raise ValueError(f"start-region needs an object that starts at a random x; in {task} it is always {low}")
    region.low[0], region.high[0] = high, high + (high - low) / 2


def move_goal_region(task: str, region: spaces.Box) -> None:
    """Move x of the goal into the strip beside its region, half as wide.

    Where a task draws object and goal, its random vector is x, y, z of the object and x, y, z of the goal. For
    reach-v3, -0.1..0.1 m becomes 0.1..0.2 m; what else is random stays as it is.

    Args:
        task: Name of the task, for the message.
        region: The region from which the task draws its random vector; changed in place.

    Raises:
        ValueError: The goal's x is not random in this task.
    """
    if region.shape != (6,) or region.low[3] == region.high[3]:
        raise ValueError(f"goal-region needs a goal at a random x; {task} draws only {region}")
    low, high = region.low[3], region.high[3]
    region.low[3], region.high[3] = high, high + (high - low) / 2
