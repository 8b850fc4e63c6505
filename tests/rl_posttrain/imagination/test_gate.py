"""No harm: a world model that does not rank policies is refused, and so is a policy that is not surely better."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from square_world import SquareWorld, right_edge, square_policy, write_episodes
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.dreams import Standing, harmed, prepare
from rl_posttrain.imagination.gate import check_ranking, compare, confirm, confirm_for_real
from worldmodel.data import open_episodes
from worldmodel.model.folder import fingerprint

CEILING = {"p1": 0.5, "p10": 0.8, "median": 0.9}


@pytest.fixture
def folders(tmp_path):
    tiny_world().save(tmp_path / "world")
    tiny_world(size=(8, 8)).save(tmp_path / "other")
    for name, threshold in (("judge", 0.5), ("stricter", 0.7)):
        LearnedJudge(JudgeShape(("top",), (8, 8)), threshold=threshold).save(tmp_path / name)
    return {name: tmp_path / name for name in ("world", "other", "judge", "stricter")}


def write(folders, *, world="world", standing=0.3, refusal=None, real=True):
    agreement = {
        "pearson": {"value": 0.85, "standing": standing},
        "refusal": refusal,
        "noise_ceiling": {"pearson": CEILING},
    }
    dream = {"world": fingerprint(folders[world]), "judge": fingerprint(folders["judge"])}
    file = folders["world"].parent / "ranking.json"
    report = {"made_with": {"dream": dream}, "agreement": agreement if real else None}
    file.write_text(json.dumps(report))
    return file


def test_a_dream_that_ranks_is_said_to(folders):
    file, world = write(folders), str(folders["world"])
    said = check_ranking(file, world, folders["judge"])
    assert "about as a perfect simulator would (Pearson 0.85" in said and "0.80" in said
    assert "with another judge" in check_ranking(file, world, folders["stricter"])
    assert "not known" in check_ranking(None, world, folders["judge"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"standing": 0.05}, "does not rank policies .Pearson 0.85.* 0.80.*without --ranking"),
        ({"world": "other"}, "made with world model [0-9a-f]{16}, .*world is [0-9a-f]{16}"),
        ({"refusal": "3 policies"}, "not say how well dream and reality agree: 3 policies"),
        ({"real": False}, "not say how well dream and reality agree: no real trials"),
    ],
)
def test_other_rankings_are_refused(folders, change, message):
    file = write(folders, **change)
    with pytest.raises(ValueError, match=message):
        check_ranking(file, str(folders["world"]), folders["judge"])


@pytest.mark.parametrize("text", ["{}", "[]", "no json", None])
def test_what_is_no_ranking_is_named(folders, text):
    file = folders["world"].parent / "some.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=r"some.json: no ranking.json of `worldmodel rank`"):
        check_ranking(file, str(folders["world"]), folders["judge"])


def fast_policy() -> ClonedPolicy:
    """Goes two pixels to the right with every action."""
    policy = square_policy()
    policy.action_mean.copy_(torch.tensor([2.0, 0.0]))
    policy.action_std.fill_(1e-6)
    return policy


@pytest.mark.parametrize(("clone", "learner", "kept"), [("slow", "fast", 3), ("fast", "slow", 0), ("slow", "slow", 0)])
def test_the_clone_is_kept_unless_the_learner_is_surely_better(clone, learner, kept, tmp_path, capsys):
    made = {"slow": square_policy, "fast": fast_policy}
    data = write_episodes(tmp_path / "data", 24)
    options = ImagineConfig("", Path(), Path(), data, tmp_path, confirm=8, held_out=0.25, validation_horizon=6)
    setting = prepare(options, SquareWorld(), right_edge, open_episodes(data))
    made[learner]().save(tmp_path, dtype=torch.float32)
    report = confirm(options, setting, made[clone](), {"best": {"step": 3}})
    assert report["kept"] == kept and report["confirmation"]["n"] == 8
    assert ("the clone is kept" in capsys.readouterr().out) == (kept == 0)
    expected = made[learner if kept else clone]().action_mean
    assert torch.equal(ClonedPolicy.load(tmp_path).action_mean, expected)
    found = report["confirmation"]
    assert (found["learner"] - found["clone"]) == {3: 1, 0: -1 if clone == "fast" else 0}[kept]
    unchanged = confirm(options, setting, made[clone](), {"best": {"step": 0}})
    assert unchanged["kept"] == 0 and unchanged["confirmation"] is None


@pytest.mark.parametrize(("learner", "clone", "kept"), [("fast", "slow", 3), ("slow", "fast", 0), ("slow", "slow", 0)])
def test_real_trials_have_the_last_word(learner, clone, kept, tmp_path, monkeypatch, capsys):
    """The dreams chose the learner of update 3; the real square tells which of both is better."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "helpers"))
    made = {"slow": square_policy, "fast": fast_policy}
    data = write_episodes(tmp_path / "data", 4)
    made[clone]().save(tmp_path / "clone", dtype=torch.float32)
    made[learner]().save(tmp_path / "out", dtype=torch.float32)
    options = ImagineConfig("", Path(), tmp_path / "clone", data, tmp_path / "out", real="square_world:SquareEnv")
    options = replace(options, real_trials=4, videos=1, video_steps=7)
    report = confirm_for_real(options, made[clone](), {"kept": 3}, stride=1)
    found = report["confirmation_for_real"]
    assert report["kept"] == kept and found["n"] == 4
    assert (found["clone"], found["learner"]) == tuple(float(each == "fast") for each in (clone, learner))
    assert ("the clone is kept" in capsys.readouterr().out) == (kept == 0)
    assert torch.equal(ClonedPolicy.load(tmp_path / "out").action_mean, made[learner if kept else clone]().action_mean)
    assert len(list((tmp_path / "out/videos").glob("*.mp4"))) == 1


