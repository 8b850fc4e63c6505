"""Rewards on clips made by hand."""

import math
from dataclasses import replace

import pytest
import torch

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from rl_posttrain.rewards.agreement import Agreement, StateAgreement, motion_agreement, motion_energy, seed_agreement
from rl_posttrain.rewards.executability import Executability, Limits, motion, penalty, seen_motion, shortest, violations
from rl_posttrain.rewards.fidelity import Fidelity, moving_fidelity
from rl_posttrain.rewards.mix import weighted_sum
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip
from worldmodel.model.psnr import psnr


def grey(level: float, *, batch=1, frames=3, views=2, side=16) -> torch.Tensor:
    return torch.full((batch, frames, views, side, side, 3), level).to(torch.uint8)


def moving_square(steps, *, side=32) -> torch.Tensor:
    """A white square that jumps by the given numbers of columns."""
    frames, column = [], 8
    for step in (0, *steps):
        column += step
        frame = torch.zeros(side, side, 3, dtype=torch.uint8)
        frame[12:18, column : column + 6] = 255
        frames.append(frame)
    return torch.stack(frames)[None, :, None]


def rollout(imagined, reference, **more) -> Rollout:
    states = {"states": more.pop("states", None)}
    truth = {"states": more.pop("truth", None)}
    return Rollout(Clip(imagined, **states, **more), Clip(reference, **truth, **more))


def test_fidelity_is_best_for_the_truth_and_equal_over_cameras():
    truth = grey(100)
    perfect = Fidelity()(rollout(truth, truth))
    assert perfect.item() == pytest.approx(1 + 50 / 32, abs=1e-3)
    off = truth.clone()
    off[:, 1:, 1] = 110
    one = Fidelity()(rollout(off, truth)).item()
    decibel = -20 * math.log10(10 / 255)
    structure = (2 * 100 * 110 + 2.55**2) / (100**2 + 110**2 + 2.55**2)
    expected = (1 + 50 / 32 + structure + decibel / 32) / 2
    assert one == pytest.approx(expected, abs=1e-3)
    first = truth.clone()
    first[:, 0] = 0  # the frame that the branches begin from does not count
    assert Fidelity()(rollout(first, truth)).item() == pytest.approx(perfect.item())


def test_fidelity_leaves_out_missing_cameras_and_padding():
    truth, off = grey(100), grey(100)
    off[:, :, 1] = 200
    mask = torch.tensor([[True, False]])
    scored = rollout(off, truth, view_mask=mask)
    assert Fidelity()(scored).item() == pytest.approx(1 + 50 / 32, abs=1e-3)
    padded = grey(100)
    padded[:, :, :, :2] = 0
    pixel_mask = torch.ones(1, 2, 16, 16, dtype=torch.bool)
    pixel_mask[:, :, :2] = False
    scored = rollout(padded, truth, pixel_mask=pixel_mask)
    assert Fidelity()(scored).item() == pytest.approx(1 + 50 / 32, abs=1e-3)


def test_fidelity_subtracts_the_perceptual_distance():
    truth = grey(100)
    distance = lambda a, b: torch.full(a.shape[:2], 0.25)  # noqa: E731
    assert Fidelity(distance)(rollout(truth, truth)).item() == pytest.approx(0.75 + 50 / 32, abs=1e-3)


def test_states_by_hand():
    truth = torch.zeros(1, 3, 2)
    states = torch.tensor([[[9.0, 9.0], [2.0, 0.0], [0.0, 4.0]]])
    scored = rollout(grey(0), grey(0), states=states, truth=truth)
    found = StateAgreement(torch.tensor([2.0, 4.0]))(scored)
    assert found.item() == pytest.approx(-(1 + 0 + 0 + 1) / 4)


def test_motion_energy_by_hand_and_standing_still_is_punished():
    frames = grey(10, frames=3)
    frames[:, 1] = 14
    assert motion_energy(frames).item() == pytest.approx(4.0)
    still = rollout(grey(10), frames)
    assert motion_agreement(still).item() == pytest.approx(-math.log(4.1 / 0.1))
    assert motion_agreement(rollout(frames, frames)).item() == 0


def disc(column: int, *, row=10, level=255, side=24) -> torch.Tensor:
    """A recorded frame and two more in which a disc of 12 pixels has moved from column 3."""
    frames = torch.full((3, side, side, 3), 100, dtype=torch.uint8)
    for frame, left in zip(frames, (3, column, column), strict=True):
        frame[row : row + 4, left + 1 : left + 3] = level
        frame[row + 1 : row + 3, left : left + 4] = level
    return frames[None, :, None]


def lost() -> torch.Tensor:
    """The disc is in the first frame only."""
    frames = disc(12, level=100)
    frames[:, 0] = disc(12)[:, 0]
    return frames


