import numpy as np
import pytest
import torch
from tiny import TINY_DIT

from conditioning.conditioner import ConditionerConfig
from demos.quickstart.improvement import improve_policy, meaning, missing
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.scores import Scores
from worldmodel.world_model import WorldModel, WorldModelConfig


def test_what_is_missing_is_said(tmp_path):
    assert missing(tmp_path / "p", tmp_path / "j").endswith(f"{tmp_path / 'p'} and {tmp_path / 'j'}.")
    LearnedJudge(JudgeShape(("top",), (16, 16))).save(tmp_path / "j")
    assert missing(tmp_path / "p", tmp_path / "j").endswith(f"nothing at {tmp_path / 'p'}.")
    config = PolicyConfig(views=("top",), size=(16, 16), action_dim=2, state_dim=2)
    ClonedPolicy(config).save(tmp_path / "p")
    assert missing(tmp_path / "p", tmp_path / "j") is None


@pytest.mark.slow
def test_a_policy_is_improved_and_tried_for_real(tmp_path):
    torch.manual_seed(0)
    views, size = ("top", "wrist"), (64, 64)
    conditioner = ConditionerConfig(action_dim=2, state_dim=2, relative_to={0: 0, 1: 1})
    world = WorldModelConfig(views=views, size=size, fps=10.0, conditioner=conditioner, dit=TINY_DIT)
    WorldModel(world).save(tmp_path / "world")
    LearnedJudge(JudgeShape(views, size)).save(tmp_path / "judge")
    policy = PolicyConfig(views=views, size=size, action_dim=2, state_dim=2, relative_to={0: 0, 1: 1})
    ClonedPolicy(policy).save(tmp_path / "policy")
    found = improve_policy(
        tmp_path / "world",
        tmp_path / "policy",
        tmp_path / "judge",
        tmp_path / "out",
        minutes=10.0,
        episodes=3,
        trials=2,
        updates=1,
        device="cpu",
    )
    before, after = found.scores["before"], found.scores["after"]
    assert before.seeds.tolist() == after.seeds.tolist() and len(before) == 2
    assert found.imagined["updates"] == 1
    assert [row[0] for row in found.rows] == ["before", "after"]
    assert found.video.stat().st_size > 1000


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0, 20, "In real trials the policy got better: success went from 0% to 100% (95% interval of the change"),
        (20, 0, "In real trials the policy got worse: success went from 100% to 0%"),
        (10, 11, "It cannot be told whether the policy got better in real trials: success went from 50% to 55%"),
    ],
)
def test_real_trials_in_words(before, after, words):
    def scores(successes):
        outcomes = np.array([1.0] * successes + [0.0] * (20 - successes))
        return Scores("a", np.arange(20), outcomes, np.zeros(20), np.ones(20, int))

    said = meaning({"before": scores(before), "after": scores(after)})
    assert said.startswith(words) and ("includes 0" in said) == ("cannot be told" in said)
