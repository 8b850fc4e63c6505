"""Somebody with twenty lines of their own, who knows the commands and touches no file of ours."""

import json
from pathlib import Path

import pytest
from fresh_python import python
from places import ROOT
from run_page import write_files

DRIVE = """
from demos.driving.session import DriveSession
from demos.driving.start import start_from_data, start_from_environment
from worldmodel.data import open_episodes
from worldmodel.world_model import WorldModel

world = WorldModel.load("world")
starts = open_episodes("starts", size=tuple(world.size), views=world.views)
for start in (start_from_environment("my_env:MyEnv", world, seed=7), start_from_data(starts, world, episode=0)):
    session = DriveSession(world, start, beside=True)
    before = session.now.truth.int()
    for _ in range(3):
        moment = session.step(["right"])
    moved = (moment.truth.int() - before).abs().sum().item()
    session.undo()
    back = (session.now.truth.int() - before).abs().sum().item()
    print(tuple(moment.frames.shape), moved > 0, back)
"""


def worldmodel(folder: Path, command: str) -> str:
    """Run a command the way a user does; returns all that it printed."""
    return run(folder, "-m", "worldmodel.cli", *command.split())


def run(folder: Path, *arguments: str) -> str:
    finished = python(*arguments, cwd=folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_a_newcomer_records_trains_measures_ranks_and_drives(tmp_path):
    for page in ("environment", "behaviour", "policy"):
        write_files(ROOT / "docs" / "extend" / f"{page}.md", tmp_path)
    worldmodel(tmp_path, "record my_env:MyEnv --out data --episodes 24 --workers 1")
    worldmodel(
        tmp_path, "record my_env:MyEnv --out starts --episodes 3 --seed 1 --behaviour my_behaviour:chase --workers 1"
    )
    assert "my_env:MyEnv" in worldmodel(tmp_path, "info data")
    worldmodel(
        tmp_path,
        "pretrain tiny --data data --out world --steps 50 --batch 4 --frames 4 --validation-episodes 2 "
        "--dit.width 64 --dit.encoder-depth 2 --dit.decoder-depth 1",
    )
    worldmodel(tmp_path, "fidelity --world world --data starts --horizon 5 --out fidelity.json")
    assert set(json.loads((tmp_path / "fidelity.json").read_text())["cameras"]) == {"top"}
    worldmodel(tmp_path, "judge --data data --out judge --steps 20")
    worldmodel(
        tmp_path,
        "rank --world world --judge judge --policies my_behaviour:chase my_policies:Drift --data starts --out ranked "
        "--real my_env:MyEnv --episodes 3 --horizon 20 --num-envs 2",
    )
    ranking = json.loads((tmp_path / "ranked" / "ranking.json").read_text())
    real = {policy["name"]: policy["real"]["score"] for policy in ranking["policies"]}
    assert real["chase"] == 1.0 and set(real) == {"chase", "Drift"}
    assert {row["seed"] for row in ranking["trials"]} == {100000, 100001, 100002}
    driven = run(tmp_path, "-c", DRIVE).splitlines()
    assert driven == ["(1, 32, 32, 3) True 0"] * 2
