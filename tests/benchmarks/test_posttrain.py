"""The benchmark of post-training, with everything small."""

import json

import pytest
from fresh_python import python
from places import LEROBOT_V30, ROOT
from tiny import tiny_world

DATA = LEROBOT_V30
LATE = (", 0.01 minutes", "")


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
        "0.03",
        "--curve",
        "0.01",
        "--learning-rates",
        "1e-5",
        "1e-3",
        "--realism-warmup",
        "0",
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
    updates = result["runs"]["realism 1e-05 0"]["updates"]
    assert (out / "teacher_forced" / "world.json").exists()
    names = [f"{arm} {rate}{late}" for rate in ("1e-05", "0.001") for arm in ("realism", "supervised") for late in LATE]
    equal = [f"supervised {rate}, equal updates" for rate in ("1e-05", "0.001")]
    assert {row["arm"] for row in result["rows"]} == {"before", *names, *equal}
    assert {row["episode"] for row in result["rows"]} == {0, 1}
    assert result["runs"]["supervised 1e-05, equal updates 0"]["updates"] == updates >= 1
    controls = ["supervised 1e-05", "supervised 0.001"]
    assert list(result["comparison"]) == ["before", *controls, *equal]
    finals = {"before", "realism 0.001", "supervised 0.001", "supervised 0.001, equal updates"}
    assert set(result["comparison"]["supervised 0.001"]) == finals, "of the same learning rate, and of the end"
    against = result["comparison"]["before"]
    assert against["before"]["psnr.top.4"]["change"] == 0
    change = against["realism 1e-05"]["psnr.top.4"]
    assert change["mean"] - against["before"]["psnr.top.4"]["mean"] == pytest.approx(change["change"], abs=1e-4)
    assert "masked_psnr.wrist.4" in against["realism 1e-05"]
    assert {point["rate"] for point in result["curve"]} == {1e-5, 1e-3}
    assert (out / "out.png").stat().st_size > 1000 < (out / "out-curve.png").stat().st_size
    assert "## learning rate 0.001, over updates" in done.stdout
    assert "| PSNR, dB: top 4 |" in done.stdout
    again = python(*command, cwd=ROOT)
    assert again.returncode == 0
    assert "==" not in again.stdout, "finished arms are not trained again"
