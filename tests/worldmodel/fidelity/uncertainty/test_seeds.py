from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes, stir, tiny_world
from rich.console import Console

from worldmodel.dreams.context import context_of
from worldmodel.fidelity.comparison import dream, read_for
from worldmodel.fidelity.meaning import meaning
from worldmodel.fidelity.measure import FidelityConfig, measure_fidelity
from worldmodel.fidelity.report import print_fidelity
from worldmodel.fidelity.uncertainty.report import plot_uncertainty, uncertainty_meaning, uncertainty_rows
from worldmodel.fidelity.uncertainty.score import (
    ideal_share,
    kept_errors,
    over_episodes,
    rank_correlations,
    uncertainty,
)
from worldmodel.fidelity.uncertainty.seeds import Predictions, apart, dream_seeds, spread
from worldmodel.fidelity.windows import evenly_spaced_windows
from worldmodel.streaming.noise import mix_seed


def levels(*values: int) -> torch.Tensor:
    """One frame of two cameras, the first of this grey level for each window, the second black."""
    frames = torch.zeros(len(values), 1, 2, 2, 2, 3, dtype=torch.uint8)
    frames[:, 0, 0] = torch.tensor(values, dtype=torch.uint8)[:, None, None, None]
    return frames


def found(error, disagreement, motion=None, episodes=None) -> Predictions:
    error, disagreement = np.array(error, float), np.array(disagreement, float)
    motion = np.ones_like(error) if motion is None else np.array(motion, float)
    return Predictions(error, disagreement, motion, np.arange(len(error)) if episodes is None else np.array(episodes))


def test_differences_are_root_mean_squares_over_the_cameras_that_are_there():
    here = torch.tensor([[True, False]])
    assert apart(levels(51), levels(0), None).item() == pytest.approx(0.2 / 2**0.5)
    assert apart(levels(51), levels(0), here).item() == pytest.approx(0.2)
    # The unbiased variance of 0 and 0.2 is 0.02.
    assert spread([levels(0), levels(51)], here).item() == pytest.approx(0.02**0.5)


def test_the_first_dream_is_that_of_the_report_and_no_part_of_the_disagreement():
    world, source = stir(tiny_world()), DrawnEpisodes([12, 12, 12])
    windows = evenly_spaced_windows(source, starts=1, horizon=3, stride=1)
    options = {"horizon": 3, "dreams": 2, "seed": 5}
    seen = dream_seeds(world, source, windows, batch=2, **options)
    assert seen.error.shape == seen.disagreement.shape == seen.motion.shape == (3, 3)
    assert seen.disagreement.min() > 0 and seen.episodes.tolist() == [0, 1, 2]
    clip = read_for(world, source, windows, horizon=3)

    def dreamt(seeds: list[int]) -> torch.Tensor:
        stream, actions = world.stream(context_of(clip), seeds=seeds), clip.actions[:, 7:]
        return dream(stream, actions, horizon=3, horizons=(1, 2, 3), num_steps=2)

    further = [dreamt([mix_seed(5 + window, number) for window in range(3)]) for number in (1, 2)]
    np.testing.assert_allclose(seen.disagreement, spread(further, None), rtol=0.05)
    np.testing.assert_allclose(seen.error, apart(dreamt([5, 6, 7]), clip.frames[:, 8:], None), rtol=0.01)
    with pytest.raises(ValueError, match="--uncertainty is the number of further dreams, at least 2, got 1"):
        dream_seeds(world, source, windows, horizon=3, dreams=1)
    with pytest.raises(ValueError, match="with --num-steps 1 there is none"):
        dream_seeds(world, source, windows, horizon=3, dreams=2, num_steps=1)
    world.config = replace(world.config, temperature=0.0)
    silent = dream_seeds(world, source, windows, **options)
    np.testing.assert_allclose(silent.disagreement, seen.disagreement, rtol=0.05)  # these dreams have noise anyway
    assert abs(silent.error - seen.error).max() > 1e-3  # and the first one has that of the world model: none


def test_motion_is_the_distance_from_the_last_recorded_frame():
    """A fresh world repeats the last frame: it does not move, and is wrong by what the truth has moved."""
    source = DrawnEpisodes([11], lambda e, t: 100 + 51 * (t == 10))
    windows = evenly_spaced_windows(source, starts=1, horizon=3, stride=1)
    seen = dream_seeds(tiny_world(), source, windows, horizon=3, dreams=2)
    np.testing.assert_allclose(seen.motion, 0, atol=1e-6)
    np.testing.assert_allclose(seen.error, [[0, 0, 0.2]], atol=1e-3)


