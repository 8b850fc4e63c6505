"""`worldmodel posttrain`: every objective, exact resume, and what is refused."""

import json
from pathlib import Path

import av
import pytest
import torch
from interrupting import go_on, interrupt_when, rows_in
from matching import twin_matcher
from places import LEROBOT_V30
from tiny import tiny_world

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.training.build import data_notes
from worldmodel.world_model import WorldModel

DATA = LEROBOT_V30


@pytest.fixture(scope="module")
def world_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny_world().save(folder)
    return folder


def arguments(world: Path, out: Path, *options: str) -> list[str]:
    return [
        "posttrain",
        "--world",
        str(world),
        "--data",
        str(DATA),
        "--out",
        str(out),
        "--groups",
        "2",
        "--candidates",
        "2",
        "--context",
        "2",
        "--prefix",
        "2",
        "--branch",
        "3",
        "--steps",
        "4",
        "--validation-episodes",
        "1",
        "--validation-horizon",
        "4",
        "--validation-interval",
        "2",
        "--patience",
        "0",
        "--save-interval",
        "2",
        "--pathwise.frames",
        "5",
        "--pathwise.perceptual",
        "0",
        "--pathwise.realism-warmup",
        "1",
        *options,
    ]


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def adapters(rank: int) -> list[str]:
    """The options that train adapters of a rank; none for 0."""
    return ["--train", "lora", "--lora-rank", str(rank)] if rank else []


OBJECTIVES = ("pathwise", "nft", "self-rollout", "combined", "teacher-forced")
FAST = (("nft", 0), ("combined", 2))
RUNS = [
    pytest.param(name, rank, marks=[] if (name, rank) in FAST else pytest.mark.slow)
    for name in OBJECTIVES
    for rank in (0, 2)
]


