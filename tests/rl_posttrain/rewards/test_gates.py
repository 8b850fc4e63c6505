"""Rewards that count only for candidates that are good in the other kind."""

import pytest
import torch

from rl_posttrain.rewards.agreement import motion_agreement
from rl_posttrain.rewards.gates import at_least_median, gates
from rl_posttrain.rewards.mix import RewardMix, weighted_sum

TERMS = {
    "fidelity": torch.tensor([[1.0, 2.0, 3.0, 4.0]]),
    "agreement": torch.tensor([[9.0, 7.0, 8.0, 6.0]]),
    "executability": torch.tensor([[4.0, 3.0, 2.0, 1.0]]),
}
"""Candidates 2 and 3 are the faithful ones; candidates 0 and 2 do what was commanded."""


def test_half_of_a_group_passes():
    assert at_least_median(TERMS["fidelity"]).tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert at_least_median(torch.tensor([[5.0, 5.0, 5.0]])).tolist() == [[1.0, 1.0, 1.0]]
    maps = torch.tensor([[[0.0, 9.0], [5.0, 5.0], [4.0, 4.0]]])  # the means 4.5, 5 and 4 decide
    assert at_least_median(maps).tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("gate", "gated"),
    [
        ("none", set()),
        ("actions", {"agreement", "executability"}),
        ("fidelity", {"fidelity", "moving_area", "on_track"}),
        ("both", {"agreement", "executability", "fidelity", "moving_area", "on_track"}),
    ],
)
def test_each_kind_is_gated_by_the_other(gate, gated):
    found = gates(TERMS, gate)
    assert set(found) == gated
    if "agreement" in gated:
        assert found["executability"].tolist() == [[0.0, 0.0, 1.0, 1.0]]
    if "fidelity" in gated:
        assert found["on_track"].tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_behind_a_closed_gate_a_candidate_gets_what_the_worst_gets():
    """Of the faithful candidates 2 and 3 the former does better; candidate 0, the best of all, earns nothing."""
    rewards = dict.fromkeys(TERMS, motion_agreement)
    mix = RewardMix(rewards, {"fidelity": 0.0, "agreement": 1.0}, None, gate="actions")
    total = mix.total(TERMS)[0]
    assert total[0] == total[1] == total[3] and total[2] > total[0]
    scale = 1.25**0.5 + 1e-4  # 9, 7, 8, 6 are 1.5, -0.5, 0.5, -1.5 from their mean
    torch.testing.assert_close(total, torch.tensor([-1.5, -1.5, 0.5, -1.5]) / scale)
    free = RewardMix(rewards, {"fidelity": 0.0, "agreement": 1.0}, None).total(TERMS)[0]
    assert int(free.argmax()) == 0


def test_a_gate_closes_every_cell_of_a_candidate():
    maps = {"fidelity": torch.tensor([[[1.0, 5.0], [2.0, 1.0]]])}
    total = weighted_sum(maps, {"fidelity": 1.0}, {"fidelity": torch.tensor([[0.0, 1.0]])})[0]
    torch.testing.assert_close(total, torch.tensor([[-1.0, -1.0], [1.0, -1.0]]), atol=1e-3, rtol=0)
