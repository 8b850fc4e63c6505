"""What is drawn of the rewards of a run."""

import pytest

from rl_posttrain.posttraining.curves import reward_curves


def test_candidates_have_one_curve():
    label, curves = reward_curves([{"step": 0, "reward": 1.5, "reward.fidelity": 1.5}, {"step": 1, "reward": 1.6}])
    assert label == "reward"
    (steps, values) = curves["fidelity of the candidates"]
    assert (steps, values.tolist()) == ([0, 1], [1.5, 1.6])


def test_rewards_with_a_gradient_are_drawn_as_changes():
    rows = [{"step": step, "regression": 0.1, "reward.realism": -2.0} for step in range(10)]
    label, curves = reward_curves([*rows, {"step": 10, "regression": 0.1, "reward.realism": -1.0}])
    assert label == "change of the rewards, relative"
    assert set(curves) == {"realism"}
    assert curves["realism"][1][-1] == pytest.approx(0.5)
    assert curves["realism"][1][0] == 0


def test_without_rewards_there_is_no_curve():
    assert reward_curves([]) == ("change of the rewards, relative", {})
    assert reward_curves([{"step": 0, "regression": 0.1}])[1] == {}
