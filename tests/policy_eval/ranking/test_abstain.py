"""A ranking that leaves out the dreams that are not to be trusted, from the command line."""

import json
from dataclasses import replace

import torch
from rank_set import write_rank_set

from policy_eval.judge.inverse_dynamics import InverseDynamics, InverseDynamicsConfig
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy
from worldmodel.cli import main


def test_a_ranking_that_abstains_says_what_it_left_out(tmp_path, capsys):
    """Untrained inverse dynamics; the limit, the signal of every dream and the undecided ones are kept and shown."""
    made = write_rank_set(tmp_path / "set", policies=1)
    shape = InverseDynamicsConfig(("top", "wrist"), (64, 64), 2, relative_to={0: 0, 1: 1}, keypoints=2, code=2, width=2)
    torch.manual_seed(0)
    InverseDynamics(shape).save(tmp_path / "dynamics")
    LearnedJudge(JudgeShape(("top", "wrist"), (64, 64), width=8), threshold=0.999).save(tmp_path / "strict")
    for name, deviation in (("tame", 1.0), ("wild", 1000.0)):
        policy = ClonedPolicy.load(made.policies / "policy-0")
        policy.action_std.fill_(deviation)
        policy.save(tmp_path / "policies" / name)
    changed = replace(made, judge=tmp_path / "strict", policies=tmp_path / "policies")
    few = ("--episodes", "3", "--horizon", "3", "--num-envs", "3", "--videos", "0", "--workers", "1")
    flags = changed.flags(tmp_path / "out", *few)
    flags += ["--abstain", "inverse-dynamics", "--abstain-data", str(made.starts), "--abstain-error", "0.4"]
    assert main(["rank", *flags, "--inverse-dynamics", str(tmp_path / "dynamics")]) == 0
    said, out = capsys.readouterr().out, tmp_path / "out"
    found = json.loads((out / "ranking.json").read_text())
    limit, rows = found["abstention"]["limit"], found["abstention"]["policies"]
    assert limit == json.loads((out / "abstention.json").read_text())["limit"] and limit["recordings"] == 4
    left_out = {(fault["policy"], fault["seed"]) for fault in found["faults"] if fault["kind"] == "dream"}
    cells = [json.loads(file.read_text()) for file in out.glob("cells/dream/*/*.json")]
    assert sum(len(cell["signals"]) for cell in cells) == 2 * 3
    above = sum(max(trace) > limit["value"] for cell in cells for trace in cell["signals"].values())
    assert {"wild"} <= {policy for policy, _ in left_out}
    assert above == len(left_out) == sum(row["n"] - row["decided"] for row in rows)
    assert not left_out & {(row["policy"], row["seed"]) for row in found["trials"]}
    assert "cannot be trusted to the end" in said and "Signal: inverse-dynamics" in said
    assert "Where the dreams are not trusted" in (out / "report.html").read_text()
    assert main(["rank", *flags]) == 2
    assert "--inverse-dynamics goes with --abstain inverse-dynamics" in capsys.readouterr().err
