import json
from pathlib import Path

import pytest
import torch
from drawn_episodes import DrawnEpisodes, TellingWorld
from drawn_episodes import tiny_world as drawn_world
from square_world import write_episodes
from tiny import tiny_world

from policy_eval.judge.disturb import disturb
from policy_eval.judge.frames import Frames, batch_pools, read_frames
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.judge.scores import JudgedEpisode, best_threshold, dream_again, judge_episodes, judge_report
from policy_eval.judge.train import JudgeConfig, fit_judge, split, train_judge
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.streaming.state import Observation

SHAPE = JudgeShape(("top", "wrist"), (16, 16), width=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twenty-four episodes, of which every other one stops half-way."""
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 24, failures=2)


def episode(truth: list[int], scores: list[float]) -> JudgedEpisode:
    return JudgedEpisode(torch.tensor(truth).bool(), torch.tensor(scores))


def pictures(number: int, level: int = 0) -> torch.Tensor:
    return torch.full((number, 2, 16, 16, 3), level, dtype=torch.uint8)


def test_the_threshold_calls_the_fewest_episodes_wrongly():
    """Peaks .9 and .6 of successes, .7 and .2 of failures: one error, at best."""
    judged = [
        episode([0, 1], [0.1, 0.9]),
        episode([0, 1], [0.6, 0.3]),
        episode([0, 0], [0.7, 0.1]),
        episode([0, 0], [0.2, 0.2]),
    ]
    # .4 leaves one false success, .8 one false failure: equally bad, so it is the later one.
    assert best_threshold(judged) == pytest.approx(0.8)
    # With a third failure at .7 it is .8 alone; with another success at .5 it is .4 alone.
    assert best_threshold([*judged, judged[2]]) == pytest.approx(0.8)
    assert best_threshold([*judged, episode([1], [0.5])]) == pytest.approx(0.35)
    # Of two thresholds with two errors each it is the one that keeps the success rate.
    turns = [episode([i % 2], [0.1 * i]) for i in range(6)]
    assert best_threshold(turns) == pytest.approx(0.25)
    assert judge_report(turns, 0.25)["episodes"]["called"] == 0.5
    with pytest.raises(ValueError, match="got 4 successes in 4 episodes"):
        best_threshold([judged[0]] * 4)


def test_the_report_counts_frames_and_episodes():
    judged = [episode([0, 1], [0.1, 0.9]), episode([0, 0], [0.7, 0.1]), episode([0, 1], [0.2, 0.3])]
    report = judge_report(judged, 0.5)
    # Frames: successes score .9 and .3, failures .1, .7, .1, .2: seven of eight pairs are right.
    frames = report["frames"]
    assert frames["confusion"] == {"true_success": 1, "false_success": 1, "false_failure": 1, "true_failure": 3}
    assert (frames["n"], frames["successes"], frames["auc"]) == (6, pytest.approx(1 / 3), 0.875)
    assert frames["accuracy"] == pytest.approx(4 / 6)
    # Episodes: peaks .9 and .3 of successes, .7 of a failure.
    assert report["episodes"]["auc"] == 0.5
    assert report["episodes"]["called"] == pytest.approx(2 / 3)
    alike = judge_report([judged[0]], 0.5)["episodes"]
    assert alike["auc"] is None and alike["accuracy"] == 1.0


def test_verdicts_follow_the_two_outputs():
    """A logit of log 3 is a probability of .75; a reward of .25 lies a quarter into its range."""
    learned = LearnedJudge(SHAPE, threshold=0.7, reward_range=(-1.0, 3.0))
    learned.network.head[-1].weight.data.zero_()
    learned.network.head[-1].bias.data = torch.tensor([3.0, 1.0]).log() + torch.tensor([0, 0.25])
    verdict = learned(Observation(pictures(2), None))
    assert verdict.rewards.tolist() == pytest.approx([0.0, 0.0])
    assert verdict.successes.tolist() == [True, True]
    assert learned.score(pictures(1)).tolist() == pytest.approx([0.75])
    learned.threshold = 0.76
    assert learned(Observation(pictures(2), None)).successes.tolist() == [False, False]
    with pytest.raises(ValueError, match=r"frames of \(2, 16, 16, 3\), got \(1, 16, 16, 3\)"):
        learned.score(pictures(1)[:, :1])


def test_a_saved_judge_judges_alike(tmp_path):
    torch.manual_seed(0)
    one = LearnedJudge(SHAPE, threshold=0.3, reward_range=(-2.0, 5.0))
    one.save(tmp_path, dtype=torch.float32)
    again = LearnedJudge.load(tmp_path)
    assert (again.threshold, again.reward_range, again.shape) == (0.3, (-2.0, 5.0), SHAPE)
    frames = torch.randint(0, 256, (3, 2, 16, 16, 3), dtype=torch.uint8)
    torch.testing.assert_close(again.predict(frames), one.predict(frames))


def test_a_folder_without_a_judge_is_named(tmp_path):
    def broken(edit):
        LearnedJudge(SHAPE).save(tmp_path / "broken")
        edit(tmp_path / "broken")

    def narrow(folder):
        file = folder / "judge.json"
        file.write_text(file.read_text().replace('"width": 8', '"width": 9'))

    for edit, message in (
        (lambda f: (f / "judge.json").unlink(), "judge.json is missing"),
        (narrow, "head.0.bias is"),
        (lambda f: (f / "weights.safetensors").unlink(), "weights.safetensors: missing"),
    ):
        broken(edit)
        with pytest.raises(ValueError, match=message):
            LearnedJudge.load(tmp_path / "broken")


def test_episodes_are_cut_into_three_parts(data):
    source = open_episodes(data)
    assert split(source, 0.25) == (range(18), range(18, 21), range(21, 24))
    with pytest.raises(ValueError, match="leave no episode to train"):
        split(source, 0.01)


def test_every_frame_but_the_first_is_judged(data):
    """The score here is the share of bright pixels on the right, the truth that of the recording."""
    source = open_episodes(data)
    bright = lambda frames: (frames[:, :, :, 8:] > 128).float().mean((1, 2, 3, 4))  # noqa: E731
    judged = judge_episodes(bright, source, [0, 2])
    clip = source.read(0, 0, source.lengths[0])
    assert torch.equal(judged[0].successes, clip.successes)
    torch.testing.assert_close(judged[0].scores, bright(clip.frames[1:]))
    assert judged[0].scores[-1] > judged[0].scores[0]
    assert judged[0].successes.any() and not judged[1].successes.any()
    world = tiny_world(size=(16, 16), random=False)
    pictures = dream_again(world, source, [0, 2], num_steps=1, batch=1)
    dreamed = judge_episodes(bright, source, [0, 2], pictures)
    # A world that has learnt nothing shows the first frame again and again.
    first = bright(clip.frames[:1]).item()
    assert dreamed[0].scores.tolist() == pytest.approx([first] * len(clip.successes), abs=0.01)
    assert torch.equal(dreamed[1].successes, judged[1].successes)


def test_episodes_are_dreamt_under_their_own_actions():
    """Every frame is brighter than the one before by the action: 1, 2, 3, 4 in the first episode, then 11 and 12."""
    source = DrawnEpisodes([5, 3], lambda e, t: 50 + 0 * t, action=lambda e, t: 10 * e + t + 1)
    world = TellingWorld(drawn_world(relative=False).config).eval()
    first, second = dream_again(world, source, [0, 1], num_steps=1)
    assert first[:, 0, 0, 0, 0].tolist() == [51, 53, 56, 60]
    assert second[:, 0, 0, 0, 0].tolist() == [61, 73]


def test_a_world_of_a_stride_dreams_and_is_judged_at_the_frames_that_it_shows(data):
    """Actions are 1, 2, 3, ...: with a stride of 2 the first of each two is told, so the frame grows by 1, 3, 5."""
    drawn = DrawnEpisodes([8, 5], lambda e, t: 50 + 0 * t, action=lambda e, t: 10 * e + t + 1)
    world = TellingWorld(drawn_world(relative=False, stride=2).config).eval()
    first, second = dream_again(world, drawn, [0, 1], num_steps=1)
    assert first[:, 0, 0, 0, 0].tolist() == [51, 54, 59] and second[:, 0, 0, 0, 0].tolist() == [61, 74]
    with pytest.raises(ValueError, match="episode 1 has 2 frames, a world model of stride 2 needs at least 3"):
        dream_again(world, DrawnEpisodes([8, 2]), [0, 1])
    source = open_episodes(data)
    clip = source.read(0, 0, source.lengths[0])
    late = torch.arange(2, len(clip.frames), 2)
    assert 0 < clip.successes[late - 1].sum() < len(late)
    (judged,) = judge_episodes(lambda frames: frames.float().mean((1, 2, 3, 4)), source, [0], None, 2)
    assert torch.equal(judged.successes, clip.successes[late - 1])
    torch.testing.assert_close(judged.scores, clip.frames[late].float().mean((1, 2, 3, 4)))
    rows = read_frames(source, [0], None, 2)
    assert torch.equal(rows.frames, clip.frames[late]) and torch.equal(rows.successes, clip.successes[late - 1])
    assert torch.equal(rows.rewards, clip.rewards[late - 1])


def test_half_of_a_batch_are_successes_and_a_quarter_near_misses():
    """Of ten failed frames the fifth with the highest rewards are near misses: those of rewards 8 and 9."""
    rewards = torch.tensor([3.0, 9.0, 10.0, 1.0, 0.0, 8.0, 10.0, 2.0, 4.0, 5.0, 6.0, 7.0])
    solved = rewards == 10
    rows = Frames(pictures(12), solved, rewards)
    (wins, half), (near, quarter), (losses, rest) = batch_pools(rows, 9)
    assert (half, quarter, rest) == (4, 2, 3)
    assert wins.tolist() == [2, 6] and sorted(near.tolist()) == [1, 5]
    assert losses.tolist() == [0, 1, 3, 4, 5, 7, 8, 9, 10, 11]


def test_rewards_are_learnt_on_the_range_of_the_judge(tmp_path):
    """A square on the right is a success with reward 5, on the left a failure with reward 1; the range is 1 to 5."""
    frames = pictures(12, 20)
    frames[:6, :, 4:12, 1:5] = frames[6:, :, 4:12, 11:15] = 230
    solved = torch.arange(12) >= 6
    torch.manual_seed(0)
    learned = LearnedJudge(SHAPE, reward_range=(1.0, 5.0))
    rows = Frames(frames, solved, torch.where(solved, 5.0, 1.0))
    fit_judge(learned, rows, JudgeConfig(Path(), tmp_path, steps=60, batch=16, learning_rate=1e-2))
    probability, reward = learned.predict(frames)
    assert probability[:6].max() < 0.3 < 0.7 < probability[6:].min()
    assert reward[:6].max() < 2 < 4 < reward[6:].min()
    assert not learned.network.training


def test_disturbed_frames_stay_near():
    frames = torch.randint(60, 190, (8, 2, 16, 16, 3), dtype=torch.uint8)
    again = disturb(frames, torch.Generator().manual_seed(0))
    assert again.shape == frames.shape and again.dtype == torch.uint8
    assert not torch.equal(again, frames)
    flat = torch.full_like(frames, 128)
    change = (disturb(flat, torch.Generator().manual_seed(0)).float() - 128).abs()
    assert 0 < change.mean() < 12


@pytest.mark.parametrize("stride", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_command_trains_calibrates_and_reports(stride, data, tmp_path, capsys):
    world = tiny_world(size=(16, 16), random=False, stride=stride)
    world.save(tmp_path / "world")
    flags = ["judge", "--data", str(data), "--out", str(tmp_path / "judge"), "--steps", "80"]
    flags += ["--world", str(tmp_path / "world"), "--num-steps", "1", "--batch", "32"]
    flags += ["--dreams", "2"] if stride > 1 else []
    assert main(flags) == 0
    assert "judges on held-out episodes" in capsys.readouterr().out
    report = json.loads((tmp_path / "judge/report.json").read_text())
    assert report["episodes"] == {"train": [0, 18], "calibration": [18, 21], "test": [21, 24]}
    assert report["real"]["learned"]["frames"]["auc"] > 0.9
    shown = [report[place]["learned"]["frames"]["n"] for place in ("real", "dreamed")]
    assert shown == [3 * 7, 3 * (7 // stride)]
    assert report["dreamed"]["goal_image"]["episodes"]["n"] == 3
    assert "of 3 held-out episodes" in (tmp_path / "judge/report.html").read_text()
    again = LearnedJudge.load(tmp_path / "judge")
    assert again.reward_range[1] == pytest.approx(1.2) and 0 < again.threshold < 1


def test_dreamt_frames_have_the_labels_of_the_record(data):
    source, world = open_episodes(data), tiny_world(size=(16, 16), random=False)
    real = read_frames(source, [0, 2])
    dreamed = read_frames(source, [0, 2], dream_again(world, source, [0, 2], num_steps=1))
    assert torch.equal(dreamed.successes, real.successes)
    assert torch.equal(dreamed.rewards, real.rewards)
    assert dreamed.frames.shape == real.frames.shape
    assert not torch.equal(dreamed.frames, real.frames)
    both = real.join(dreamed)
    assert torch.equal(both.frames, torch.cat([real.frames, dreamed.frames]))


def test_a_judge_learns_from_dreams(data, tmp_path, capsys):
    tiny_world(size=(16, 16), random=False).save(tmp_path / "world")
    flags = ["judge", "--data", str(data), "--out", str(tmp_path / "judge"), "--steps", "20"]
    assert main([*flags, "--dreams", "6"]) == 2
    assert "--dreams 6 needs --world, got none" in capsys.readouterr().err
    flags += ["--world", str(tmp_path / "world"), "--num-steps", "1"]
    assert main([*flags, "--dreams", "6"]) == 0
    told = LearnedJudge.load(tmp_path / "judge")
    assert json.loads((tmp_path / "judge/report.json").read_text())["dreams"] == 6
    assert main([*flags, "--dreams", "0", "--overwrite"]) == 0
    # Dreams joined the frames to learn from, and the threshold is set on them.
    assert LearnedJudge.load(tmp_path / "judge").threshold != told.threshold


def test_data_without_failures_are_refused(tmp_path, capsys):
    data = write_episodes(tmp_path / "short", 8, steps=2)
    assert main(["judge", "--data", str(data), "--out", str(tmp_path / "judge")]) == 2
    assert "learns from successes and failures, got 0 successes" in capsys.readouterr().err
    one = JudgeConfig(data, tmp_path / "judge", held_out=2.0)
    with pytest.raises(ValueError, match="--held-out is above 0 and below 1, got 2"):
        train_judge(one)
