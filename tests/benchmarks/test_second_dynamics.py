"""The second inverse dynamics are another network than those that reward."""

import pytest
import torch
from places import BENCHMARKS

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from worldmodel.data import Clip


@pytest.fixture
def second(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import second_dynamics

    return second_dynamics


def test_the_second_network_has_no_keypoints_and_reads_fewer_frames(second):
    torch.manual_seed(0)
    config = InverseDynamicsConfig(views=("top", "wrist"), size=(16, 16), action_dim=2)
    dynamics = second.convolutional(InverseDynamics(config))
    assert not any(isinstance(module, type(InverseDynamics(config).encoders[0])) for module in dynamics.modules())
    assert dynamics.window == second.BEFORE + 2 + second.AFTER < InverseDynamics(config).window
    frames = torch.randint(0, 256, (1, 6, 2, 16, 16, 3), dtype=torch.uint8)
    changed = frames.clone()
    changed[:, 5] = 0
    read, other = (dynamics.decode(Clip(f, torch.zeros(1, 5, 2), None)) for f in (frames, changed))
    assert read.shape == (1, 5, 2)
    same = (read == other).all(-1)[0].tolist()  # an action is read from two frames after it is applied at most
    assert same == [True, True, True, False, False]
