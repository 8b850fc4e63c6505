"""A world model that does not rank policies is no place to improve one in."""

import json

import pytest
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from rl_posttrain.imagination.gate import check_ranking
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
