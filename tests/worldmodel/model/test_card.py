"""What a card says: figures as they were measured, and text of users as text."""

import json

import pytest
import torch
from places import ROOT
from tiny import tiny_world

from policy_eval.judge.goals.judge import GoalJudge, GoalShape
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from worldmodel.model.card import CardFacts, code, model_card, plain, spans, training

SCORE = {"score": 0.5, "low": 0.25, "high": 0.75, "n": 8}
REFUSED = {"value": None, "low": None, "high": None, "standing": None}
AGREEMENT = dict.fromkeys(("pearson", "spearman", "kendall", "mmrv_tie_safe", "rmse"), REFUSED)
AGREEMENT |= {"bias": {"value": 0.125, "low": -0.1, "high": 0.3, "standing": 0.4}}


def card(folder, file="world.json", **facts) -> str:
    return model_card("me/a-model", folder, file, CardFacts(**facts))


def test_text_of_users_is_shown_as_it_is():
    assert plain("a | b\n\n# <script>x</script> [me](http://x) `c` *d* e_f") == (
        r"a \| b \# \<script\>x\</script\> \[me\](http://x) \`c\` \*d\* e\_f"
    )
    assert code("a`b\n```\n<b>") == "`a'b ''' <b>`"
    assert plain("Plain text, 3.5 dB (50%): fine - really.") == "Plain text, 3.5 dB (50%): fine - really."


def test_a_world_is_described_with_its_data_and_training(tmp_path):
    world = tiny_world(stride=2)
    world.train_data = [
        {"name": "/disk/somebody/sets/mine", "episodes": [0, 1, 2], "reset_seeds": [7, 9, 8]},
        {"name": "hf://you/yours", "episodes": [4], "reset_seeds": None},
    ]
    world.save(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "settings.json").write_text(json.dumps({"batch": 8, "init": "/disk/somebody", "seed": 3}))
    (tmp_path / "state" / "state.json").write_text(json.dumps({"step": 40, "seconds": 180.0}))
    said = card(tmp_path, license="mit", data="Recorded <b>here</b>.", limits="It | is grey.")
    assert "World model: cameras `top` and `wrist` at 16 x 24 pixels, 2 action and 2 state dimensions, 10 fr" in said
    assert "frames/s, of which every second is shown." in said and "- **Licence**: mit\n" in said
    data = r"3 episodes of `mine`, reset seeds 7..9. 1 episode of `hf://you/yours`. Recorded \<b\>here\</b\>."
    assert f"- **Data**: {data}\n- **Training**: 40 steps in 3 minutes, batch 8, seed 3.\n" in said
    assert said.endswith("these cameras. It \\| is grey.\n") and "somebody" not in said
    assert 'from worldmodel import WorldModel\n\nworld = WorldModel.load("hf://me/a-model")' in said
    assert "## Fidelity" not in said and "## Ranking" not in said


def test_what_is_not_known_is_said_so(tmp_path):
    LearnedJudge(JudgeShape(("top",), (16, 16))).save(tmp_path)
    said = card(tmp_path, "judge.json")
    assert "Judge of success: cameras `top` at 16 x 16 pixels, threshold 0.500." in said
    assert "none was given, so ask the owner\n- **Data**: not described\n- **Training**: not noted.\n" in said
    row = {"n": 12, "auc": None, "accuracy": 0.75}
    (tmp_path / "report.json").write_text(json.dumps({"data": "sets/mine", "real": {"learned": {"frames": row}}}))
    assert "Episodes of `mine`." in (said := card(tmp_path, "judge.json"))
    assert "| real frames | 12 | - | 0.750 |" in said
    (tmp_path / "report.json").write_text(json.dumps({"real": {"learned": {"frames": {}}}}))
    with pytest.raises(
        ValueError, match=r"report.json: this is not a judge report, no card can be written from it: KeyError"
    ):
        card(tmp_path, "judge.json")


def test_a_judge_of_goals_is_told_from_one_of_success(tmp_path):
    GoalJudge(GoalShape(("top",), (16, 16)), torch.zeros(3, 1, 16, 16, 3, dtype=torch.uint8), threshold=0.8).save(
        tmp_path
    )
    (tmp_path / "report.json").write_text(
        json.dumps({"data": "sets/play", "ordering": 0.9, "spearman": [0.8, 0.7, 0.9]})
    )
    said = card(tmp_path, "judge.json")
    assert "Judge of goals: cameras `top` at 16 x 16 pixels, threshold 0.800." in said
    assert "from policy_eval import GoalJudge\n\njudge = GoalJudge.load(" in said
    assert "nearer to the goal | 0.900 |" in said and "true reward | 0.800 |" in said


def test_fidelity_is_a_row_for_each_metric_and_a_column_for_each_number_of_steps(tmp_path):
    tiny_world().save(tmp_path)
    shipped = json.loads((ROOT / "checkpoints" / "pusht" / "fidelity.json").read_text())
    files = [tmp_path / "fidelity-2.json", tmp_path / "fidelity-1.json"]
    files[0].write_text(json.dumps(shipped))
    shipped["metadata"]["num_steps"], shipped["cameras"]["top"]["ssim"]["50"] = 1, None
    files[1].write_text(json.dumps(shipped))
    said = card(tmp_path, fidelity=tuple(files))
    assert "192 windows of 48 held-out episodes, recorded actions; means, for the horizons 1 / 5 / 10 / 25 / 50" in said
    assert "| figure | 2 steps | 1 step | copy last |\n| --- | --- | --- | --- |\n" in said
    ssim = "0.996 / 0.989 / 0.980 / 0.956"
    assert f"| top ssim | {ssim} / 0.930 | {ssim} / - | 0.974 / 0.938 / 0.914 / 0.886 / 0.871 |" in said
    assert "| block missing | 0.00 /" in said and "| PSNR lost under hold actions, dB | 11.8 / 11.8 / 10.1" in said
    (tmp_path / "fidelity.json").write_text(files[0].read_text())
    assert "| figure | 2 steps | copy last |" in card(tmp_path), "the report in the folder"
    files[0].write_text("{}")
    with pytest.raises(
        ValueError, match=r"fidelity-2.json, .*fidelity-1.json: this is not a fidelity report, no card can be written"
    ):
        card(tmp_path, fidelity=tuple(files))


def test_a_ranking_is_shown_with_intervals_and_what_is_refused(tmp_path):
    tiny_world().save(tmp_path)
    policies = [{"name": "my|policy", "dream": SCORE, "real": None}, {"name": "b", "dream": SCORE, "real": SCORE}]
    (tmp_path / "ranking.json").write_text(json.dumps({"policies": policies, "agreement": None}))
    said = card(tmp_path)
    assert "| my\\|policy | 0.50 (0.25 to 0.75), 8 trials | - |" in said
    assert "There were no real trials, so it is not known how well the dreams agree with reality." in said
    agreement = AGREEMENT | {"refusal": "Too few policies."}
    (tmp_path / "ranking.json").write_text(json.dumps({"policies": policies, "agreement": agreement}))
    said = card(tmp_path)
    assert "| bias | 0.125 | -0.100 to 0.300 |\n\nToo few policies." in said and "pearson" not in said


def test_a_policy_tells_how_it_was_cloned(tmp_path):
    report = {"data": "/disk/me/demos", "demonstrations": 12, "steps": 900, "learning_rate": 0.001, "cap": None}
    (tmp_path / "training.json").write_text(json.dumps(report))
    assert training(tmp_path) == "steps 900, learning rate 0.001, demonstrations 12."


def test_numbers_are_named_in_stretches():
    assert spans([7, 1, 2, 0]) == "0..2, 7..7"
