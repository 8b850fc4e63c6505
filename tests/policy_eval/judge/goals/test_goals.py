"""A judge of goals: pairs and their bins, scores against goals, the threshold, and what a report says."""

import json
import math

import numpy as np
import pytest
import torch
from brightness import by_brightness, grey
from drawn_episodes import DrawnEpisodes
from square_world import write_episodes

from policy_eval.judge.goals.judge import GoalJudge, GoalShape, first_steps, nearness
from policy_eval.judge.goals.measure import (
    NearAndFar,
    Scored,
    near_and_far,
    ordering,
    ranks,
    reached_threshold,
    score_rewards,
    spearman_of,
)
from policy_eval.judge.goals.page import meaning
from policy_eval.judge.goals.pairs import FRAMES, draw_batch, draw_times, label_pairs
from policy_eval.judge.goals.pictures import NearestPicture
from policy_eval.judge.goals.train import fit_goals, half_disturbed
from policy_eval.policies.goal_pictures import read_goals, write_goals
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.streaming.state import Observation

SHAPE = GoalShape(("top", "wrist"), (16, 16), farthest=8, width=8)


def test_bins_are_log_spaced():
    assert first_steps(40).tolist() == [0, 1, 2, 3, 5, 7, 11, 17, 27, 40]
    assert first_steps(2).tolist() == [0, 1, 2]
    assert first_steps(300)[-1] == 300


def test_nearness_leaves_the_other_episode_out():
    """Bins of 0, 1, 2, ... steps; half 0 and half 8 steps are half way in logarithms, whatever the last bin says."""
    bins = first_steps(8)
    logits = torch.full((3, len(bins) + 1), -50.0)
    logits[0, 0] = logits[1, len(bins) - 1] = 0.0
    logits[2, 0] = logits[2, len(bins) - 1] = 0.0
    logits[:, -1] = 5.0
    assert nearness(logits, 8).tolist() == pytest.approx([1.0, 0.0, 0.5])


def test_pairs_are_of_later_frames_and_of_other_episodes():
    """Frames 0, 2 of one episode and 5, 9 of another; bins begin at 0, 1, 2 and 4 steps."""
    start, goal, label = label_pairs(torch.tensor([[0, 2], [5, 9]]), torch.tensor([0, 1, 2, 4]))
    told = list(zip(start.tolist(), goal.tolist(), label.tolist(), strict=True))
    assert told[:6] == [(0, 0, 0), (0, 1, 2), (1, 1, 0), (2, 2, 0), (2, 3, 3), (3, 3, 0)]
    assert told[6:] == [(0, 2, 4), (1, 3, 4), (2, 0, 4), (3, 1, 4)]


def test_frames_of_an_episode_are_near_and_far():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_times(60, 20, generator) for _ in range(600)])
    assert drawn.shape == (600, FRAMES) and drawn.min() == 0 and drawn.max() == 59
    assert (drawn.diff(dim=1) >= 0).all()
    ahead = drawn[:, 1:] - drawn[:, :1]
    assert ahead.max() == 25, "a quarter more than the farthest"
    inner = ahead[drawn[:, 0] < 34].float()
    # 1 + steps is log-uniform over 1 to 27
    assert (inner < 4).float().mean() == pytest.approx(math.log(5) / math.log(27), abs=0.03)
    assert draw_times(1, 20, generator).tolist() == [0] * FRAMES


def test_a_batch_holds_the_frames_that_it_names():
    source = DrawnEpisodes([30, 50], lambda episode, frame: 60 * episode + frame)
    batch = draw_batch(source, range(1, 2), 3, 20, torch.Generator().manual_seed(0))
    assert batch.frames[:, 0, 0, 0, 0].tolist() == (60 + batch.times).flatten().tolist()


def test_the_nearest_quarter_of_the_goals_counts():
    """Of 8 goals two count: 1 and 3 steps away are log 2 and log 4 of log 9."""
    judge = by_brightness(grey(101, 103, 108, 120, 120, 120, 120, 120))
    expected = 1 - (math.log(2) + math.log(4)) / 2 / math.log(9)
    assert judge.score(grey(100)).tolist() == pytest.approx([expected], abs=1e-4)
    assert by_brightness(grey(103)).score(grey(100)).tolist() == pytest.approx(
        [1 - math.log(4) / math.log(9)], abs=1e-4
    )
    assert by_brightness(grey(103)).steps(grey(100, 103)).tolist() == pytest.approx([3.0, 0.0], abs=1e-3)


