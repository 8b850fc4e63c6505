"""Verdicts on dreams against recorded outcomes."""

from dataclasses import fields, replace

import pytest
import torch
from places import LEROBOT_V30

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from rl_posttrain.rewards.outcome import OutcomeAgreement, check_outcomes
from rl_posttrain.rewards.reward import Rollout
from worldmodel.data import Clip, open_episodes
from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation


def bright(observation: Observation) -> Verdict:
    """A frame is a success if it is bright."""
    level = observation.frames.float().mean(dim=(1, 2, 3, 4))
    return Verdict(level, level > 128)


def dream(*levels: int, successes=None, **more) -> Clip:
    frames = torch.tensor(levels, dtype=torch.uint8)[None, :, None, None, None, None].expand(1, -1, 1, 8, 8, 3)
    return Clip(frames, successes=None if successes is None else torch.tensor([successes]), **more)


def test_a_verdict_is_compared_with_the_recorded_success_of_every_frame():
    reward = OutcomeAgreement(bright)
    recorded = dream(0, 0, 0, 0, successes=[False, False, True])
    for levels, expected in (((255, 0, 0, 255), [0, 0, 0]), ((0, 255, 0, 0), [-1, 0, -1])):
        found = reward(Rollout(dream(*levels), recorded))
        assert found.shape == (1, 3, 1, 1, 1) and found.flatten().tolist() == expected


def test_an_optimistic_dream_of_a_failure_is_the_worst():
    """The recording fails: a dream that fails, too, is right, and one that succeeds at the end is not."""
    reward, failed = OutcomeAgreement(bright), dream(0, 0, 0, successes=[False, False])
    right, optimistic = (reward(Rollout(dream(0, 0, last), failed)).mean().item() for last in (0, 255))
    assert (right, optimistic) == (0.0, -0.5)


def test_a_learned_judge_is_as_sure_as_its_distance_from_the_threshold():
    torch.manual_seed(0)
    judge = LearnedJudge(JudgeShape(("top",), (8, 8)))
    probability = judge.score(dream(9).frames[0]).item()
    judge.threshold = probability
    recorded = dream(0, 0, successes=[True])
    reward = OutcomeAgreement(judge)
    assert reward(Rollout(dream(0, 9), recorded)).item() == pytest.approx(-0.25, abs=1e-5)
    judge.threshold = 1 / (1 + 3 * (1 - probability) / probability)  # the odds are three times those of the threshold
    assert reward(Rollout(dream(0, 9), recorded)).item() == pytest.approx(-((1 / 4) ** 2), abs=1e-4)


def test_a_judge_sees_states_and_tasks_of_the_frames_it_judges():
    seen = []
    clip = dream(0, 1, 2, states=torch.tensor([[[5.0], [6.0], [7.0]]]), task=("lift",))
    reward = OutcomeAgreement(lambda observation: seen.append(observation) or bright(observation))
    reward.successes(clip)
    assert seen[0].states.tolist() == [[6.0], [7.0]] and seen[0].task == ("lift", "lift")
    reward.successes(replace(clip, task=""))
    assert seen[1].task == ()


def test_outcomes_have_to_be_recorded():
    source = open_episodes(LEROBOT_V30, (16, 24))
    check_outcomes(source)

    class Play(type(source)):
        """The same episodes without successes."""

        def columns(self, episode, stride=1):
            return replace(super().columns(episode, stride), successes=None)

    source = Play(**{field.name: getattr(source, field.name) for field in fields(source) if field.init})
    with pytest.raises(ValueError, match=r"^--judge: .* has no next.success, and the reward of outcomes"):
        check_outcomes(source)
