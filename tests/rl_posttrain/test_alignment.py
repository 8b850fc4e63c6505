import json
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from fresh_python import python
from rank_set import write_rank_set
from tiny import tiny_world

from policy_eval.judge.judge import LearnedJudge
from rl_posttrain.alignment import AlignConfig, claim
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.data.options import ColumnOptions
from worldmodel.envs.record import RecordConfig, record
from worldmodel.world_model import WorldModel


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_rank_set(tmp_path_factory.mktemp("align"), policies=2, episodes=3)


def flags(made, out, **change) -> list[str]:
    stored = {
        f"policy-{i}": {
            "policy": f"policy-{i}",
            "seeds": [500_000, 500_001, 500_002],
            "outcomes": [float(i), 0.0, 1.0],
            "returns": [0.0] * 3,
            "steps": [5] * 3,
        }
        for i in range(2)
    }
    scores = out.parent / "real.json"
    scores.write_text(json.dumps(stored))
    values = {
        "world": made.world,
        "judge": made.judge,
        "policies": made.policies,
        "real": "pusht-position",
        "world-data": made.starts,
        "judge-data": out.parent / "judged",
        "data": made.starts,
        "out": out,
        "horizon": 12,
        "real-scores": scores,
        "rollouts": 8,
        "episodes": 3,
        "steps": 2,
        "batch": 2,
        "judge-steps": 2,
        "num-steps": 1,
        "seed": 77,
    }
    pairs = [(f"--{name}", str(value)) for name, value in (values | change).items()]
    return ["align", *(word for pair in pairs for word in pair)]


def run(*commands: list[str]) -> subprocess.CompletedProcess:
    code = "\n".join(f"print(main({command}))" for command in commands)
    return python("-c", f"from worldmodel.cli import main\n{code}")


@pytest.mark.slow
def test_the_command_aligns_and_ranks_again(made, tmp_path):
    # Only experts succeed, so the judge's old data are theirs.
    record(RecordConfig("pusht-position", episodes=8, seed=6, behaviour="expert", workers=1, out=tmp_path / "judged"))
    out, alone = tmp_path / "out", tmp_path / "alone"
    result = run(flags(made, out), flags(made, alone, steps=0))
    assert "agreement with real trials" in result.stdout, result.stderr
    table = json.loads((out / "align.json").read_text())["rollouts"]
    assert list(table) == ["0", "8"]
    # Two policies: no correlation is claimed, a bias is.
    assert table["8"]["pearson"]["value"] is None and table["8"]["bias"]["value"] is not None
    recorded = open_episodes(out / "rollouts")
    assert [recorded.reset_seed(e) for e in range(8)] == [7_700_000 + e for e in range(8)]
    aligned = WorldModel.load(out / "8/world")
    assert aligned.train_data[-1]["name"].endswith("world-data")
    assert any(seed >= 7_700_000 for seed in aligned.train_data[-1]["reset_seeds"])
    assert LearnedJudge.load(out / "8/judge").shape.size == (64, 64)
    calibration = json.loads((out / "8/calibrated-judge/calibration.json").read_text())
    assert calibration["episodes"] == 2, "the last quarter is held back"
    assert calibration["difference_before"] is None, "and is too small for an interval"
    assert len(open_episodes(out / "8/judge-data")) == 12, "6 rollouts, 6 old episodes"
    assert calibration["threshold"] == calibration["threshold_before"]
    assert (alone / "8/judge").is_dir() and not (alone / "8/world").exists()


@pytest.mark.slow
def test_a_world_of_a_stride_is_aligned(made, tmp_path):
    """Policies act at every other step of the rollouts, and the world model learns from two actions for each frame."""
    record(RecordConfig("pusht-position", episodes=8, seed=6, behaviour="expert", workers=1, out=tmp_path / "judged"))
    tiny_world(size=(64, 64), stride=2).save(tmp_path / "world")
    out = tmp_path / "out"
    result = run(flags(made, out, world=tmp_path / "world"))
    assert "agreement with real trials" in result.stdout, result.stderr
    recorded = open_episodes(out / "rollouts")
    assert set(recorded.lengths) <= set(range(4, 25)) and max(recorded.lengths) == 24
    actions = recorded.read(0, 0, 9).actions
    assert torch.equal(actions[::2], actions[1::2]) and not torch.equal(actions[0], actions[2])
    assert WorldModel.load(out / "8/world").stride == 2


def test_an_alignment_goes_on_only_with_its_own_settings(made, tmp_path):
    """The folder is claimed before anything is recorded."""
    data = tmp_path / "judged"
    shutil.copytree(made.starts, data)
    settings = AlignConfig(
        world=made.world,
        judge=made.judge,
        policies=(made.policies,),
        real="pusht-position",
        world_data=made.starts,
        judge_data=data,
        data=made.starts,
        out=tmp_path / "out",
        horizon=4,
        real_scores=tmp_path / "real.json",
    )
    claim(settings)
    claim(replace(settings, workers=2, device="cpu"))
    with pytest.raises(
        ValueError, match=r"holds an alignment with other settings: horizon was 4, now 5; steps was 400"
    ):
        claim(replace(settings, horizon=5, steps=1))
    with pytest.raises(ValueError, match="no_such_column"):
        claim(replace(settings, columns=ColumnOptions(action_keys=("no_such_column",))))
    with pytest.raises(ValueError, match=r"holds data/chunk-000/.* and is not an alignment"):
        claim(replace(settings, out=data))


def test_rollouts_from_the_test_starts_are_refused(made, tmp_path, capsys):
    assert main(flags(made, tmp_path / "out", seed=5)) == 2
    assert "would begin from the test starts [500000, 500001, 500002]" in capsys.readouterr().err
    assert main(flags(made, tmp_path / "out", rollouts=3)) == 2
    assert "--rollouts are numbers of at least 4, got [3]" in capsys.readouterr().err
