"""`worldmodel steer`: what it writes, what it refuses, and what it says of its trials."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rank_set import write_rank_set

from policy_eval.policies.find import load_policy
from policy_eval.scores import Scores
from policy_eval.steering.command import SteerConfig, compared, rows_of, same_place, steer
from policy_eval.steering.fan import draw_fan
from policy_eval.steering.film import SteeringFilm, Watched, shown_start
from policy_eval.steering.page import decision, meaning, table, write_page
from policy_eval.steering.scorers import Candidates
from policy_eval.steering.steered import Choice, SteeredPolicy
from worldmodel.data import Clip
from worldmodel.data.video.write import write_video


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_rank_set(tmp_path_factory.mktemp("set"), policies=1, episodes=2)


@pytest.fixture
def config(made, tmp_path) -> SteerConfig:
    policy = made.policies / "policy-0"
    return SteerConfig(
        policy, made.world, tmp_path / "out", judge=made.judge, k=2, lookahead=2, device="cpu", workers=1
    )


def test_without_an_environment_it_only_writes(config, capsys):
    assert steer(config) == {}
    assert [file.name for file in config.out.iterdir()] == ["steered.json"]
    assert "steered: the best of 2 plans, imagined 2 steps ahead" in capsys.readouterr().out
    assert load_policy(config.out).k == 2
    steer(config)  # the same call goes on
    with pytest.raises(ValueError, match=r"steered\.json: has k 2, now it is 3; choose another --out"):
        steer(replace(config, k=3))


def test_what_contradicts_itself_is_refused(config, made):
    (config.out / "mine").mkdir(parents=True)
    (config.out / "mine" / "notes.txt").write_text("mine")
    for changes, message in (
        ({}, "holds mine/notes.txt and is no steered policy; choose another --out"),
        ({"k": 0}, "--k is at least 1, got 0"),
        ({"spread": -0.1}, "--spread is at least 0, got -0.1"),
        ({"judge": None}, "--scorer value is the reward of a judge; pass --judge"),
        ({"real": "pusht-position"}, "--real pusht-position: trials start from recorded episodes; pass --data"),
        ({"real": "nowhere", "data": made.starts}, "there is no environment 'nowhere'"),
        ({"data": made.starts}, "--data holds the starts of trials, and without --real there are none; pass --real"),
    ):
        with pytest.raises(ValueError, match=message):
            steer(replace(config, **changes))


def test_two_names_of_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("world").mkdir()
    assert same_place("world", str(tmp_path / "world"))
    assert not same_place("world", str(tmp_path)) and not same_place(3, 4) and not same_place("hf://a/b", "hf://a/c")


def test_the_control_takes_a_plan_at_random(config):
    """It has the same plans and imagines nothing."""
    rows = rows_of(config)
    assert list(rows) == ["alone", "random", "steered"] and (rows["alone"], rows["steered"]) == (
        config.policy,
        config.out,
    )
    control = load_policy(rows["random"])
    assert control.world is None and control.k == 2
    many = Candidates(torch.zeros(20, 2, 1, 2), seeds=torch.arange(20))
    assert len(set(control.scorer(many).argmax(1).tolist())) == 2


def test_rows_are_compared_start_by_start():
    """Of four starts steered solves three, alone one and random two."""
    outcomes = {"alone": [1, 0, 0, 0], "random": [1, 1, 0, 0], "steered": [1, 1, 1, 0]}
    scores = {n: Scores(n, np.arange(4), np.array(o, float), np.zeros(4), np.ones(4, int)) for n, o in outcomes.items()}
    found = compared(scores)
    assert [row["score"] for row in found["rows"].values()] == [0.25, 0.5, 0.75]
    assert [pair["difference"] for pair in found["pairs"].values()] == [0.5, 0.25]
    assert Scores.from_json(found["rows"]["steered"]["trials"]).mean == 0.75


@pytest.mark.slow
def test_trials_are_paired_and_kept(config, made, capsys):
    """Rows of two starts each; the second call repeats no trial, and gives the same figures."""
    config = replace(config, real="pusht-position", data=made.starts, episodes=2, horizon=4)
    found = steer(config)
    assert list(found["rows"]) == ["alone", "random", "steered"] and found["rows"]["steered"]["n"] == 2
    assert {pair["n"] for pair in found["pairs"].values()} == {2}
    stored = json.loads((config.out / "steering.json").read_text())
    assert stored["rows"] == found["rows"] and stored["decision_ms"][0] > 0
    page = (config.out / "report.html").read_text()
    assert page.count("<video") == 1 and page.count("data:image/png") == 3
    assert "It cannot be told whether steering helps" in capsys.readouterr().out
    times = {file: file.stat().st_mtime_ns for file in config.out.rglob("cells/*/*/*.json")}
    assert len(times) == 3
    assert steer(config)["rows"] == found["rows"]
    assert {file: file.stat().st_mtime_ns for file in times} == times


def found(alone, chance, decision_ms=(101.2, 140.0)):
    """The contents of `steering.json` with the given intervals of steered minus alone, and minus random."""
    rows = {name: {"score": score, "low": score - 0.1, "high": score + 0.1, "n": 50} for name, score in RATES.items()}
    pairs = {
        f"steered minus {name}": {"difference": sum(ends) / 2, "low": ends[0], "high": ends[1], "n": 50}
        for name, ends in (("alone", alone), ("random", chance))
    }
    return {"rows": rows, "pairs": pairs, "decision_ms": decision_ms, "settings": SETTINGS}


RATES = {"alone": 0.3, "random": 0.4, "steered": 0.8}
SETTINGS = {"policy": "chunk-4", "world": "pusht", "k": "4", "lookahead": "8"}


@pytest.mark.parametrize(
    ("alone", "chance", "begins", "ends"),
    [
        (
            (0.2, 0.6),
            (0.1, 0.5),
            "Steering makes this policy better: 80% of its trials succeed, 30% alone",
            "helps, and not",
        ),
        ((0.2, 0.6), (-0.1, 0.5), "Steering makes this policy better", "or the noise alone, cannot be told"),
        ((-0.2, 0.6), (0.1, 0.5), "It cannot be told whether steering helps", "includes 0."),
        ((-0.6, -0.2), (0.1, 0.5), "Steering does harm to this policy", "-0.60 to -0.20)."),
    ],
)
def test_the_gain_in_words(alone, chance, begins, ends):
    said = meaning(found(alone, chance))
    assert said[0].startswith(begins) and ends in said[-1]


def choice() -> Choice:
    """Two plans of one stream; the second is the best."""
    frames = torch.zeros(2, 3, 1, 8, 8, 3, dtype=torch.uint8)
    frames[1] = 200
    candidates = Candidates(torch.zeros(1, 2, 2, 2), Clip(frames))
    return Choice(candidates, torch.tensor([[0.1, 0.9]]), torch.tensor([1]))


def test_the_page(tmp_path):
    write_video(tmp_path / "film.mp4", np.zeros((3, 32, 32, 3), np.uint8), 10.0)
    film = SteeringFilm(tmp_path / "film.mp4", "alone: failure", (1.0, 2.0), choice())
    write_page(found((0.2, 0.6), (0.1, 0.5)), film, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "chunk-4 proposes 4 plans" in page and page.count("data:image/png") == 3 and "alone: failure" in page
    lines = table(found((0.2, 0.6), (0.1, 0.5)))
    assert lines[0] == ("alone", "0.30", "0.20 to 0.40", "50", "+0.40", "+0.20 to +0.60")
    assert lines[2][-2:] == ("-", "-")
    assert decision(found((0, 1), (0, 1))).startswith("A decision takes 101 ms (99th percentile 140 ms)")


def test_the_best_future_is_framed():
    first, last = draw_fan(choice()), draw_fan(replace(choice(), best=torch.tensor([0])))
    assert first.startswith(b"\x89PNG") and first != last


def test_a_start_where_the_choice_decides_is_shown():
    def scores(outcomes):
        return Scores("x", np.array([7, 8, 9]), np.array(outcomes, float), np.zeros(3), np.ones(3, np.int64))

    assert shown_start(scores([1, 0, 0]), scores([0, 0, 1])) == 9
    assert shown_start(scores([1, 0, 0]), scores([1, 0, 0])) == 7


def test_only_decisions_are_timed():
    class Still:
        def plan(self, observation):
            return torch.zeros(1, 2, 2)

    watched = Watched(SteeredPolicy(Still(), lambda candidates: candidates.plans[:, :, 0, 0], k=2, sigma=1.0))
    watched.reset([3])
    for _ in range(5):
        watched.act({"observation.state": torch.zeros(1, 2)})
    assert len(watched.seconds) == len(watched.choices) == 3  # of five steps, with plans of two