def test_other_goals_and_goals_of_each_stream():
    judge = by_brightness(grey(50), threshold=0.9)
    verdict = judge(Observation(grey(50, 100), None))
    assert verdict.successes.tolist() == [True, False] and verdict.rewards.tolist() == pytest.approx([1, 0], abs=1e-4)
    assert judge.with_goals(grey(100))(Observation(grey(50, 100), None)).successes.tolist() == [False, True]
    # Two streams with two plans each, side by side: the goals are 50 and 100.
    both = judge.with_goals(grey(50, 100)[:, None])
    assert both.threshold == 0.9
    assert both.score(grey(50, 100, 50, 100)).round().tolist() == [1, 0, 0, 1]
    with pytest.raises(ValueError, match="goals for 2 streams, got 3 frames"):
        both.score(grey(1, 2, 3))
    with pytest.raises(ValueError, match="goals of 2 streams are not saved"):
        both.save("nowhere")
    with pytest.raises(ValueError, match=r"at least one picture of \(2, 16, 16, 3\), got \(0, 2, 16, 16, 3\)"):
        judge.with_goals(grey(1)[:0])
    with pytest.raises(ValueError, match=r"frames of \(2, 16, 16, 3\), got \(1, 16, 16, 3\)"):
        judge.score(grey(1)[:, :1])


def test_a_saved_judge_of_goals_judges_alike(tmp_path):
    torch.manual_seed(0)
    one = GoalJudge(SHAPE, torch.randint(0, 256, (5, 2, 16, 16, 3), dtype=torch.uint8), threshold=0.3)
    one.save(tmp_path, dtype=torch.float32)
    again = GoalJudge.load(tmp_path)
    assert (again.threshold, again.shape) == (0.3, SHAPE) and torch.equal(again.goals, one.goals)
    frames = torch.randint(0, 256, (3, 2, 16, 16, 3), dtype=torch.uint8)
    torch.testing.assert_close(again.score(frames), one.score(frames))
    again.save(tmp_path / "twice", dtype=torch.float32)
    assert torch.equal(GoalJudge.load(tmp_path / "twice").goals, one.goals)


def test_the_threshold_errs_as_often_on_near_frames_as_on_far_ones():
    pairs = NearAndFar(np.array([0.9, 0.8, 0.7, 0.3]), np.array([0.1, 0.2, 0.5, 0.75]), np.array([9.0] * 4))
    # Above .5 one of four near frames is missed and one of four far ones is accepted.
    assert reached_threshold(pairs) == 0.5
    clear = NearAndFar(np.array([0.8, 0.9]), np.array([0.1, 0.2]), np.array([9.0] * 2))
    assert reached_threshold(clear) == 0.2, "a score has to exceed it"


def test_pairs_to_calibrate_with_are_near_and_far():
    """Brightness grows by 1 a frame, so the score tells the steps: at most 3 for the near pairs, more for the far."""
    source = DrawnEpisodes([60, 60, 4], lambda episode, frame: 100 + frame)
    pairs = near_and_far(by_brightness(grey(0), 40), source, [0, 1, 2], seed=0)
    assert len(pairs.near) == len(pairs.far) == 16, "the third is too short"
    assert pairs.steps.min() > 3
    assert pairs.near.min() == pytest.approx(1 - math.log(4) / math.log(41), abs=1e-4)
    assert pairs.far.max() <= pairs.near.min(), "3 and 4 steps are in one bin"
    assert ordering(by_brightness(grey(0), 40), source, [0, 1]) > 0.8
    with pytest.raises(ValueError, match="drawn: no held-out episode has 8 frames"):
        near_and_far(by_brightness(grey(0)), source, [2])


def test_the_rank_correlation_and_its_interval_over_episodes():
    assert ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [2.5, 1, 2.5, 4]
    alike = [Scored(np.array([0.1, 0.3, 0.2]), np.array([1.0, 9.0, 4.0]))] * 4
    assert spearman_of(alike) == pytest.approx((1.0, 1.0, 1.0))
    other = Scored(np.array([0.3, 0.2, 0.1]), np.array([1.0, 4.0, 9.0]))
    value, low, high = spearman_of([alike[0], other, alike[0], alike[0]])
    assert -1 < low < value < high < 1.0001
    assert spearman_of([Scored(np.ones(3), np.arange(3.0))] * 2)[0] == 0.0


