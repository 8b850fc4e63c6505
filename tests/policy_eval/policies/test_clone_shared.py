"""Cloning in two processes gives the policy of one."""

from pathlib import Path

import pytest
import torch
from in_processes import in_processes

from policy_eval.policies.clone import CloneConfig, Demonstrations, fit_policy
from policy_eval.policies.cloned import PolicyConfig, make_policy
from policy_eval.policies.hindsight import draw_pairs
from worldmodel.training.fit import fit
from worldmodel.training.share import share


def weights(**settings) -> list[float]:
    """Weights after three steps of cloning random demonstrations."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (20, 1, 16, 16, 3), dtype=torch.uint8, generator=generator)
    rows = Demonstrations(frames, None, torch.randn(20, 2, 2, generator=generator), (9, 11), {})
    shape = {"views": ("top",), "size": (16, 16), "action_dim": 2, "state_dim": 0, "chunk": 2, **settings}
    torch.manual_seed(0)
    policy = make_policy(PolicyConfig(**shape))
    # Adam's first steps have about the sign of the gradient alone; so those after the third one are compared.
    fit_policy(policy, rows, CloneConfig(Path("data"), Path("out"), steps=3, batch=6, learning_rate=1e-3))
    return torch.cat([each.flatten() for each in policy.parameters()]).double().tolist()


@pytest.mark.parametrize("settings", [{"head": "flow"}, {"goals": 1}])
def test_two_processes_clone_the_policy_of_one(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (alone,) = in_processes(lambda: weights(**settings), 1)
    first, second = in_processes(lambda: weights(**settings))
    assert first == second
    assert first == pytest.approx(alone, abs=1e-4)
    assert (tmp_path / "out" / "train.log").read_text().count("3 of 3 steps") == 2  # one of them and the one alone


def test_some_pairs_have_their_frames():
    drawn = draw_pairs([9, 11], 16, torch.Generator().manual_seed(0))
    some = drawn.some(slice(20, 50))
    assert torch.equal(some.rows[some.start], drawn.rows[drawn.start[20:50]])
    assert torch.equal(some.rows[some.goal], drawn.rows[drawn.goal[20:50]])
    assert len(some.rows) < len(drawn.rows)


def test_shares_that_are_not_equal_count_by_their_rows():
    """The mean of 1, 2, 6 is 3: one step of gradient descent would go there, the mean of two means would not."""
    values = torch.tensor([1.0, 2.0, 6.0])

    def slope() -> float:
        module = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(module.weight)
        gradients = []
        module.weight.register_post_accumulate_grad_hook(lambda weight: gradients.append(weight))

        def loss_of(step: int) -> torch.Tensor:
            rows = values[share().rows(3)]
            return (module.weight.squeeze() * rows).mean() * share().weight(len(rows), 3)

        last = fit(module, loss_of, steps=1, learning_rate=0.0, name="number")
        return last, module.weight.grad.item()

    assert slope() == (3, 3)
    assert in_processes(slope) == [(3, 3), (3, 3)]
