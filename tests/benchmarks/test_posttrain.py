"""The benchmark of post-training, with everything small."""

import json

import pytest
from fresh_python import python
from places import LEROBOT_V30, ROOT
from tiny import tiny_world

DATA = LEROBOT_V30


@pytest.mark.slow
def test_arms_are_compared_with_the_world_model_before(tmp_path):
    tiny_world().save(tmp_path / "world")
    out = tmp_path / "out"
    command = [
        "benchmarks/posttrain.py",
        "--world",
        str(tmp_path / "world"),
        "--data",
        str(DATA),
        "--held-out",
        str(DATA),
        "--measuring",
        str(DATA),
        "--out",
        str(out),
        "--teacher-forced",
        "0.01",
        "--minutes",
        "0.02",
        "--episodes",
        "2",
        "--starts",
        "1",
        "--horizons",
        "2",
        "4",
        "--dynamics-steps",
        "2",
        "--arms",
        "realism",
        "supervised",
    ]
    done = python(*command, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((out / "posttrain.json").read_text())
    updates = result["runs"]["realism 0"]["updates"]
    assert (out / "teacher_forced" / "world.json").exists()
    arms = ["before", "realism", "supervised, equal updates", "supervised"]
    assert [(row["arm"], row["episode"]) for row in result["rows"]] == [
        (arm, episode) for arm in arms for episode in (0, 1)
    ]
    assert result["runs"]["supervised, equal updates 0"]["updates"] == updates >= 1
    assert list(result["comparison"]) == ["before", "supervised", "supervised, equal updates"]
    against = result["comparison"]["before"]
    assert against["before"]["psnr.top.4"]["change"] == 0
    change = against["realism"]["psnr.top.4"]
    assert change["mean"] - against["before"]["psnr.top.4"]["mean"] == pytest.approx(change["change"], abs=1e-4)
    assert "masked_psnr.wrist.4" in against["realism"]
    assert (out / "out.png").stat().st_size > 1000
    assert "| PSNR, dB: top 4 |" in done.stdout
    again = python(*command, cwd=ROOT)
    assert again.returncode == 0
    assert "==" not in again.stdout, "finished arms are not trained again"