CONTRAST = (155 / 255) ** 2
"""Squared error of a pixel that shows the disc instead of the background."""


def test_a_lost_object_is_worse_than_one_beside_its_place_where_plain_psnr_cannot_tell():
    truth, beside = disc(12), disc(13)
    # the whole picture is a little off, by as much as the 4 pixels that the lost disc has more
    beside[:, 1:] += (beside[:, 1:] == 100) * 14
    plain = [psnr(x[:, 1:], truth[:, 1:]).mean().item() for x in (lost(), beside)]
    assert plain[0] == pytest.approx(plain[1], abs=0.1)
    gone, off = (moving_fidelity(rollout(x, truth)).item() for x in (lost(), beside))
    # 12 pixels are wrong of the dilated discs of 32 at the old and the new place
    assert gone == pytest.approx(-10 * math.log10(12 * CONTRAST / 64), abs=1e-3)
    assert off > gone + 1.4


def test_inventing_motion_never_pays():
    truth = disc(12)
    flickering = lost()
    for corner in (1, 5, 20):
        flickering[:, 1:, :, corner, 20] += 30  # isolated: a masked PSNR would rise by their areas
    assert moving_fidelity(rollout(flickering, truth)) < moving_fidelity(rollout(lost(), truth))
    still = disc(3)
    assert moving_fidelity(rollout(still, still)).item() == pytest.approx(50)
    assert moving_fidelity(rollout(disc(5), still)).item() < 20


def test_moving_areas_are_a_mean_over_cameras_without_padding():
    truth = torch.cat([disc(12), disc(3)], dim=2)
    dream = torch.cat([lost(), disc(3)], dim=2)
    one = moving_fidelity(rollout(lost(), disc(12))).item()
    both = moving_fidelity(rollout(dream, truth)).item()
    assert both == pytest.approx((one + 50) / 2, abs=1e-3)
    mask = torch.tensor([[True, False]])
    assert moving_fidelity(rollout(dream, truth, view_mask=mask)).item() == pytest.approx(one)
    padded, pixels = lost(), torch.ones(1, 1, 24, 24, dtype=torch.bool)
    padded[:, 1:, :, :2], pixels[:, :, :2] = 0, False
    assert moving_fidelity(rollout(padded, disc(12))).item() < one
    scored = rollout(padded, disc(12), pixel_mask=pixels)
    assert moving_fidelity(scored).item() == pytest.approx(one)


def test_differences_shift_by_one_order_for_displacements():
    actions = torch.tensor([[[1.0], [3.0], [6.0], [10.0]]])
    velocity, acceleration, jerk = motion(actions, displacement=True)
    assert velocity.flatten().tolist() == [1, 3, 6, 10]
    assert acceleration.flatten().tolist() == [2, 3, 4]
    assert jerk.flatten().tolist() == [1, 1]
    velocity, acceleration, jerk = motion(actions, displacement=False)
    assert velocity.flatten().tolist() == [2, 3, 4]
    assert jerk.flatten().tolist() == [0]
    assert (shortest(True), shortest(False)) == (3, 4)


def test_limits_and_penalty_by_hand():
    one = torch.ones(1)
    limits = Limits(
        velocity=2 * one,
        acceleration=one,
        low=-one,
        high=3 * one,
        acceleration_scale=2 * one,
        jerk_scale=4 * one,
        displacement=True,
    )
    actions = torch.tensor([[[0.0], [1.0], [5.0]]])
    # velocity 5 exceeds 2 by 1.5 units; acceleration 4 exceeds 1 by 3; action 5 exceeds 3 by 1 span
    expected = 1.5**2 / 3 + 3**2 / 2 + 1**2 / 3
    assert violations(actions, limits).item() == pytest.approx(expected)
    # accelerations 1/2 and 4/2 -> Huber 1/8 and 1.5; jerk 3/4 -> 9/32
    smooth = (1 / 8 + 1.5) / 2 + 9 / 32
    assert penalty(actions, limits).item() == pytest.approx(expected + smooth)


def test_limits_are_percentiles_of_decoded_actions():
    ramp = torch.linspace(0, 1, 101)[:, None]
    limits = Limits.of([ramp, -ramp], displacement=True)
    assert limits.high.item() == pytest.approx(0.98, abs=0.01)
    assert limits.low.item() == pytest.approx(-0.98, abs=0.01)
    assert limits.acceleration.item() == pytest.approx(0.01, abs=1e-4)


