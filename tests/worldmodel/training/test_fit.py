"""One supervised fit: its steps by hand, its schedules, and its errors."""

import pytest
import torch
from torch import nn

from worldmodel.training.fit import fit


class Number(nn.Module):
    """A single weight that starts at 0."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_a_constant_slope_is_followed_at_the_learning_rate(decay):
    """Under a constant gradient Adam moves by the learning rate, which halves; 0.01 of the weight decays."""
    module, seen = Number().eval(), []

    def loss_of(step):
        seen.append((step, module.value.item(), module.training))
        return -3 * module.value

    loss = fit(module, loss_of, steps=2, learning_rate=0.1, name="number", decay=decay)
    after_one = 0.1
    after_two = after_one * (1 - 0.01 * 0.05) + 0.05
    assert [step for step, _, _ in seen] == [0, 1] and all(training for _, _, training in seen)
    assert seen[1][1] == pytest.approx(after_one) and module.value.item() == pytest.approx(after_two)
    assert loss == pytest.approx(-3 * after_one)  # of the last step, a tenth of two being one
    assert not module.training


def test_schedules_differ_between_their_ends():
    """A quarter of the way the cosine has fallen to 0.854, the line to 0.75."""
    moved = {}
    for decay in ("cosine", "linear"):
        module, places = Number(), []

        def loss_of(step, module=module, places=places):
            places.append(module.value.item())
            return -module.value

        fit(module, loss_of, steps=4, learning_rate=1e-3, name="number", decay=decay)
        moved[decay] = (places[2] - places[1]) / (places[1] - places[0])
    assert moved["cosine"] == pytest.approx(0.8536, abs=1e-3)
    assert moved["linear"] == pytest.approx(0.75, abs=1e-3)


def test_the_mean_loss_is_that_of_the_last_tenth():
    module = Number()
    loss = fit(module, lambda step: 0 * module.value + step, steps=20, learning_rate=0.1, name="number")
    assert loss == pytest.approx((18 + 19) / 2)


def test_a_loss_that_is_not_finite_is_named():
    module = Number()

    def loss_of(step):
        return module.value + (float("nan") if step == 1 else 0)

    with pytest.raises(ValueError, match=r"number, step 1: loss is nan; lower the learning rate, 0\.25"):
        fit(module, loss_of, steps=3, learning_rate=0.25, name="number")
