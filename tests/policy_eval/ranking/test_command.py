import json
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupting import go_on, interrupt_when
from places import BENCHMARKS, ROOT
from rank_set import RankSet, write_rank_set
from waiting import wait_until

from policy_eval.evaluation import evaluate
from policy_eval.policies.cloned import ClonedPolicy
from policy_eval.policies.find import find_policies
from policy_eval.ranking.command import RankConfig, finished_trials, rank_policies
from policy_eval.ranking.disagreements import worst
from policy_eval.ranking.outcomes import read_outcomes
from policy_eval.ranking.setup import TrialSetup
from policy_eval.ranking.tally import trials_of
from policy_eval.ranking.trials import Cell, Replay, cut, play
from policy_eval.scores import Scores
from rl_posttrain.imagination.gate import check_ranking
from worldmodel.cli import main
from worldmodel.dreams.copy_last import CopyLastWorld
from worldmodel.files import is_unfinished
from worldmodel.model.folder import fingerprint

REAL = ("--real", "pusht-position", "--episodes", "4", "--horizon", "4", "--num-envs", "2")
ONE = ("--workers", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> RankSet:
    return write_rank_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def ranked(made, tmp_path_factory) -> Path:
    """The folder of a finished ranking of three policies, dreamed and real."""
    out = tmp_path_factory.mktemp("ranked")
    assert main(["rank", *made.flags(out, *REAL, *ONE)]) == 0
    return out


def read(out: Path) -> dict:
    return json.loads((out / "ranking.json").read_text())


def test_the_json_has_the_documented_keys(ranked):
    found = read(ranked)
    keys = {
        "abstention",
        "format",
        "policies",
        "pairs",
        "agreement",
        "optimism",
        "faults",
        "settings",
        "made_with",
        "trials",
    }
    assert set(found) == keys and found["faults"] == []
    assert len(found["policies"]) == 3 and len(found["pairs"]) == 3
    for policy in found["policies"]:
        assert set(policy) == {"name", "dream", "real", "prediction_powered"}
        for place in ("dream", "real"):
            assert set(policy[place]) == {"score", "low", "high", "n"} and policy[place]["n"] == 4
    statistics = set(found["agreement"]) - {"noise_ceiling", "refusal", "warnings"}
    assert {"pearson", "spearman", "kendall", "mmrv", "mmrv_tie_safe", "bias"} < statistics
    for name in statistics:
        assert set(found["agreement"][name]) == {"value", "low", "high", "standing"}
    assert set(found["agreement"]["noise_ceiling"]["bias"]) == {"p1", "p10", "median"}
    assert len(found["trials"]) == 3 * 4 * 2
    seeds = {row["seed"] for row in found["trials"]}
    assert seeds == {500_000, 500_001, 500_002, 500_003}
    assert set(found["trials"][0]) == {"policy", "place", "seed", "outcome", "return", "steps"}


def test_scores_are_the_means_of_the_trials(ranked):
    found = read(ranked)
    for place in ("dream", "real"):
        scores = trials_of(found, place)
        for policy in found["policies"]:
            assert policy[place]["score"] == scores[policy["name"]].mean
            assert policy[place]["n"] == len(scores[policy["name"]]) == 4


def test_failed_real_trials_are_dreamed_again(ranked):
    found = read(ranked)
    failures = sum(row["outcome"] == 0 for row in found["trials"] if row["place"] == "real")
    assert found["optimism"]["failures"] == found["optimism"]["n"] == failures > 0
    assert set(found["optimism"]) == {"score", "low", "high", "n", "failures", "policies"}


def test_a_replay_of_a_dreams_own_actions_repeats_its_outcome(made, ranked):
    """Same start, same noise, same actions: the same dream."""
    setup = TrialSetup(str(made.world), made.judge, made.starts, 4, 4, num_steps=1, num_envs=2)
    cell = Cell("dream", "policy-1", made.policies / "policy-1", (0, 1))
    trials = []
    scores = play(setup, cell, ranked, trials.append)
    replay = Replay({trial.seed: trial.actions.tolist() for trial in trials})
    replay.reset([trials[1].seed, trials[0].seed])
    first = replay.act({})
    torch.testing.assert_close(first[0].double(), torch.from_numpy(trials[1].actions[0]))
    stored = [row for row in read(ranked)["trials"] if row["place"] == "dream"]
    mine = {r["seed"]: r["outcome"] for r in stored if r["policy"] == "policy-1"}
    assert scores.outcomes.tolist() == [mine[seed] for seed in scores.seeds]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_ranking_keeps_its_cells_and_the_same_call_goes_on(made, ranked, sent, tmp_path, capsys):
    out = tmp_path / "out"
    with interrupt_when(lambda: bool(list(out.glob("cells/*/*/*.json"))), sent):
        assert main(["rank", *made.flags(out, *REAL, *ONE)]) == 130
    said = capsys.readouterr().err
    assert "worldmodel rank: interrupted; what is finished is kept, go on with: worldmodel rank" in said
    assert "Traceback" not in said and not (out / "ranking.json").exists()
    assert not [file for file in out.rglob("*") if is_unfinished(file)]
    assert go_on(said) == 0
    assert read(out)["trials"] == read(ranked)["trials"]


@pytest.mark.slow
def test_a_folder_with_something_else_and_a_damaged_cell_are_named(made, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["rank", *made.flags(tmp_path, *REAL, *ONE)]) == 2
    assert f"{tmp_path} holds notes.txt and is not a ranking" in capsys.readouterr().err
    out = tmp_path / "out"
    cell = out / "cells" / "real" / "policy-0" / "0-1.json"
    cell.parent.mkdir(parents=True)
    for content, said in (
        ("", "empty"),
        ('{"made_with', "not JSON"),
        ("{}", "holds nothing, expected a finished cell"),
    ):
        cell.write_text(content)
        assert main(["rank", *made.flags(out, *REAL, *ONE)]) == 2
        assert f"{cell}: {said}" in capsys.readouterr().err.splitlines()[-1]


def test_the_page_stands_alone(ranked):
    page = (ranked / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 3
    assert "What this means" in page
    assert page.count("data:video/mp4;base64,") == len(list((ranked / "videos").glob("*.mp4"))) > 0
    for words in ("Leaderboard", "policy-2", "No statement about correlations", "Optimism test"):
        assert words in page


@pytest.mark.slow
def test_a_killed_command_continues_to_the_same_numbers(made, ranked, tmp_path):
    """Cells that are there are not touched; the rest is done; nothing differs at the end."""
    out = tmp_path / "out"
    shutil.copytree(ranked, out)
    cells = sorted((out / "cells").rglob("*.json"))
    (out / "ranking.json").unlink()
    for file in cells[::2]:
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in cells[1::2]}
    assert main(["rank", *made.flags(out, *REAL, *ONE)]) == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    again, before = read(out), read(ranked)
    for report in (again, before):
        del report["settings"]
    assert again == before


def test_three_policies_say_nothing_of_whether_the_world_ranks(made, ranked):
    with pytest.raises(ValueError, match=r"ranking\.json: does not say .*3 policies"):
        check_ranking(ranked / "ranking.json", str(made.world), made.judge)


@pytest.mark.slow
def test_two_killed_processes_and_one_after_them_come_to_the_same_numbers(made, ranked, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "worldmodel.cli", "rank"]
    command += made.flags(out, *REAL, "--workers", "2")
    process = subprocess.Popen(command, start_new_session=True)
    wait_until(lambda: list(out.glob("cells/*/*/*.json")))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not _alive(process.pid))  # no worker outlives a killed parent
    done = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/*/*.json")}
    assert done
    assert main(["rank", *made.flags(out, *REAL, *ONE)]) == 0
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert read(out)["trials"] == read(ranked)["trials"]
    assert read(out)["policies"] == read(ranked)["policies"]


def _alive(session: int) -> list[str]:
    """Processes of a session that are neither gone nor zombies."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(session)], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if "Z" not in line.split()[1]]


def test_other_settings_need_another_folder(made, ranked, capsys):
    assert main(["rank", *made.flags(ranked, *REAL, *ONE, "--seed", "1")]) == 2
    assert "made with seed 0, now it is 1; choose another --out" in capsys.readouterr().err


def test_stored_real_trials_take_the_place_of_new_ones(made, ranked, tmp_path):
    stored = {name: each.to_json() for name, each in trials_of(read(ranked), "real").items()}
    file = tmp_path / "real.json"
    file.write_text(json.dumps(stored))
    out = tmp_path / "out"
    flags = made.flags(out, "--real", str(file), *REAL[2:], *ONE)
    assert main(["rank", *flags]) == 0
    assert read(out)["policies"] == read(ranked)["policies"]
    assert read(out)["optimism"] is None
    del stored["policy-1"]
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"real\.json: no real trials of policy-1"):
        read_outcomes(file, {"policy-0": 0, "policy-1": 0})


def test_without_a_real_environment_there_is_an_order_and_no_claim(made, tmp_path):
    config = RankConfig(
        str(made.world),
        made.judge,
        (made.policies / "policy-2", made.policies / "policy-0"),
        made.starts,
        tmp_path,
        horizon=2,
        episodes=3,
        num_envs=2,
        num_steps=1,
        workers=1,
        control="copy-last",
        device="cpu",
    )
    ranking = rank_policies(config)
    assert set(ranking.order) == {"policy-0", "policy-2"} and ranking.agreement is None
    assert read(tmp_path)["agreement"] is None
    assert "copy-last-frame control" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(made, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "ranking.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.strip().splitlines()) <= 18
    places = {"pusht": made.world, "judges/pusht-position": made.judge}
    places["policies/pusht-position"] = made.policies
    for name, folder in places.items():
        shutil.copytree(folder, tmp_path / "checkpoints" / name)
    shutil.copytree(made.starts, tmp_path / "data" / "starts")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code.replace("=20", "=3").replace("=60", "=3"), names)
    assert set(names["ranking"].order) == {"policy-0", "policy-1", "policy-2"}
    assert all(row.n == 3 for row in names["ranking"].real.values())


def test_in_the_control_nothing_happens(made):
    world = CopyLastWorld.load(made.world)
    setup = TrialSetup(str(made.world), made.judge, made.starts, 2, 3, num_envs=2, num_steps=1, copy_last=True)
    assert isinstance(setup.loaded_world, CopyLastWorld)
    clip = setup.loaded_starts.clip([0, 1])
    stream = world.stream(clip)
    for _ in range(2):
        seen = stream.step(torch.tensor([[0.0, 500.0]] * 2))
        assert torch.equal(seen.frames, clip.frames[:, 0])
        assert torch.equal(seen.states, clip.states[:, 0])
    assert stream.frame.tolist() == [2, 2]


@pytest.mark.slow
def test_the_benchmark_checks_stored_outcomes(made, tmp_path):
    """One stored outcome that is not what happens is found, and is the end of it."""
    benchmark = runpy.run_path(str(BENCHMARKS / "ranking.py"))
    folder = tmp_path / "policies" / "pusht-position"
    shutil.copytree(made.policies, folder)
    shutil.copytree(made.judge, tmp_path / "judges" / "pusht-position")
    setup = TrialSetup(str(made.world), made.judge, made.starts, 4, 60, real="pusht-position")
    stored = {}
    for name, each in find_policies([folder]).items():
        scores = evaluate(ClonedPolicy.load(each), setup.simulators, name=name, horizon=60)
        stored[name] = scores.to_json()
    wrong = 1 - stored["policy-1"]["outcomes"][2]
    stored["policy-1"]["outcomes"][2] = wrong
    (folder / "real.json").write_text(json.dumps(stored))
    config = benchmark["RankingBenchmark"](
        out=tmp_path / "out",
        quick=True,
        episodes=2,
        tasks=("pusht-position",),
        policies=tmp_path / "policies",
        judges=tmp_path / "judges",
        num_steps=1,
        workers=1,
        worlds={"pusht-position": made.world},
    )
    with pytest.raises(SystemExit) as stop:
        benchmark["main"](config)
    assert stop.value.code == 1
    report = json.loads((tmp_path / "out" / "bars.json").read_text())
    check = report["checks"]["pusht-position"]
    assert (check["cells"], check["trials"]) == (3, 12)
    seed = stored["policy-1"]["seeds"][2]
    assert check["differ"] == [{"policy": "policy-1", "seed": seed, "outcome": 1 - wrong}]


def test_starts_are_cut_into_cells(made):
    policies = {"one": made.policies / "policy-0", "two": made.policies / "policy-1"}
    cells = cut(["dream", "real"], policies, range(5), 2)
    assert len(cells) == 2 * 2 * 3
    assert {cell.starts for cell in cells} == {(0, 1), (2, 3), (4,)}
    assert len({cell.file(Path("out")) for cell in cells}) == 12


def test_the_worst_disagreements_come_first():
    def scores(outcomes: list[float]) -> Scores:
        number = len(outcomes)
        ones = np.ones(number, np.int64)
        return Scores("x", np.arange(number), np.array(outcomes), np.zeros(number), ones)

    dream = {"fair": scores([1, 0, 1, 0.0]), "hyped": scores([1, 1, 1, 0.0])}
    real = {"fair": scores([0, 1, 1, 0.0]), "hyped": scores([0, 1, 0, 1.0])}
    found = [(each.policy, each.seed) for each in worst(dream, real, 4)]
    assert found == [("hyped", 0), ("fair", 0), ("hyped", 2), ("fair", 1)]
    assert "failure in reality (above), success in the dream" in worst(dream, real, 1)[0].caption


def test_what_does_not_fit_is_named(made, tmp_path, capsys):
    def call(*more: str) -> str:
        assert main(["rank", *made.flags(tmp_path / "out", "--horizon", "2", *ONE, *more)]) == 2
        return capsys.readouterr().err

    assert "has 4 episodes to start from, --episodes is 9" in call("--episodes", "9")
    assert "--episodes is at least 1, got 0" in call("--episodes", "0")
    assert "got 5 and 4" in call("--episodes", "4", "--real-episodes", "5")
    assert "no such file of real trials" in call("--real", str(tmp_path / "none.json"))
    assert "no environment 'chess'" in call("--episodes", "2", "--real", "chess")
    with pytest.raises(ValueError, match=r"no policy here, policy\.json is missing"):
        find_policies([tmp_path])
    with pytest.raises(ValueError, match="two policies are called 'policy-0'"):
        find_policies([made.policies, made.policies / "policy-0"])


def test_a_fingerprint_changes_with_the_weights(made, tmp_path):
    copy = tmp_path / "policy-0"
    shutil.copytree(made.policies / "policy-0", copy)
    assert fingerprint(copy) == fingerprint(made.policies / "policy-0")
    assert fingerprint(copy) != fingerprint(made.policies / "policy-1")
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    assert fingerprint(copy) != fingerprint(made.policies / "policy-0")
    with pytest.raises(ValueError, match="some/model: no such folder"):
        fingerprint("some/model")


def test_a_plan_reads_the_finished_ranking_and_repeats_nothing(made, ranked, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(ranked / "ranking.json", out)
    assert main(["rank", *made.flags(out, *REAL, *ONE), "--plan"]) == 0
    assert "policy-0" in (said := capsys.readouterr().out) and "cannot be told" in said
    assert sorted(path.name for path in out.iterdir()) == ["plan.html", "plan.json", "ranking.json"], (
        "nothing was dreamed"
    )
    pairs = json.loads((out / "plan.json").read_text())["pairs"]
    assert [(pair["dream"]["made"], pair["real"]["made"]) for pair in pairs] == [(4, 4)] * 3
    one = [*made.flags(out, *REAL, *ONE), "--plan"]
    one[one.index(str(made.policies))] = str(made.policies / "policy-0")
    assert main(["rank", *one]) == 2
    assert "--plan compares at least two policies, got policy-0" in capsys.readouterr().err
    config = RankConfig(made.world, made.judge, (made.policies,), made.starts, out, 4, 4, seed=1, plan=True)
    assert finished_trials(config, find_policies(config.policies)) is None, "with another seed"
    (out / "ranking.json").write_text('{"settings": {}}')
    with pytest.raises(ValueError, match=r"ranking\.json: has no policies, trials, expected a finished ranking"):
        finished_trials(config, find_policies(config.policies))