@pytest.fixture(scope="module")
def tracker() -> InverseDynamics:
    """Decodes exactly how far the white square of `moving_square` moved, in columns."""

    class Columns(InverseDynamics):
        def forward(self, clip):
            weight = clip.frames[:, :, 0].float().mean(dim=(2, 4))
            place = (weight * torch.arange(weight.shape[-1])).sum(-1) / weight.sum(-1)
            moved = place.diff(dim=1)[..., None]
            return moved, torch.zeros_like(moved)

    return Columns(InverseDynamicsConfig(views=("top",), size=(32, 32), action_dim=1))


def command(*steps):
    return torch.tensor([[[float(step)] for step in steps]])


def test_agreement_cannot_be_gamed_by_standing_still(tracker):
    actions = command(2, 2, 2, 2)
    obeying, still = moving_square([2, 2, 2, 2]), moving_square([0, 0, 0, 0])
    reward = Agreement(tracker)
    assert reward(rollout(obeying, obeying, actions=actions)).item() == pytest.approx(0, abs=1e-6)
    assert reward(rollout(still, obeying, actions=actions)).item() == pytest.approx(-4, abs=1e-4)


def hidden_when_dark(tracker: InverseDynamics) -> InverseDynamics:
    """The same, but only where the frames are bright the action counts as visible."""

    class Doubtful(type(tracker)):
        def forward(self, clip):
            moved, _ = super().forward(clip)
            dark = clip.frames[:, 1:].amax(dim=(2, 3, 4, 5)) < 200
            return moved, dark[..., None].float()

    dynamics = Doubtful(tracker.config)
    dynamics.limit.fill_(1.5)  # a deviation of exp(0) is visible, of exp(1) is not
    return dynamics


