"""The benchmark of post-training, with everything small."""

import json
import subprocess
import sys

import pytest
from places import LEROBOT_V30, ROOT
from tiny import tiny_world

DATA = LEROBOT_V30


@pytest.mark.slow
def test_arms_are_compared_with_the_world_model_before(tmp_path):
    tiny_world().save(tmp_path / "world")
    out = tmp_path / "out"
    command = [
        sys.executable,
        "benchmarks/posttrain.py",
        "--world",
        str(tmp_path / "world"),
        "--data",
        str(DATA),
        "--held-out",
        str(DATA),
        "--out",
        str(out),
        "--minutes",
        "0.02",
        "--episodes",
        "2",
        "--horizons",
        "2",
        "4",
        "--dynamics-steps",
        "2",
        "--arms",
        "nft",
        "self-rollout",
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result = json.loads((out / "posttrain.json").read_text())
    arms = ["base", "nft", "self-rollout-equal-updates", "self-rollout"]
    assert [(row["arm"], row["episode"]) for row in result["rows"]] == [
        (arm, episode) for arm in arms for episode in (0, 1)
    ]
    runs = result["runs"]
    assert runs["self-rollout-equal-updates 0"]["updates"] == runs["nft 0"]["updates"] >= 1
    comparison = result["comparison"]
    assert comparison["base"]["psnr.top.4"]["change"] == 0
    change = comparison["nft"]["psnr.top.4"]
    mean = comparison["base"]["psnr.top.4"]["mean"]
    assert change["mean"] - mean == pytest.approx(change["change"], abs=1e-4)
    assert "masked_psnr.wrist.4" in comparison["nft"]
    assert (out / "posttrain.png").stat().st_size > 1000
    assert "| psnr.top.4 |" in done.stdout
    again = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "==" not in again.stdout, "finished arms are not trained again"
