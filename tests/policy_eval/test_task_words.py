"""Policies and judges that are told the task in words: two tasks in the same pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from square_world import SCHEMA, SquareEnv

from conditioning.words import WordsConfig
from policy_eval.judge.calibration.scores import Listener, recorded_scores
from policy_eval.judge.frames import Frames
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.judge.scores import judge_episodes
from policy_eval.judge.train import JudgeConfig, fit_judge
from policy_eval.policies.clone import CloneConfig, check_clone, fit_policy, policy_config, read_demonstrations
from policy_eval.policies.cloned import ClonedPolicy, make_policy
from policy_eval.policies.keypoints import KeypointEncoder
from policy_eval.policies.needs import check_fits
from worldmodel.cli import main
from worldmodel.data.lerobot.write import finalise, stage_episode
from worldmodel.streaming.state import Observation

LEFT, RIGHT = TASKS = ("go to the left", "go to the right")


class TwoTasks(DrawnEpisodes):
    """A bright square at a place of its own in each episode; the action is -1 to the left and 1 to the right."""

    def __init__(self, episodes: int = 8, length: int = 6):
        super().__init__((length,) * episodes, action=lambda e, frame: torch.full(frame.shape, 2 * (e % 2) - 1))

    def frames(self, episode, index):
        pictures = torch.full((len(index), len(self.views), 16, 16, 3), 40, dtype=torch.uint8)
        place = 3 * (episode // 2)
        pictures[:, :, 4:8, place : place + 4] = 230
        return pictures

    def read(self, episode, start, stop, stride=1):
        clip = super().read(episode, start, stop, stride)
        solved = torch.arange(start + 1, stop) >= 4
        return replace(clip, successes=solved, task=self.task(episode), rewards=solved.float())

    def task(self, episode):
        return TASKS[episode % 2]


def seen(number: int) -> dict[str, torch.Tensor]:
    clip = TwoTasks().read(2, 0, 2)
    return {"observation.images.top": clip.frames[:1, 0].repeat(number, 1, 1, 1)}


def cloned(tmp_path: Path, **settings) -> ClonedPolicy:
    settings |= {"proprioception": False}
    config = CloneConfig(Path("data"), tmp_path, steps=40, batch=12, learning_rate=5e-3, views=("top",), **settings)
    source = TwoTasks()
    rows = read_demonstrations(config, source, config.views)
    torch.manual_seed(0)
    policy = make_policy(policy_config(config, source, rows))
    fit_policy(policy, rows, config)
    return policy.eval()


@pytest.mark.parametrize("head", [{}, pytest.param({"head": "flow", "flow_steps": 2}, marks=pytest.mark.slow)])
def test_a_policy_follows_its_words(head, tmp_path):
    """The pictures are the same for both tasks, so that only the words can tell."""
    policy = cloned(tmp_path, task_words="table", **head)
    policy.reset([0, 1])
    policy.instruct([LEFT, RIGHT])
    left, right = policy.act(seen(2))[:, 0].tolist()
    assert left < -0.7 and right > 0.7
    policy.keep([1])
    assert policy.act(seen(1))[:, 0].item() > 0.7
    policy.save(tmp_path / "policy", dtype=torch.float32)
    again = ClonedPolicy.load(tmp_path / "policy")
    again.reset([0, 1])
    again.instruct([RIGHT, LEFT])
    torch.testing.assert_close(again.plan(seen(2)), policy_plan(policy, [RIGHT, LEFT]))


def policy_plan(policy: ClonedPolicy, tasks: list[str]) -> torch.Tensor:
    policy.reset(range(len(tasks)))
    policy.instruct(tasks)
    return policy.plan(seen(len(tasks)))


@pytest.mark.slow
def test_a_policy_that_is_not_told_means_both(tmp_path):
    plans = policy_plan(cloned(tmp_path), [LEFT, RIGHT])
    assert torch.equal(plans[0], plans[1]) and plans.abs().max() < 0.5


def test_a_policy_says_what_it_lacks(tmp_path):
    config = CloneConfig(Path("data"), tmp_path, views=("top",), proprioception=False, task_words="table")
    source = TwoTasks()
    policy = make_policy(policy_config(config, source, read_demonstrations(config, source, config.views)))
    assert policy.needs.task and not cloned_needs(tmp_path).task
    policy.reset([0, 1])
    with pytest.raises(ValueError, match="told the task in words: instruct got 0 tasks for 2 observations"):
        policy.act(seen(2))
    policy.instruct([LEFT, "go to the lift"])
    with pytest.raises(
        ValueError, match="'go to the lift' is not among the 2 that were trained on; did you mean 'go to"
    ):
        policy.act(seen(2))
    with pytest.raises(ValueError, match="it needs the task in words, 1 of 2 episodes have none"):
        check_fits(policy, SquareEnv.observation_space, SquareEnv.action_space, "told", [LEFT, ""])
    with pytest.raises(ValueError, match="--task-words table does not go with --goals"):
        check_clone(replace(config, goals=tmp_path), source)


def cloned_needs(tmp_path):
    config = CloneConfig(Path("data"), tmp_path, views=("top",), proprioception=False)
    source = TwoTasks()
    return make_policy(policy_config(config, source, read_demonstrations(config, source, config.views))).needs


def test_an_encoder_starts_as_one_that_is_not_told():
    torch.manual_seed(0)
    plain = KeypointEncoder()
    torch.manual_seed(0)
    told = KeypointEncoder(told=4)
    frames = TwoTasks().read(0, 0, 2).frames[:, 0]
    torch.testing.assert_close(told(frames, torch.randn(2, 4)), plain(frames))
    told.film.weight.data.normal_()
    assert not torch.allclose(told(frames, torch.randn(2, 4)), plain(frames))


def labelled() -> Frames:
    """In the rows of the left task the square of a success is on the left, else on the right; failures in between."""
    frames, solved, tasks = [], [], []
    for task, place in ((LEFT, 0), (RIGHT, 12), (LEFT, 6), (RIGHT, 6)):
        pictures = torch.full((8, 1, 16, 16, 3), 40, dtype=torch.uint8)
        pictures[:, :, 4:8, place : place + 4] = 230
        frames.append(pictures)
        solved += [place != 6] * 8
        tasks += [task] * 8
    return Frames(torch.cat(frames), torch.tensor(solved), torch.tensor(solved).float(), tuple(tasks))


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> LearnedJudge:
    rows = labelled()
    torch.manual_seed(0)
    learned = LearnedJudge(JudgeShape(("top",), (16, 16), width=32, words=WordsConfig(TASKS)))
    config = JudgeConfig(Path(), tmp_path_factory.mktemp("judge"), steps=60, batch=16, learning_rate=1e-2)
    fit_judge(learned, rows, config)
    return learned


def test_a_success_at_one_task_is_none_at_another(judge):
    rows = labelled()
    other = tuple(TASKS[1 - TASKS.index(task)] for task in rows.tasks)
    right, wrong = judge.score(rows.frames, rows.tasks), judge.score(rows.frames, other)
    assert right[rows.successes].min() > 0.7 > 0.3 > right[~rows.successes].max()
    assert wrong.max() < 0.3
    verdict = judge(Observation(rows.frames, None, rows.tasks))
    assert torch.equal(verdict.successes, rows.successes)


def test_a_judge_keeps_its_words(judge, tmp_path):
    rows = labelled()
    judge.save(tmp_path, dtype=torch.float32)
    again = LearnedJudge.load(tmp_path)
    torch.testing.assert_close(again.score(rows.frames, rows.tasks), judge.score(rows.frames, rows.tasks))


def test_a_judge_says_what_it_lacks(judge):
    frames = labelled().frames[:2]
    with pytest.raises(ValueError, match="the judge is told the task in words, got 0 tasks for 2 frames"):
        judge.score(frames)
    with pytest.raises(ValueError, match="'sing' is not among the 2 that were trained on; it knows 'go to the left'"):
        judge.score(frames, ("sing", LEFT))


def test_who_measures_a_judge_tells_it_the_task_of_the_episode(judge, tmp_path):
    source = TwoTasks()
    source.views = ("top",)
    clip = source.read(0, 0, 6)
    expected = judge.score(clip.frames[1:], (LEFT,) * 5)
    (judged,) = judge_episodes(judge.score, source, [0], told=True)
    torch.testing.assert_close(judged.scores, expected)
    assert recorded_scores(judge, source, [0], 5, tmp_path / "log") == pytest.approx([float(expected.max())])
    listener = Listener(judge)
    listener(Observation(clip.frames[1:], None, (LEFT,) * 5))
    np.testing.assert_allclose(listener.highest, expected.double(), rtol=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Recorded episodes of the two tasks, of which every third fails."""
    folder, source = tmp_path_factory.mktemp("two") / "data", TwoTasks(episodes=12)
    for episode in range(12):
        clip = source.read(episode % 8, 0, 6)
        stage_episode(
            folder,
            episode,
            schema=SCHEMA,
            frames={view: clip.frames[:-1, i].numpy() for i, view in enumerate(source.views)},
            actions=clip.actions.numpy(),
            states=clip.states[:-1].numpy(),
            rewards=clip.rewards.numpy(),
            successes=clip.successes.numpy() & (episode % 3 > 0),
            task=TASKS[episode % 2],
            metadata={"reset_seed": episode},
        )
    finalise(folder, SCHEMA)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("words", ["table", "my_sentences:encode"])
def test_the_commands_tell_the_task(words, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_sentences.py").write_text("def encode(s):\n    return [[len(each), each.count('r')] for each in s]\n")
    few = ["--data", str(data), "--steps", "3", "--batch", "8", "--task-words", words]
    assert main(["clone", "--out", "policy", *few]) == 0
    assert main(["judge", "--out", "judge", *few, "--held-out", "0.5"]) == 0
    policy, judge = ClonedPolicy.load("policy"), LearnedJudge.load("judge")
    assert set(policy.config.words.tasks) == set(judge.shape.words.tasks) == set(TASKS)
    assert judge.told
    if words != "table":
        expected = [[14.0, 0.0] if task == LEFT else [15.0, 1.0] for task in policy.config.words.tasks]
        assert policy.words.rows.tolist() == judge.network.words.rows.tolist() == expected
        assert policy.words(["err"]).tolist() == [[3, 2]]
    assert main(["judge", "--out", "again", *few[:-2], "--held-out", "0.5", "--init", "judge"]) == 2
    assert "judge: is told the tasks" in capsys.readouterr().err