def test_what_the_recording_does_not_show_counts_nothing(tracker):
    actions = command(2, 2, 2, 2)
    real, still = moving_square([2, 2, 2, 2]), moving_square([0, 0, 0, 0])
    real[:, 2] //= 2  # the second action is not visible
    dynamics = hidden_when_dark(tracker)
    late = moving_square([2, 0, 2, 2])  # disobeys only where it cannot be told
    assert Agreement(dynamics)(rollout(late, real, actions=actions)).item() == pytest.approx(0, abs=1e-6)
    assert Agreement(tracker)(rollout(late, real, actions=actions)).item() == pytest.approx(-1, abs=1e-6)
    assert Agreement(dynamics)(rollout(still, real // 2, actions=actions)).item() == 0
    # a dark dream is not excused where the recording is bright
    bright = moving_square([2, 2, 2, 2])
    assert Agreement(dynamics)(rollout(still // 2, bright, actions=actions)).item() == pytest.approx(-4, abs=1e-4)
    without = Rollout(Clip(still // 2, actions), None)
    assert Agreement(dynamics)(without).item() == 0


def test_agreement_of_frames_says_which_action_was_not_carried_out(tracker):
    """The second of four moves is 2 too short: 4 in that frame, 1 in the mean."""
    actions, real = command(2, 2, 2, 2), moving_square([2, 2, 2, 2])
    late = rollout(moving_square([2, 0, 2, 2]), real, actions=actions)
    frames = Agreement(tracker, "frame")(late)
    assert frames.shape == (1, 4, 1, 1, 1)
    torch.testing.assert_close(frames.flatten(), torch.tensor([0.0, -4.0, 0.0, 0.0]), atol=1e-4, rtol=0)
    real[:, 2] //= 2
    hidden = Agreement(hidden_when_dark(tracker), "frame")(rollout(late.imagined.frames, real, actions=actions))
    torch.testing.assert_close(hidden.flatten(), torch.zeros(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 0.0),
        ([3.0, 3.0, 3.0, 3.0], (3 / 2 - 1) ** 2),  # velocity beyond its limit of 2
        ([0.0, 1.0, 2.0, 2.0], (1 / 0.5 - 1) ** 2 * 2 / 3),  # two accelerations of 1, the limit is 0.5
        ([-1.5, -1.5, -1.5, -1.5], (0.5 / 2.5) ** 2),  # below the lowest action of -1; half the span is 2.5
    ],
)
def test_each_limit_is_one_of_its_own(actions, expected):
    """EVA: velocity and acceleration; ours also the range of actions."""
    one = torch.ones(1)
    limits = Limits(2 * one, 0.5 * one, -one, 4 * one, one, one, displacement=True)
    assert violations(torch.tensor(actions)[None, :, None], limits).item() == pytest.approx(expected)


def test_jerk_counts_beside_acceleration():
    """Accelerations 1, -1: half of a squared deviation each; their jerk of -2 is beyond Huber's 1: 2 - 0.5."""
    one = torch.ones(1)
    wide = Limits(9 * one, 9 * one, -9 * one, 9 * one, one, one, displacement=True)
    assert penalty(torch.tensor([[[0.0], [1.0], [0.0]]]), wide).item() == pytest.approx(0.5 + 1.5)


def test_executability_leaves_out_what_the_recording_does_not_show(tracker):
    limits = Limits.of([torch.tensor([[1.0], [2.0], [2.0], [1.0], [0.0], [-1.0], [-2.0]])], displacement=True)
    jump = moving_square([0, 0, 0, 0, 9])
    real = moving_square([0, 0, 0, 0, 0])
    real[:, 5] //= 2
    reward = Executability(hidden_when_dark(tracker), limits, typical=1.0)
    actions = command(0, 0, 0, 0, 0)
    assert reward(rollout(jump, real, actions=actions)).item() == 1
    assert replace(reward, dynamics=tracker)(rollout(jump, real, actions=actions)).item() < 0.5


def test_motion_is_seen_if_all_its_actions_are():
    seen = torch.tensor([[[True], [True], [True], [False], [True], [True]]])
    velocity, acceleration, jerk = (part[0, :, 0].tolist() for part in seen_motion(seen, displacement=True))
    assert velocity == [True, True, True, False, True, True]
    assert acceleration == [True, True, False, False, True]
    assert jerk == [True, False, False, False]
    assert seen_motion(seen, displacement=False)[0][0, :, 0].tolist() == acceleration


def test_limits_leave_out_what_is_not_visible():
    rows = torch.linspace(0, 1, 101)[:, None]
    hidden = rows.clone()
    hidden[50:] = 1000.0
    hidden[50:] = torch.nan
    limits = Limits.of([hidden], displacement=True)
    assert limits.high.item() == pytest.approx(0.485, abs=0.01)
    assert limits.acceleration_scale.item() == pytest.approx(1e-6)
    never = Limits.of([torch.full((9, 1), torch.nan)], displacement=True)
    none = torch.zeros(1, 5, 1, dtype=torch.bool)
    assert penalty(torch.randn(1, 5, 1), never, none).item() == 0


def test_executability_prefers_smooth_motion_and_is_one_at_rest(tracker):
    real = [torch.tensor([[1.0], [2.0], [2.0], [1.0], [0.0], [-1.0], [-2.0], [-1.0], [0.0]])]
    reward = Executability(tracker, Limits.of(real, displacement=True), typical=1.0)
    actions = command(2, 2, 2, 2)
    values = [
        reward(rollout(moving_square(steps), moving_square(steps), actions=actions)).item()
        for steps in ([0, 0, 0, 0], [1, 2, 2, 1], [0, 8, -8, 8])
    ]
    assert values[0] == pytest.approx(1)
    assert 1 > values[1] > 0.5 > values[2] > 0
    # (1 + P / 1)^-1 is the value, so of a typical penalty of 4 it is (1 + P / 4)^-1
    usual = replace(reward, typical=4.0)(rollout(moving_square([1, 2, 2, 1]), moving_square([0] * 4), actions=actions))
    assert usual.item() == pytest.approx(1 / (1 + (1 / values[1] - 1) / 4), rel=1e-4)
    steeper = replace(reward, gamma=2.0)
    again = steeper(rollout(moving_square([1, 2, 2, 1]), moving_square([0, 0, 0, 0]), actions=actions))
    assert again.item() == pytest.approx(values[1] ** 2, rel=1e-4)


def test_scales_do_not_fight():
    terms = {"large": torch.tensor([[0.0, 1000.0]]), "small": torch.tensor([[0.002, 0.001]])}
    equal = weighted_sum(terms, {"large": 1.0, "small": 1.0})
    assert abs(equal[0, 0] - equal[0, 1]) < 0.35  # eps of the standardisation tells on the small
    favoured = weighted_sum(terms, {"large": 0.5, "small": 1.0})
    assert favoured[0, 0] > favoured[0, 1]


def test_dreams_of_a_start_that_agree_under_other_noise_are_rewarded():
    """Groups of two, one and two candidates: 51 levels apart, alone, and equal."""
    frames = torch.cat([grey(level, frames=2, views=1, side=2) for level in (0, 51, 200, 90, 90)])
    frames[:, 0] = torch.tensor([7, 7, 7, 9, 9], dtype=torch.uint8)[:, None, None, None, None]
    actions = torch.tensor([1.0, 1, 2, 1, 1])[:, None, None]
    found = seed_agreement(Rollout(Clip(frames, actions), None))
    apart = math.exp(-0.02)  # the unbiased variance of 0 and 0.2
    torch.testing.assert_close(found, torch.tensor([apart, apart, 1, 1, 1]))
    frames[2, 0] = 8  # without actions the first frame tells the starts apart
    torch.testing.assert_close(seed_agreement(Rollout(Clip(frames), None)), torch.tensor([apart, apart, 1, 1, 1]))