def test_rewards_are_of_the_frame_that_they_lead_to(tmp_path):
    source = open_episodes(write_episodes(tmp_path / "data", 1))
    clip = source.read(0, 0, source.lengths[0])
    bright = lambda frames: frames[:, 0, :, 8:].float().mean((1, 2, 3))  # noqa: E731
    (scored,) = score_rewards(bright, source, [0])
    assert scored.rewards.tolist() == pytest.approx(clip.rewards.tolist())
    assert scored.scores.tolist() == pytest.approx(bright(clip.frames[1:]).tolist())
    assert score_rewards(bright, DrawnEpisodes([5]), [0]) == []


def test_the_difference_in_pixels_is_to_the_nearest_goal():
    one = NearestPicture(grey(255, 51))
    assert one.score(grey(0, 255, 102)).tolist() == pytest.approx([-0.2, 0.0, -0.2], abs=1e-3)


def test_goal_pictures_are_read_as_they_were_written(tmp_path):
    goals = torch.randint(0, 256, (11, 2, 8, 12, 3), dtype=torch.uint8)
    write_goals(tmp_path, ("top", "wrist"), goals)
    assert torch.equal(read_goals(tmp_path, ("top", "wrist"), (8, 12)), goals)


def test_every_second_frame_is_disturbed():
    frames = torch.randint(60, 190, (6, 2, 16, 16, 3), dtype=torch.uint8)
    mixed = half_disturbed(frames, torch.Generator().manual_seed(0))
    assert [torch.equal(*pair) for pair in zip(mixed, frames, strict=True)] == [False, True] * 3


def test_steps_are_learnt(tmp_path):
    """Two bins suffice to see it: a frame is nearer to itself than to one 8 steps on."""
    source = DrawnEpisodes([12] * 4, lambda episode, frame: 20 * frame + 10)
    torch.manual_seed(0)
    judge = GoalJudge(SHAPE, grey(230))
    options = {"farthest": 8, "batch": 16, "learning_rate": 1e-2, "seed": 0}
    first = fit_goals(judge.network, source, range(4), steps=1, **options)
    assert fit_goals(judge.network, source, range(4), steps=40, **options) < first - 0.3
    scores = judge.score(source.read(0, 0, 12).frames)
    assert scores[11] > scores[3] + 0.1
    with pytest.raises(ValueError, match="--batch is at least 16, 8 frames of two episodes, got 8"):
        fit_goals(judge.network, source, range(4), steps=1, **options | {"batch": 8})


def test_what_a_report_means_in_words():
    report = {"ordering": 0.81, "spearman": None, "pixels": None, "success": None}
    report |= {"threshold": 0.62, "missed": 0.1, "accepted": 0.12}
    lines = meaning(report)
    assert len(lines) == 2 and "81% of held-out cases" in lines[0] and "above a score of 0.62" in lines[1]
    report |= {"spearman": (0.8, 0.7, 0.9), "pixels": (0.2, 0.1, 0.3)}
    report["success"] = {"episodes": {"called": 0.5, "successes": 0.4, "accuracy": 0.9}}
    lines = meaning(report)
    assert "0.80 (95% interval 0.70 to 0.90); the difference in pixels has 0.20" in lines[1]
    assert "calls 50% of the held-out episodes a success; in truth 40% are" in lines[3]


@pytest.mark.slow
def test_the_command_learns_goals(tmp_path, capsys):
    data = write_episodes(tmp_path / "data", 24, failures=2)
    source = open_episodes(data)
    goals = torch.stack([source.read(e, source.lengths[e] - 1, source.lengths[e]).frames[0] for e in (0, 1, 4)])
    write_goals(tmp_path / "goals", source.views, goals)
    flags = ["judge", "--goals", str(tmp_path / "goals"), "--data", str(data), "--out", str(tmp_path / "judge")]
    assert main([*flags, "--dreams", "2"]) == 2
    assert "--dreams 2 does not go with --goals" in capsys.readouterr().err
    assert main([*flags, "--steps", "150", "--batch", "64", "--farthest", "8"]) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "judge/report.json").read_text())
    assert report["pictures"] == 3 and report["spearman"][0] > 0.6 and report["ordering"] > 0.6
    assert "rank correlation" in said and (tmp_path / "judge/report.html").is_file()
    assert "judge of goals: 150 of 150 steps" in (tmp_path / "judge/train.log").read_text()
    assert torch.equal(GoalJudge.load(tmp_path / "judge").goals, goals)