def test_rank_correlations_are_within_each_frame():
    error = [[1, 1], [2, 3], [3, 2]]
    # The second frame is twice as wrong and as uncertain; that does not help.
    assert rank_correlations(np.array([[1.0, 9], [2, 8], [3, 7]]), np.array(error, float)) == pytest.approx([1, -0.5])
    assert rank_correlations(np.ones((3, 2)), np.array(error, float)).tolist() == [0, 0]


def test_the_surest_are_kept_first():
    error = np.array([[4.0], [1.0], [1.0]])
    assert kept_errors(np.array([[9.0], [1], [2]]), error).tolist() == [1, 1, 2]
    assert kept_errors(np.array([[1.0], [9], [8]]), error).tolist() == pytest.approx([4, 2.5, 2])
    assert kept_errors(np.ones((3, 1)), error).tolist() == [2, 2, 2]
    assert ideal_share(error, error) == 1
    assert ideal_share(np.ones((3, 1)), error) == 0
    # Areas below the mean: ideal (1 + 1 + 0) / 3; the worst first: (-2 - 0.5 + 0) / 3.
    assert ideal_share(-error, error) == pytest.approx(-2.5 / 2)


def test_episodes_are_compared_by_their_means():
    seen = found([[1], [3], [3], [3], [9], [9]], [[1], [3], [9], [9], [4], [4]], episodes=[0, 0, 1, 1, 2, 2])
    # Means: errors 2, 3, 9 and disagreement 2, 9, 4.
    assert over_episodes(seen, "disagreement", np.arange(6)) == pytest.approx(0.5)
    assert over_episodes(seen, "disagreement", np.array([0, 1, 4, 5, 4, 5])) == pytest.approx(1)


def test_a_score_that_predicts_beats_the_trivial_one():
    rng = np.random.default_rng(0)
    error = rng.random((40, 3))
    seen = found(error, error / 2, motion=rng.random((40, 3)), episodes=np.arange(40) // 2)
    report = {"dreams": 4, **uncertainty(seen)}
    assert report["predictors"]["disagreement"]["within"] == pytest.approx([1, 1, 1])
    assert report["predictors"]["disagreement"]["gain"][0] == pytest.approx(1)
    assert report["curve"]["disagreement"] == report["curve"]["ideal"]
    assert report["predictors"]["motion"]["within"][2] < 0.5 < report["ahead"][1]
    said = uncertainty_meaning(report)
    assert said[0].startswith("Dreams are more wrong where noise seeds disagree: rank correlation 1.00 within a frame")
    assert said[1].startswith("It predicts the error better than a dream's own motion")
    assert uncertainty_rows(report)[0][:3] == ["disagreement of 4 dreams", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]"]
    assert uncertainty_rows(report)[0][-1].startswith("-4") or uncertainty_rows(report)[0][-1].startswith("-5")
    backwards = {"dreams": 4, **uncertainty(found(error, -error, motion=error, episodes=np.arange(40) // 2))}
    assert "less wrong where noise seeds disagree" in uncertainty_meaning(backwards)[0]


def test_too_few_episodes_have_no_interval():
    report = {"dreams": 2, **uncertainty(found([[1], [2], [3]], [[1], [2], [3]]))}
    assert report["predictors"]["disagreement"]["within"][1:] == [None, None]
    assert uncertainty_meaning(report) == [
        "It cannot be told whether dreams are more wrong where noise seeds disagree: rank correlation 1.00, but fewer "
        "than 5 episodes are too few for an interval."
    ]


def test_the_report_has_the_table_the_sentence_and_the_picture(tmp_path, capsys):
    source = DrawnEpisodes([12] * 6)
    report = measure_fidelity(stir(tiny_world()), source, horizon=1, starts=1, alterations=(), uncertainty=2)
    assert report["uncertainty"]["dreams"] == 2 and report["uncertainty"]["windows"] == 6
    print_fidelity(report, Console(width=160))
    assert "disagreement of 2 dreams" in capsys.readouterr().out
    assert any("noise seeds disagree" in sentence for sentence in meaning(report))
    plot_uncertainty(report["uncertainty"], tmp_path / "plots" / "seeds.png")
    assert (tmp_path / "plots" / "seeds.png").stat().st_size > 10_000
    config = FidelityConfig("w", "d", out=tmp_path / "report.json", uncertainty=2)
    assert config.seeds_picture == tmp_path / "report-uncertainty.png"
    assert FidelityConfig("w", "d", uncertainty=2).seeds_picture is None
