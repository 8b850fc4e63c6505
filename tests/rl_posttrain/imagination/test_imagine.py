import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from interrupting import go_on, interrupt_when, rows_in
from square_world import SIZE, SquareEnv, SquareWorld, right_edge, square_policy, write_episodes
from tiny import tiny_world

from policy_eval.evaluation import evaluate
from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.policies.cloned import ClonedPolicy, make_policy
from policy_eval.real_envs import RealEnvs
from rl_posttrain.imagination.config import ImagineConfig
from rl_posttrain.imagination.distil.config import DistilConfig
from rl_posttrain.imagination.distil.train import distil
from rl_posttrain.imagination.dreams import prepare
from rl_posttrain.imagination.learner import LearnConfig
from rl_posttrain.imagination.train import imagine, improve
from rl_posttrain.rewards.extra import ExtraRewards
from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict
from worldmodel.dreams.world import World, begin


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_episodes(tmp_path_factory.mktemp("square") / "data", 16, failures=1)


def config(data: Path, out: Path, **settings) -> ImagineConfig:
    defaults = {
        "streams": 16,
        "horizon": 5,
        "context": 1,
        "pool": 32,
        "validation_starts": 8,
        "validation_horizon": 6,
        "learn": LearnConfig(minibatch=40, warmup=1),
    }
    return ImagineConfig("", Path(), Path(), data, out, **{**defaults, **settings})


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["imitation", "pmpo"])
def test_a_policy_improves_in_imagination_and_in_reality(data, tmp_path, objective):
    learn = LearnConfig(
        objective, actor_rate=3e-3, critic_rate=3e-3, warmup=2, minibatch=80, std=1.0, imitation_steps=20
    )
    options = config(
        data,
        tmp_path / "run",
        updates=30,
        streams=32,
        horizon=6,
        learn=replace(learn, beta=0.03),
        validation_interval=5,
    )
    source = open_episodes(data)
    setting = prepare(options, SquareWorld(), right_edge, source)
    assert isinstance(setting.world, World)
    report = improve(options, setting, square_policy())
    assert report["first"]["solved"] < 0.5 < report["best"]["solved"]
    assert report["best"]["return"] > report["first"]["return"] + 0.2
    envs = RealEnvs(SquareEnv, Starts(source), num_envs=16)
    before = evaluate(square_policy(), envs, horizon=7).mean
    after = evaluate(ClonedPolicy.load(tmp_path / "run"), envs, horizon=7).mean
    assert after > before + 0.3
    rows = [json.loads(r) for r in (tmp_path / "run/updates.jsonl").read_text().splitlines()]
    assert len(rows) == report["updates"] and rows[-1]["kl"] > 0
    assert objective == "imitation" or rows[0]["kl"] == 0  # the critic learns first
    assert list((tmp_path / "run/log").glob("events*"))


def test_the_prior_holds_the_actor(data, tmp_path):
    """With a heavy divergence the actor stays where it was."""
    source = open_episodes(data)
    moved = {}
    for beta in (0.0, 100.0):
        learn = LearnConfig("pmpo", actor_rate=1e-3, warmup=0, beta=beta)
        options = config(data, tmp_path / f"{beta}", updates=4, learn=learn)
        improve(options, prepare(options, SquareWorld(), right_edge, source), square_policy())
        rows = (tmp_path / f"{beta}/updates.jsonl").read_text().splitlines()
        moved[beta] = json.loads(rows[-1])["kl"]
    assert moved[100.0] < 0.2 * moved[0.0]


def test_a_run_that_finds_nothing_keeps_the_clone(data, tmp_path):
    never = lambda seen: Verdict(torch.zeros(len(seen.frames)), torch.zeros(len(seen.frames)) > 0)  # noqa: E731
    options = config(data, tmp_path, updates=9, validation_interval=1, patience=2)
    report = improve(options, prepare(options, SquareWorld(), never, open_episodes(data)), square_policy())
    assert report["stopped_early"] and report["updates"] == 2 and report["best"]["step"] == 0
    kept = ClonedPolicy.load(tmp_path).state_dict()
    for name, weight in square_policy().state_dict().items():
        assert torch.equal(kept[name], weight), name


