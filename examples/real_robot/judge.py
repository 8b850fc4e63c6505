"""A judge for the Unitree G1 that picks up a bottle: has the right arm gone out to where demonstrations hold it?

It looks at the states that the world model predicts, so it says nothing about the bottle itself. It is an example of
what `--judge module:name` takes, not a measure to publish.
"""

import torch

from policy_eval import Verdict

ARM = slice(7, 14)
"""Joints of the right arm in `observation.state`."""
REST = torch.tensor([-0.65, -0.24, -0.19, 1.02, 0.12, -0.61, 0.36])
"""Mean at the first frames of the 64 training episodes, rad."""
OUT = torch.tensor([-0.46, -0.24, 0.08, 0.49, 0.12, -0.43, 0.84])
"""Mean at their 90th frame."""


def reached(observation):
    """Reward: how much of the way from REST to OUT the arm has gone, 0 to 1; success from 0.8 on."""
    way = OUT - REST
    gone = ((observation.states[:, ARM].cpu() - REST) @ way / (way @ way)).clamp(0, 1)
    return Verdict(rewards=gone, successes=gone > 0.8)
