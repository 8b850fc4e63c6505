"""Rewards that can be hacked: measures that nobody rewarded stop the run, and an earlier world model is kept."""

import json
from pathlib import Path

import pytest
import torch
from places import LEROBOT_V30, ROOT

from worldmodel.cli import main
from worldmodel.world_model import WorldModel

WORLD = ROOT / "checkpoints" / "pusht"
HACKS = """
def still(seen):
    return -(seen.predicted - seen.context).square().mean(dim=(1, 2, 3, 4, 5))


def erased(seen):
    empty = seen.recorded.flatten(0, 1).median(dim=0).values
    return -(seen.predicted - empty).square().mean(dim=(1, 2, 3, 4, 5))
"""


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("hack", ["still", "erased"])
def test_a_hacked_reward_is_stopped_and_an_earlier_world_is_kept(hack, tmp_path, monkeypatch, capsys):
    (tmp_path / f"hacks_{hack}.py").write_text(HACKS)
    monkeypatch.chdir(tmp_path)
    options = {
        "objective": "pathwise",
        "world": WORLD,
        "data": LEROBOT_V30,
        "out": "out",
        "pathwise.extra": f"hacks_{hack}:{hack}=20",
        "pathwise.perceptual": 0,
        "pathwise.realism": 0,
        "pathwise.frames": 7,
        "groups": 2,
        "learning-rate": 3e-4,
        "warmup": 1,
        "average-decay": 0.5,
        "steps": 60,
        "validation-episodes": 2,
        "validation-starts": 2,
        "validation-horizon": 10,
        "validation-interval": 4,
        "patience": 2,
    }
    assert main(["posttrain", *(str(part) for name, value in options.items() for part in (f"--{name}", value))]) == 0
    updates, evaluations = rows(Path("out/updates.jsonl")), rows(Path("out/evaluations.jsonl"))
    assert updates[-1][f"reward.{hack}"] > updates[0][f"reward.{hack}"]  # the reward itself says that all is well
    assert evaluations[-1]["held_back_name"] == "object error"
    assert evaluations[-1]["held_back"] > evaluations[0]["held_back"] + 2
    assert evaluations[-1]["step"] < 60
    assert [row["kept"] for row in evaluations[-2:]] == [False, False]
    kept = [row["step"] for row in evaluations if row["kept"]][-1]
    assert f"The kept world model is that of update {kept};" in Path("out/report.html").read_text()
    if kept == 0:
        assert "the world model is kept as it was" in capsys.readouterr().out
        before, after = WorldModel.load(WORLD).state_dict(), WorldModel.load("out").state_dict()
        assert all(torch.equal(before[name], value) for name, value in after.items())
