"""Maps of rewards: what each credit makes of them, and how candidates are compared, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rl_posttrain.posttraining.config import PosttrainConfig
from rl_posttrain.posttraining.train import judge
from rl_posttrain.rewards.advantages import group_advantages, of_candidates, scaled_advantages
from rl_posttrain.rewards.credit import credited, numbers, regrid
from rl_posttrain.rewards.extra import CheckedReward
from rl_posttrain.rewards.fidelity import Fidelity
from rl_posttrain.rewards.mix import RewardMix
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip

CLIP = Clip(torch.zeros(1, 3, 2, 8, 8, 3, dtype=torch.uint8))
MAP = torch.arange(16.0).reshape(1, 2, 2, 2, 2)
"""Two frames of two cameras of 2 x 2 cells: camera 0 of frame 0 has 0, 1, 2, 3."""


def test_each_credit_takes_means_over_what_it_does_not_tell_apart():
    assert credited(MAP, CLIP, "clip", (2, 2)).tolist() == [7.5]
    assert credited(MAP, CLIP, "frame", (2, 2)).flatten().tolist() == [3.5, 11.5]
    assert credited(MAP, CLIP, "view", (2, 2)).flatten().tolist() == [1.5, 5.5, 9.5, 13.5]
    assert torch.equal(credited(MAP, CLIP, "cell", (2, 2)), MAP)
    assert credited(MAP, CLIP, "cell", (1, 2))[0, 0, 0].tolist() == [[1.0, 2.0]]


def test_a_number_holds_for_every_frame_and_cell():
    assert credited(torch.tensor([3.0]), CLIP, "clip", (2, 2)).tolist() == [3.0]
    assert credited(torch.tensor([3.0]), CLIP, "cell", (2, 2)).shape == (1, 1, 1, 1, 1)


def test_missing_cameras_and_padding_take_no_part():
    one = replace(CLIP, view_mask=torch.tensor([[True, False]]))
    assert credited(MAP, one, "frame", (2, 2)).flatten().tolist() == [1.5, 9.5]
    assert numbers(MAP, one).tolist() == [5.5]
    pixels = torch.ones(1, 2, 8, 8, dtype=torch.bool)
    pixels[:, 0, :4] = False  # the upper cells of camera 0 are padding
    padded = replace(CLIP, pixel_mask=pixels)
    assert credited(MAP, padded, "view", (2, 2)).flatten().tolist() == [2.5, 5.5, 10.5, 13.5]


def test_a_map_is_brought_to_other_cells():
    cells = torch.tensor([[1.0, 2.0], [3.0, 6.0]])[None, None, None]
    assert regrid(cells, (1, 1)).flatten().tolist() == [3.0]
    assert regrid(cells, (2, 1)).flatten().tolist() == [1.5, 4.5]
    assert regrid(cells, (2, 4))[0, 0, 0].tolist() == [[1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 6.0, 6.0]]
    with pytest.raises(ValueError, match="a map of 2 rows does not fit 3: neither number divides the other"):
        regrid(cells, (3, 2))


def test_every_cell_is_compared_with_the_same_cell_of_the_others():
    """Candidate 0 is better in the left cell, candidate 1 in the right one; as a whole they are equal."""
    values = torch.tensor([[[1.0, 4.0], [3.0, 2.0]]])
    torch.testing.assert_close(group_advantages(values), torch.tensor([[[-1.0, 1.0], [1.0, -1.0]]]), atol=1e-3, rtol=0)
    assert of_candidates(values).tolist() == [[2.5, 2.5]] and of_candidates(values[..., 0]).tolist() == [[1.0, 3.0]]


def test_the_floor_keeps_quiet_cells_quiet():
    """Deviations 1 and 0.01 are typically 0.707; with a floor of 1 advantages are 1 / 1.707 and 0.01 / 0.717."""
    values = torch.tensor([[[1.0, 0.01], [-1.0, -0.01]]])
    found = group_advantages(values, eps=0.0, floor=1.0)[0, 0]
    torch.testing.assert_close(found, torch.tensor([0.5858, 0.01394]), atol=1e-4, rtol=0)
    assert group_advantages(values, eps=0.0)[0, 0].tolist() == [1.0, 1.0]


def test_a_sum_of_advantages_has_one_scale():
    numbers = torch.tensor([[1.0, 2.0, 6.0]])
    assert torch.equal(scaled_advantages(numbers), group_advantages(numbers))
    maps = torch.tensor([[[3.0, 0.0], [1.0, 0.0]]])  # deviations 1 and 0: root mean square 0.707
    assert scaled_advantages(maps, eps=0.0)[0].tolist() == pytest.approx(
        torch.tensor([[2**0.5, 0.0], [-(2**0.5), 0.0]])
    )


def pictures(*levels: int) -> torch.Tensor:
    """One candidate for each level, two frames, of which the second has a bright cell."""
    frames = torch.full((len(levels), 2, 1, 32, 32, 3), 100, dtype=torch.uint8)
    for frame, level in zip(frames, levels, strict=True):
        frame[1, 0, 24:, 24:] = level
    return frames


def test_fidelity_of_a_cell_by_hand():
    """The last cell is off by 51 levels, a fifth: 14 dB. Cells far from it are as recorded: 1 + 50 / 32."""
    pair = Rollout(Clip(pictures(151)), Clip(pictures(100)))
    cells = Fidelity(credit="cell", cell=8)(pair)
    assert cells.shape == (1, 1, 1, 4, 4)
    assert cells[0, 0, 0, 0, 0].item() == pytest.approx(1 + 50 / 32, abs=1e-3)
    structure = (2 * 100 * 151 / 255**2 + 1e-4) / ((100**2 + 151**2) / 255**2 + 1e-4)
    assert cells[0, 0, 0, 3, 3].item() < 13.98 / 32 + structure + 1e-3
    assert cells.flatten().argmin() == 15
    whole, view = Fidelity()(pair), Fidelity(credit="view")(pair)
    assert view.shape == (1, 1, 1, 1, 1) and view.flatten().tolist() == pytest.approx(whole.tolist())
    with pytest.raises(ValueError, match="cell=5: frames of 32 x 32 cannot be divided into such cells"):
        Fidelity(credit="cell", cell=5)(pair)


def test_padding_is_no_error_of_a_cell():
    imagined, mask = pictures(100), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    imagined[:, 1:, :, :8], mask[:, :, :8] = 0, False
    cells = Fidelity(credit="cell", cell=8)(Rollout(Clip(imagined), Clip(pictures(100), pixel_mask=mask)))
    assert cells.flatten().tolist() == pytest.approx([1 + 50 / 32] * 16, abs=1e-3)


def test_only_the_cell_that_is_better_is_good():
    """Of two candidates the second one is right in the last cell; elsewhere both are right."""
    pair = Rollout(Clip(pictures(140, 200)), Clip(pictures(200, 200)))
    config = PosttrainConfig("world", "data", Path("out"), candidates=2, credit="cell", cell=8)
    mix = RewardMix({"fidelity": Fidelity(credit="cell")}, {"fidelity": 1.0}, None, "cell", (4, 4))
    good, kept, row = judge(config, mix, pair, 2)
    assert good.shape == (1, 2, 1, 1, 4, 4) and kept.all()
    assert good[0, :, 0, 0, 3, 3].tolist() == [0.0, 1.0] and good[0, :, 0, 0, 0, 0].tolist() == [0.5, 0.5]
    assert row["reward"] == pytest.approx(Fidelity(credit="cell")(pair).mean().item())
    best = judge(replace(config, keep=1), mix, pair, 2)[1]
    assert best.tolist() == [[True, True]]


def test_numbers_and_maps_add_up():
    """A reward of one number raises candidate 0 everywhere, the map raises candidate 1 in the right cell."""
    whole = lambda rollout: torch.tensor([1.0, 0.0])  # noqa: E731
    cells = lambda rollout: torch.tensor([[0.0, 0.0], [0.0, 1.0]])[:, None, None, None]  # noqa: E731
    clip = Clip(torch.zeros(2, 2, 1, 8, 8, 3, dtype=torch.uint8))
    mix = RewardMix({"a": whole, "b": cells}, {"a": 1.0, "b": 4.0}, None, "cell", (1, 2))
    terms = {name: values.unflatten(0, (1, 2)) for name, values in mix.terms(Rollout(clip, clip)).items()}
    total = mix.total(terms)[0, :, 0, 0, 0]
    assert total[0, 0] > total[1, 0] and total[1, 1] > total[0, 1]


def test_a_reward_of_frames_holds_for_every_cell_of_a_finer_credit():
    """As that of outcomes does: `b t 1 1 1` becomes a map of 2 x 4 cells, beside the masks of three cameras."""
    clip = Clip(torch.zeros(2, 3, 3, 8, 8, 3, dtype=torch.uint8))
    frames = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None, None, None]
    mix = RewardMix({"mine": lambda rollout: frames}, {"mine": 1.0}, None, "cell", (2, 4))
    terms = mix.terms(Rollout(clip, clip))
    assert torch.equal(terms["mine"], frames.expand(2, 2, 1, 2, 4))
    masks = {"view_mask": torch.ones(2, 3).bool(), "pixel_mask": torch.ones(2, 3, 8, 8).bool()}
    assert numbers(terms["mine"], replace(clip, **masks)).tolist() == [1.5, 3.5]


def test_a_map_of_a_user_has_to_fit_the_frames():
    clip = Clip(torch.zeros(2, 3, 1, 8, 8, 3, dtype=torch.uint8))
    for shape in ((2, 2, 1, 4, 4), (2, 1, 1, 1, 1), (2, 2, 1, 8, 2)):
        assert CheckedReward("mine", lambda rollout, s=shape: torch.ones(s))(Rollout(clip, clip)).shape == shape
    for shape in ((2, 3, 1, 4, 4), (2, 2, 2, 4, 4), (2, 2, 1, 3, 4), (1, 2, 1, 4, 4), (2, 2)):
        with pytest.raises(
            ValueError, match=r"or a map of them, \(2, 2 or 1, 1 or 1, a divisor of 8, a divisor of 8\)"
        ):
            CheckedReward("mine", lambda rollout, s=shape: torch.ones(s))(Rollout(clip, clip))
    mix = RewardMix({"mine": lambda rollout: torch.ones(2, 1, 1, 4, 4)}, {"mine": 1.0}, None, "cell", (3, 4))
    with pytest.raises(ValueError, match="reward mine: a map of 4 rows does not fit 3"):
        mix.terms(Rollout(clip, clip))
