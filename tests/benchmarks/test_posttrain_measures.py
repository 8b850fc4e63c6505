"""A dream that is the recording is perfect; an erased, a rounded, a blurred and a frozen one are found out."""

from dataclasses import replace

import pytest
import torch
from places import BENCHMARKS

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from rl_posttrain.posttraining.guards import HeldOut
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip
from worldmodel.dreams.context import CONTEXT_FRAMES

VIEWS, HORIZONS, DREAMT = ("top", "wrist"), (1, 3), 4
BLOCK, AGENT = (119, 136, 153), (65, 105, 225)


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import posttrain_measures

    return posttrain_measures


def film() -> torch.Tensor:
    """A T that moves to the right and an agent below it, in both cameras."""
    frames = torch.full((1, CONTEXT_FRAMES + DREAMT, 2, 64, 64, 3), 255, dtype=torch.uint8)
    for t in range(frames.shape[1]):
        frames[:, t, :, 20:24, 10 + t : 26 + t] = torch.tensor(BLOCK, dtype=torch.uint8)
        frames[:, t, :, 24:36, 16 + t : 20 + t] = torch.tensor(BLOCK, dtype=torch.uint8)
        frames[:, t, :, 50:54, 10 + t : 14 + t] = torch.tensor(AGENT, dtype=torch.uint8)
    return frames


def dreamed(change=lambda frames: frames) -> tuple[HeldOut, Rollout]:
    """The film, and a dream that is its end after a change."""
    frames = film()
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(1, frames.shape[1] - 1, 2, generator=generator)
    late = slice(CONTEXT_FRAMES - 1, None)
    reference = Clip(frames[:, late], actions[:, late], None)
    imagined = replace(reference, frames=change(frames[:, late].clone()))
    return HeldOut(Clip(frames, actions, None), (0,), "pusht"), Rollout(imagined, reference)


def erased(frames):
    return torch.where(frames == torch.tensor(BLOCK, dtype=torch.uint8), 255, frames).to(torch.uint8)


def bar_only(frames):
    """The T without its stem, so that it is a bar."""
    frames[:, :, :, 24:36] = 255
    return frames


def blurred(frames):
    pictures = frames.float().flatten(0, 2).movedim(-1, 1)
    soft = torch.nn.functional.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
    return soft.movedim(1, -1).unflatten(0, frames.shape[:3]).to(torch.uint8)


def objects(measures, change=lambda frames: frames):
    windows, rollout = dreamed(change)
    columns = measures.object_columns(windows, rollout, VIEWS, HORIZONS)
    return {name: value.item() for name, value in columns.items()}


def test_the_recording_has_all_its_objects_at_their_places_and_in_their_shape(measures):
    found = objects(measures)
    assert list(found)[:2] == ["missing.agent.1", "missing.agent.3"]  # what erasing cannot meet comes first
    assert found["missing.block.3"] == found["error_px.block.3"] == found["spread_error_px.block.3"] == 0
    assert found["overlap.block.3"] == pytest.approx(1, abs=1e-3)


def test_an_erased_block_is_missing_and_a_bar_is_no_t(measures):
    gone, bar = objects(measures, erased), objects(measures, bar_only)
    assert gone["missing.block.3"] == 1 and gone["error_px.block.3"] == 32 and gone["overlap.block.3"] == 0
    assert gone["missing.agent.3"] == 0
    assert bar["missing.block.3"] == 0 and bar["overlap.block.3"] < 0.7 and bar["spread_error_px.block.3"] > 0.5


def test_blur_lowers_sharpness_most_where_something_moved(measures):
    _, same = dreamed()
    _, soft = dreamed(blurred)
    assert all(value.item() == 1 for value in measures.sharpness_columns(same, VIEWS).values())
    found = measures.sharpness_columns(soft, VIEWS)
    assert found["sharpness.top"].item() < 0.6 and found["sharpness_moved.wrist"].item() < 0.6


def test_a_difference_that_nobody_sees_is_none(measures):
    truth = film()[:, 0, 0]
    dreamed = truth.clone()
    dreamed[0, :8] -= 2
    dreamed[0, 8:16, :, 1] -= 3
    seen = measures.visible(dreamed, truth)
    assert torch.equal(seen[0, :8], truth[0, :8]) and torch.equal(seen[0, 8:16], dreamed[0, 8:16])


def test_actions_are_decoded_from_the_dream_and_from_the_recording(measures):
    torch.manual_seed(0)
    dynamics = InverseDynamics(InverseDynamicsConfig(views=VIEWS, size=(64, 64), action_dim=2, after=0)).eval()
    _, rollout = dreamed(erased)
    found = measures.action_columns(dynamics, rollout)
    error = [dynamics.errors(clip).square() for clip in (rollout.imagined, rollout.reference)]
    assert found["action_error.late"].item() == pytest.approx(error[0][:, -1:].mean().item())
    assert found["action_error.early"].item() == pytest.approx(error[0][:, :-1].mean().item())
    assert found["action_error.recorded"].item() == pytest.approx(error[1][:, -1:].mean().item())


def test_an_unsharp_mask_by_hand(measures):
    edge = torch.tensor([100, 100, 130, 130], dtype=torch.uint8)[None, None, None, None, :, None].expand(
        1, 1, 1, 3, 4, 3
    )
    found = measures.sharpened(edge, 0.5)  # the means of 3 x 3 pixels are 100, 110, 120, 130
    assert found[0, 0, 0, 1, :, 0].tolist() == [100, 95, 135, 130]
    assert torch.equal(found, found[:, :, :, :1].expand_as(found)), "the same at the borders"
    assert torch.equal(measures.sharpened(edge, 0.0), edge)