@pytest.mark.parametrize(("objective", "rank"), RUNS)
def test_every_objective_trains_and_writes_what_it_measured(objective, rank, world_folder, tmp_path, capsys):
    out = tmp_path / "out"
    more = ["--objective", objective, "--kl-weight", "0.1", *adapters(rank), "--steps", "2"]
    assert main(arguments(world_folder, out, *more)) == 0
    assert [row["step"] for row in rows(out / "updates.jsonl")] == [0, 1]
    evaluations = rows(out / "evaluations.jsonl")
    assert [row["step"] for row in evaluations] == [0, 2]
    assert {"psnr", "sharpness", "motion", "response", "held_back"} <= set(evaluations[0])
    assert (out / "curve.png").stat().st_size > 1000
    with av.open(str(out / "videos" / "held_out_0.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4
    page = (out / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == len(list((out / "videos").glob("*.mp4")))
    told = {change["name"]: change for change in json.loads((out / "changes.json").read_text())["changes"]}
    for step, when in ((0, "before"), (-1, "after")):
        assert told["psnr"][when] == pytest.approx(evaluations[step]["psnr"], abs=1e-4)
    before, after = WorldModel.load(world_folder), WorldModel.load(out)
    changed = {name for name, value in before.state_dict().items() if not torch.equal(value, after.state_dict()[name])}
    assert "dit.encoder.0.mlp.0.weight" in changed
    assert ("dit.condition_embedding" in changed) == (rank == 0)
    assert after.train_data[-1]["episodes"] == list(range(len(open_episodes(DATA)) - 1))
    said = capsys.readouterr().out
    assert ("varies by" in said) == (objective in ("nft", "combined"))
    assert (out / "spread.json").exists() == (objective in ("nft", "combined"))


def test_cameras_are_compared_by_a_network_that_has_not_seen_them(world_folder, tmp_path, capsys):
    source = open_episodes(DATA, (16, 24))
    matcher = twin_matcher(source)
    matcher.save(tmp_path / "cross-view")
    more = ["--objective", "teacher-forced", "--cross-view", str(tmp_path / "cross-view"), "--steps", "1"]
    assert main(arguments(world_folder, tmp_path / "one", *more)) == 2
    assert "--cross-view compares windows of different episodes and needs at least 2 held-out ones, got 1" in (
        capsys.readouterr().err
    )
    more += ["--validation-episodes", "2"]
    assert main(arguments(world_folder, tmp_path / "two", *more)) == 0
    found = rows(tmp_path / "two" / "evaluations.jsonl")
    assert all(0 <= row["cross_view"] <= 1 and len(row["cross_view_windows"]) == 2 for row in found)
    assert "cameras agree" in capsys.readouterr().out
    matcher.train_data = data_notes(source, [0, len(source) - 1])
    matcher.save(tmp_path / "cross-view")
    assert main(arguments(world_folder, tmp_path / "three", *more)) == 2
    assert f"episodes {len(source) - 1} of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "rank"), [("nft", 0), ("nft", 2), ("pathwise", 0), ("pathwise", 2)])
def test_a_stopped_run_resumes_exactly(objective, rank, world_folder, tmp_path):
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    more = ["--objective", objective, *adapters(rank), "--learning-rate", "1e-3"]
    main(arguments(world_folder, whole, *more))
    main(arguments(world_folder, halted, *more, "--steps", "2"))
    with (halted / "updates.jsonl").open("a") as table:  # what a killed run left behind
        table.write(json.dumps({"step": 2, "loss": 0.5}) + "\n")
    main(arguments(world_folder, halted, *more, "--resume"))
    for name in ("updates.jsonl", "evaluations.jsonl"):
        for one, two in zip(rows(whole / name), rows(halted / name), strict=True):
            one.pop("seconds", None), two.pop("seconds", None)
            windows = [each.pop("held_back_windows", []) for each in (one, two)]
            assert windows[0] == pytest.approx(windows[1], abs=1e-6)
            assert one == pytest.approx(two, abs=1e-6)
    first, second = WorldModel.load(whole), WorldModel.load(halted)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_it_says(world_folder, tmp_path, capsys):
    whole, out = tmp_path / "whole", tmp_path / "out"
    more = ["--learning-rate", "1e-3", "--save-interval", "100", "--steps", "4"]
    assert main(arguments(world_folder, whole, *more)) == 0
    capsys.readouterr()
    with interrupt_when(rows_in(out / "updates.jsonl", 2)):
        assert main(arguments(world_folder, out, *more)) == 130
    said = capsys.readouterr().err
    step = int(said.split("worldmodel posttrain: stopped and saved after step ")[1].split()[0].strip(";,"))
    assert json.loads((out / "state" / "state.json").read_text())["step"] == step > 0
    assert main(arguments(world_folder, out, *more, "--resume", "--groups", "3")) == 2
    assert "groups was 2, now 3" in capsys.readouterr().err
    assert go_on(said) == 0
    for name in ("weights.safetensors", "losses.csv", "spread.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.slow
def test_adapters_train_as_a_command(world_folder, tmp_path):
    out = tmp_path / "out"
    call = arguments(world_folder, out, "--steps", "1", *adapters(2))
    assert main(call) == 0
    assert [row["step"] for row in rows(out / "evaluations.jsonl")] == [0, 1]
    before, after = WorldModel.load(world_folder), WorldModel.load(out)
    assert set(after.state_dict()) == set(before.state_dict())


def test_moving_areas_and_inverse_dynamics_are_rewarded(world_folder, tmp_path):
    torch.manual_seed(0)
    dynamics = InverseDynamics(InverseDynamicsConfig(("top", "wrist"), (16, 24), 2, {0: 0, 1: 1}, keypoints=4, width=8))
    dynamics.save(tmp_path / "dynamics")
    more = ["--inverse-dynamics", str(tmp_path / "dynamics"), "--reward.moving-area", "1", "--reward.fidelity", "0"]
    assert main(arguments(world_folder, tmp_path / "out", *more, "--steps", "1")) == 0
    spread = json.loads((tmp_path / "out" / "spread.json").read_text())
    assert set(spread) == {"fidelity", "moving_area", "agreement", "executability"}
    last = rows(tmp_path / "out" / "evaluations.jsonl")[-1]
    assert {"action_error", "reward.executability", "reward.moving_area"} <= set(last)


@pytest.mark.slow
def test_cells_and_a_judge_reward_as_a_command(world_folder, tmp_path, capsys):
    torch.manual_seed(0)
    LearnedJudge(JudgeShape(("top", "wrist"), (16, 24))).save(tmp_path / "judge")
    more = ["--credit", "cell", "--cell", "4", "--judge", str(tmp_path / "judge"), "--reward.on-track", "1"]
    more += ["--steps", "1"]
    assert main(arguments(world_folder, tmp_path / "out", *more)) == 0
    last = rows(tmp_path / "out" / "evaluations.jsonl")[-1]
    assert -1 <= last["reward.outcome"] <= 0 and "reward.on_track" in last
    single = ["--objective", "flow-grpo", "--branch", "1", "--inner", "--reward.executability", "0"]
    assert main(arguments(world_folder, tmp_path / "single", *more, *single)) == 0
    assert "policy" in rows(tmp_path / "single" / "updates.jsonl")[0]
    LearnedJudge(JudgeShape(("top", "wrist"), (16, 24))).save(tmp_path / "judge")
    assert main(arguments(world_folder, tmp_path / "out", *more, "--resume")) == 2
    assert "judge (fingerprint) was" in capsys.readouterr().err
    assert main(arguments(world_folder, tmp_path / "other", *more[:2], "--cell", "5")) == 2
    assert "--cell 5: cells have to fill frames of 16 x 24 pixels" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--candidates", "1"], "candidates=1: a contrast needs at least 2"),
        (["--keep", "2"], "keep=2 best and worst need 4 candidates, got 2"),
        (["--num-steps", "3"], "num_steps=3"),
        (["--temperature", "0"], "a contrast needs it above 0"),
        (["--branch", "0"], "branch is at least 1, got 0"),
        (["--lora-rank", "0"], "--lora-rank is at least 1, got 0"),
        (
            ["--objective", "nft", "--pathwise.extra", "torch:mean=1"],
            "objective=nft: only pathwise has rewards with a gradient, got torch:mean=1",
        ),
        (["--objective", "pathwise", "--pathwise.frames", "2"], "pathwise.frames is at least 3, got 2"),
        (["--objective", "pathwise", "--pathwise.depth", "6"], "pathwise.depth=6: with 4 passes the gradient passes"),
        (
            ["--objective", "pathwise", "--pathwise.replaced", "0"],
            "--pathwise.replaced is above 0 and at most 1, got 0",
        ),
        (["--validation-horizon", "9999"], "a horizon of 9999 at"),
        (["--validation-episodes", "99"], "99 are held out: none left to train on"),
    ],
)
def test_wrong_settings_are_named(options, words, world_folder, tmp_path, capsys):
    assert main(arguments(world_folder, tmp_path / "out", *options)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