def test_the_interval_is_paired_and_over_episodes():
    """Three in four starts gain and none loses. Seen as one episode, they say nothing."""
    clone, learner = np.zeros(16), np.tile([1.0, 1.0, 1.0, 0.0], 4)
    found = compare(clone, learner, np.arange(16))
    assert found.gains and found.interval[0] > 0.4 and found.learner - found.clone == 0.75
    assert not compare(learner, clone, np.arange(16)).gains
    assert not compare(clone, learner, np.zeros(16, int)).gains
    few = compare(clone, np.eye(16)[0], np.arange(16))
    assert not few.gains and few.sentence("dreams").startswith("In 16 dreams the clone succeeds in 0% and")


def test_episodes_are_kept_back_for_the_comparison_alone(tmp_path):
    write_episodes(tmp_path / "data", 4)
    source = open_episodes(tmp_path / "data")
    options = ImagineConfig("w", "j", "p", "d", tmp_path / "out", context=1, held_out=0.25)
    with_it, without = (
        prepare(replace(options, confirm=number), SquareWorld(), right_edge, source) for number in (8, 0)
    )
    assert set(with_it.train.episodes) == {0, 1} and set(with_it.fresh.episodes) == {2}
    assert set(without.train.episodes) == {0, 1, 2} and len(without.fresh) == 0
    assert "too few for an interval" in compare(np.zeros(4), np.ones(4), np.zeros(4, int)).sentence("dreams")


def test_a_learner_below_the_clone_by_two_standard_errors_ends_the_run():
    """Losses of 1 and 3 have mean 2 and, for four of them, a standard error of 0.577; 4 and -2 mean 1 and 1.73."""
    clone = torch.zeros(4)
    assert harmed(-torch.tensor([1.0, 3, 1, 3]), clone) and not harmed(torch.tensor([1.0, 3, 1, 3]), clone)
    assert not harmed(-torch.tensor([4.0, -2, 4, -2]), clone) and not harmed(clone, clone)


def test_a_run_stands_where_its_measurements_left_it(tmp_path):
    """The best is replaced by a sure gain only; harm is told by the clone, which was measured first."""
    standing, seen = Standing(), []
    for step, returns in enumerate([0.0, 1.0, 0.5, 0.5, -1.0]):
        standing = standing.after({"step": step}, torch.full((4,), returns))
        seen.append((standing.best["step"], standing.since_best, standing.harm, standing.gives_up(3)))
        saved = json.loads(json.dumps({"standing": standing.to_json()}))
        assert standing.first["step"] == 0 and Standing.from_json(saved, tmp_path) == standing
    assert seen == [
        (0, 0, False, False),
        (1, 0, False, False),
        (1, 1, False, False),
        (1, 2, False, False),
        (1, 3, True, True),
    ]
    with pytest.raises(ValueError, match="'standing' is missing; an older release began this run"):
        Standing.from_json({"best": {}}, tmp_path)
    assert Standing(harm=True).gives_up(9) and Standing(since_best=9).gives_up(9) and not Standing().gives_up(1)