@pytest.mark.parametrize("method", [improve, distil])
def test_a_run_that_does_harm_ends_and_keeps_the_clone(method, data, tmp_path):
    """The judge's reward falls faster and faster, so that the second measurement is worse from every start."""
    calls = []

    def worse(seen):
        calls.append(0)
        return Verdict(torch.full((len(seen.frames),), -(float(len(calls)) ** 2)), torch.zeros(len(seen.frames)) > 0)

    small = {"streams": 4, "horizon": 2, "distil": DistilConfig(plans=2, steps=1, lookahead=1)}
    options = config(data, tmp_path, updates=9, validation_interval=1, **small)
    report = method(options, prepare(options, SquareWorld(), worse, open_episodes(data)), square_policy())
    assert report["harm"] and report["stopped_early"] and report["updates"] == 1 and report["best"]["step"] == 0


@pytest.mark.parametrize("objective", ["imitation", "pmpo"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(data, tmp_path, objective):
    source = open_episodes(data)
    learn = LearnConfig(objective, minibatch=40, warmup=1, imitation_steps=3)

    def run(out: str, world: SquareWorld, **change) -> dict:
        options = config(
            data,
            tmp_path / out,
            updates=5,
            save_interval=2,
            validation_interval=2,
            refresh_interval=2,
            learn=learn,
            **change,
        )
        return improve(options, prepare(options, world, right_edge, source), square_policy())

    whole = run("whole", SquareWorld())
    with pytest.raises(KeyboardInterrupt):
        run("killed", SquareWorld(steps=6 + 5 + 5 + 6 + 5 + 2))  # in the middle of the fourth update
    resumed = run("killed", SquareWorld(), resume=True)
    assert resumed["best"] == whole["best"] and resumed["first"] == whole["first"]
    tables = [
        [
            {k: v for k, v in json.loads(row).items() if k != "seconds"}
            for row in (tmp_path / out / f"{name}.jsonl").read_text().splitlines()
        ]
        for name in ("updates", "validation")
        for out in ("whole", "killed")
    ]
    assert tables[0] == tables[1] and len(tables[0]) == 5
    assert tables[2] == tables[3] and [row["step"] for row in tables[2]] == [0, 2, 4, 5]
    files = [tmp_path / out / "weights.safetensors" for out in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_longer_contexts_join_a_batch_of_first_frames(data):
    """A stream does not depend on what else begins with it."""
    world = tiny_world(size=(SIZE, SIZE))
    source = open_episodes(data)
    clips = [source.read(0, 0, 1), source.read(1, 0, 3), source.read(2, 1, 4)]
    action = torch.full((3, 2), 4.0)
    together = begin(world, clips, [5, 6, 7]).step(action, num_steps=1)
    alone = begin(world, clips[1:2], [6]).step(action[:1], num_steps=1)
    difference = together.frames[1].int() - alone.frames[0].int()
    assert difference.abs().max() <= 2
    torch.testing.assert_close(together.states[1], alone.states[0], rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory) -> dict[str, Path]:
    """A tiny world model, judge and policy of random weights."""
    root = tmp_path_factory.mktemp("folders")
    tiny_world(size=(SIZE, SIZE)).save(root / "world")
    torch.manual_seed(0)
    LearnedJudge(JudgeShape(("top", "wrist"), (SIZE, SIZE))).save(root / "judge")
    square_policy().save(root / "policy", dtype=torch.float32)
    return {name: root / name for name in ("world", "judge", "policy")} | {"data": data}


def small_run(folders: dict[str, Path], out: Path) -> list[str]:
    """The words of a command of two updates."""
    command = ["imagine", "--out", str(out)]
    for name, folder in folders.items():
        command += [f"--{name}", str(folder)]
    command += ["--updates", "2", "--streams", "4", "--horizon", "2", "--validation-starts", "2"]
    command += ["--validation-horizon", "2", "--validation-interval", "1", "--num-steps", "1"]
    return [*command, "--learn.warmup", "1", "--context", "2", "--pool", "8"]


@pytest.mark.slow
def test_the_command_distils(folders, tmp_path, capsys):
    more = ["--method", "distil", "--distil.lookahead", "2", "--distil.steps", "2", "--confirm", "4"]
    assert main([*small_run(folders, tmp_path / "out"), *more]) == 0
    report = json.loads((tmp_path / "out/imagination.json").read_text())
    assert report["updates"] == 2 and report["decisions"] > 0 and report["calibration"] is None
    ClonedPolicy.load(tmp_path / "out")


@pytest.mark.slow
def test_the_command_improves_and_leaves_a_policy(folders, tmp_path, capsys):
    assert main(small_run(folders, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "disagreement of noise seeds" in said
    assert "held-out frames" in " ".join(said.split())
    ClonedPolicy.load(tmp_path / "out")
    report = json.loads((tmp_path / "out/imagination.json").read_text())
    assert report["updates"] == 2 and report["calibration"]["horizon"] == 2
    assert "data:video/mp4;base64," in (tmp_path / "out/report.html").read_text()


@pytest.mark.slow
def test_an_interrupted_command_goes_on_as_it_says(folders, tmp_path, capsys):
    more = ["--updates", "4", "--validation-interval", "2", "--save-interval", "100"]
    assert main([*small_run(folders, tmp_path / "whole"), *more]) == 0
    out = tmp_path / "out"
    capsys.readouterr()
    with interrupt_when(rows_in(out / "updates.jsonl", 1)):
        assert main([*small_run(folders, out), *more]) == 130
    said = capsys.readouterr().err
    step = int(said.split("worldmodel imagine: stopped and saved after step ")[1].split()[0].strip(";,"))
    assert json.loads((out / "state" / "state.json").read_text())["step"] == step > 0
    assert main([*small_run(folders, out), *more, "--resume", "--streams", "8"]) == 2
    assert "streams was 4, now 8" in capsys.readouterr().err
    assert go_on(said) == 0
    for name in ("weights.safetensors", "calibration.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_does_not_fit_is_named(folders, tmp_path):
    wide = ClonedPolicy(replace(square_policy().config, size=(32, 32)))
    wide.save(tmp_path / "wide")
    make_policy(replace(square_policy().config, head="flow")).save(tmp_path / "flow")

    def run(**change):
        settings = {k: str(v) if k == "world" else v for k, v in folders.items()}
        return lambda: imagine(ImagineConfig(**settings | {"out": tmp_path / "out"} | change))

    for call, message in (
        (run(streams=5), "streams is a multiple of noise_seeds, got 5 and 2"),
        (run(horizon=0), "horizon is at least 1, got 0"),
        (run(persistence=1.5), "persistence is at least 0 and at most 1, got 1.5"),
        (run(learn=LearnConfig(imitation_steps=0)), "imitation-steps is at least 1, got 0"),
        (run(distil=DistilConfig(plans=1)), "--distil.plans is at least 2, got 1"),
        (run(distil=DistilConfig(sigma=0.0)), "--distil.sigma is above 0, got 0"),
        (run(temperature=-1.0), "temperature is at least 0, got -1"),
        (run(held_out=1.0), "held-out is above 0 and below 1, got 1"),
        (run(policy=tmp_path / "wide"), r"frames of the policy: \(32, 32\), expected \(16, 16\)"),
        (run(policy=tmp_path / "flow", trust=False), "--method actor-critic .* regression, got flow: distil"),
        (run(confirm=-1), "confirm is at least 0, got -1"),
        (run(judge=tmp_path / "none"), "none: no such folder"),
        (run(ranking=tmp_path / "none.json"), "none.json: no ranking.json of `worldmodel rank`"),
        (run(resume=True, trust=False), "nothing to resume"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("how", ["named", "passed"])
def test_extra_rewards_are_called_and_a_bad_one_is_one_line(how, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_dreamt_rewards.py").write_text("def compare(rollout):\n    return rollout.reference.frames")
    settings = {k: str(v) if k == "world" else v for k, v in folders.items()}
    settings |= {"out": tmp_path / "out", "trust": False, "streams": 2, "horizon": 1, "validation_horizon": 1}
    named = ExtraRewards(("my_dreamt_rewards:compare=1",) if how == "named" else ())
    passed = {} if how == "named" else {"mine": (lambda rollout: rollout.reference.frames, 1.0)}
    with pytest.raises(
        ValueError, match=r"^reward (my_dreamt_rewards:compare|mine): AttributeError: .*there is no rec"
    ):
        imagine(ImagineConfig(**settings, reward=named), passed)
    noted = json.loads((tmp_path / "out" / "state" / "settings.json").read_text())
    assert noted["reward.extra (fingerprint)"].startswith(
        "my_dreamt_rewards:compare=1 " if how == "named" else "mine=1"
    )
