import torch

from worldmodel.model.flow import add_noise, euler_step, guided, ramp_weight, sample, shortcut_target, velocity


def test_add_noise_is_a_straight_path_with_data_at_one():
    x, noise = torch.tensor([[[2.0]]]), torch.tensor([[[-2.0]]])
    values = [add_noise(x, noise, torch.tensor([[tau]])).item() for tau in (0.0, 0.25, 1.0)]
    assert values == [-2.0, -1.0, 2.0]


def test_ramp_weight_is_the_published_one_by_default():
    torch.testing.assert_close(ramp_weight(torch.tensor([0.0, 1.0])), torch.tensor([0.1, 1.0]))


def test_euler_step_moves_towards_the_prediction():
    z, x_hat = torch.tensor([[[0.0]]]), torch.tensor([[[3.0]]])
    assert velocity(z, x_hat, torch.tensor([[0.5]])).item() == 6.0
    assert euler_step(z, x_hat, 0.5, 0.25).item() == 1.5


def test_sample_ends_at_the_prediction_whatever_the_number_of_steps():
    clean = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    for num_steps in (1, 2, 4):
        (end,) = sample(lambda z, tau, d: (clean,), (noise,), num_steps)
        torch.testing.assert_close(end, clean)


def test_sample_tells_noise_level_and_step_size():
    seen = []

    def predict(z, tau, step_size):
        seen.append((tau, step_size))
        return z

    sample(predict, (torch.zeros(1, 2, 1),), 4)
    assert seen == [(0.0, 0.25), (0.25, 0.25), (0.5, 0.25), (0.75, 0.25)]


def test_shortcut_target_is_where_two_half_steps_lead():
    """x_hat = 1 first, then 2, z = tau = 0, d = 1: b' = 1, z' = .5, b'' = 3, x* = 2."""
    answers = iter([torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]])])
    calls = []

    def predict(z, tau, step_size):
        calls.append((z[0].item(), tau.item(), step_size.item()))
        return (next(answers),)

    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    (target,) = shortcut_target(predict, (torch.zeros(1, 1, 1),), zero, one)
    assert calls == [(0.0, 0.0, 0.5), (0.5, 0.5, 0.5)]
    assert target.item() == 2.0


def test_guidance_goes_on_from_the_prediction_without_an_action():
    """x_null = 1, x = 3: with weight 1.5 the prediction is 1 + 1.5 * 2 = 4, with weight 1 it is x."""
    told, untold = ((lambda z, tau, d, value=value: (torch.tensor(value),)) for value in (3.0, 1.0))
    answers = [guided(told, untold, weight)((), 0.0, 1.0)[0].item() for weight in (0.0, 1.0, 1.5)]
    assert answers == [1.0, 3.0, 4.0]
