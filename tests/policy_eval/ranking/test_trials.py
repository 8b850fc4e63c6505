"""Cells of trials: which failed trials are dreamed again, and what belongs to what."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_episodes import DrawnEpisodes
from square_world import square_policy, write_episodes
from tiny import tiny_world

from policy_eval.judge.judge import JudgeShape, LearnedJudge
from policy_eval.ranking.command import RankConfig
from policy_eval.ranking.disagreements import _held
from policy_eval.ranking.setup import TrialSetup, chosen_starts
from policy_eval.ranking.tally import imagined_successes, trial_rows
from policy_eval.ranking.trials import Cell, Replay, failed_actions, gather, play, read_cell, replays, run_cell
from policy_eval.scores import Scores
from worldmodel.data.joined import JoinedSource
from worldmodel.data.options import ColumnOptions
from worldmodel.files import write_json


@pytest.fixture(scope="module")
def setup(tmp_path_factory) -> TrialSetup:
    """Six starts, with reset seeds 100 to 105, and an untrained world and judge."""
    folder = tmp_path_factory.mktemp("trials")
    world = tiny_world(size=(16, 16))
    world.config = replace(world.config, temperature=30.0)  # so that its dreams tell their noise
    world.save(folder / "world")
    torch.manual_seed(0)
    LearnedJudge(JudgeShape(("top", "wrist"), (16, 16), width=8), threshold=0.9).save(folder / "judge")
    square_policy().save(folder / "one")
    starts = write_episodes(folder / "starts", 6)
    return TrialSetup(str(folder / "world"), folder / "judge", starts, 6, 3, num_steps=1, num_envs=2)


def failed(out: Path, policy: str, seeds: list[int]) -> None:
    """A finished cell whose trials from these seeds failed; the action tells the seed."""
    file = Cell("real", policy, Path(policy), tuple(range(6))).file(out)
    file.parent.mkdir(parents=True)
    write_json(file, {"failed": {seed: [[float(seed), 1.0], [float(seed), 2.0]] for seed in seeds}})


def test_as_many_failures_of_each_policy_are_dreamed_again(setup, tmp_path):
    """Three of four, two policies: at most two of each, from the first starts that failed."""
    failed(tmp_path, "one", [105, 103, 100, 101])
    failed(tmp_path, "two", [102])
    policies = {"one": Path("one"), "two": Path("two")}
    cells, failures = replays(setup, policies, tmp_path, limit=3)
    assert failures == 5
    assert [(cell.place, cell.policy, cell.starts) for cell in cells] == [
        ("replay", "one", (0, 1)),
        ("replay", "two", (2,)),
    ]
    every, _ = replays(setup, policies, tmp_path, limit=100)
    assert [cell.starts for cell in every] == [(0, 1), (3, 5), (2,)]
    assert failed_actions(cells[1], tmp_path) == {102: [[102.0, 1.0], [102.0, 2.0]]}


def test_a_replay_acts_step_by_step_and_repeats_the_last_action():
    replay = Replay({7: [[1.0], [2.0]], 9: [[5.0]]})
    replay.reset([9, 7])
    assert [replay.act({}).tolist() for _ in range(3)] == [[[5.0], [1.0]], [[5.0], [2.0]], [[5.0], [2.0]]]
    replay.reset([7])
    assert replay.act({}).tolist() == [[1.0]]


def test_failures_alone_are_kept_with_their_actions(setup, tmp_path):
    """Where a dream is played again, actions of failed real trials are what is carried out."""
    failed(tmp_path, "one", [100, 101])
    cell = Cell("replay", "one", setup.data.with_name("one"), (0, 1))
    run_cell(setup, cell, tmp_path)
    stored = json.loads(cell.file(tmp_path).read_text())
    assert stored["scores"]["seeds"] == [100, 101] and stored["failed"] == {}
    assert stored["made_with"]["starts"] == [0, 1] and stored["made_with"]["horizon"] == 3


def test_a_cell_of_other_settings_is_refused(setup, tmp_path):
    failed(tmp_path, "one", [100])
    cell = Cell("replay", "one", setup.data.with_name("one"), (0,))
    run_cell(setup, cell, tmp_path)
    assert gather(setup, [cell], tmp_path)["one"].seeds.tolist() == [100]
    for change, message in (
        ({"num_steps": 2}, "num_steps 1, now it is 2"),
        ({"seed": 1}, "seed 0, now it is 1"),
        ({"copy_last": True}, "copy_last False, now it is True"),
        ({"horizon": 2}, "horizon 3, now it is 2"),
        ({"episodes": "2:6"}, "episodes .*0.*, now it is .*2"),
        ({"columns": ColumnOptions(state_keys=("observation.state",))}, "columns .*, now it is .*observation.state"),
    ):
        with pytest.raises(ValueError, match=message):
            read_cell(TrialSetup(**{**settings(setup), **change}), cell, tmp_path)


def test_steps_and_seed_are_those_of_the_dreams(setup, tmp_path):
    """The same action from the same start: two denoising steps begin from the noise of the seed."""
    failed(tmp_path, "one", [100])
    cell = Cell("replay", "one", setup.data.with_name("one"), (0,))

    def dreamed(**change) -> np.ndarray:
        trials = []
        play(replace(setup, num_envs=1, **change), cell, tmp_path, trials.append)
        return trials[0].frames

    two = dreamed(num_steps=2)
    assert (two == dreamed(num_steps=2)).all()
    assert (two != dreamed(num_steps=1)).any() and (two != dreamed(num_steps=2, seed=1)).any()


@pytest.mark.parametrize(
    ("episodes", "chosen"),
    [
        (2, [0, 1]),
        ("2", [0, 1]),
        ("1:3,0", [1, 2, 0]),
        ("2:", [2]),
        (4, "has 3 episodes to start from, --episodes is 4"),
        ("1:5", "1:5 is not within the 3 episodes"),
    ],
)
def test_starts_are_a_number_or_a_selection(episodes, chosen):
    source = DrawnEpisodes([5, 6, 7])
    if isinstance(chosen, str):
        with pytest.raises(ValueError, match=chosen):
            chosen_starts(source, episodes)
    else:
        assert chosen_starts(source, episodes) == chosen


def test_no_dream_is_computed_alone(setup):
    """One stream is rounded otherwise than several."""
    assert replace(setup, num_envs=1).dream.num_envs == 2
    assert replace(setup, num_envs=50).dream.num_envs == 6


def test_of_several_sets_the_same_episodes_are_chosen():
    source = JoinedSource([DrawnEpisodes([5, 6, 7]), DrawnEpisodes([8, 9])])
    assert chosen_starts(source, "0:2") == [0, 1, 3, 4]


def settings(setup: TrialSetup) -> dict:
    names = ("world", "judge", "data", "episodes", "horizon", "real", "num_steps", "num_envs", "seed", "copy_last")
    return {name: getattr(setup, name) for name in names}


def test_the_settings_of_a_ranking_reach_its_trials():
    config = RankConfig("w", Path("j"), (Path("p"),), Path("s"), Path("o"), horizon=7, episodes=9, num_steps=4, seed=3)
    setup = config.setup
    assert (setup.horizon, setup.episodes, setup.num_steps, setup.seed, setup.num_envs) == (7, 9, 4, 3, 25)
    assert not setup.copy_last
    control = RankConfig("w", Path("j"), (), Path("s"), Path("o"), 7, num_envs=5, control="copy-last", device="cpu")
    assert control.setup.copy_last and control.setup.num_envs == 5 and control.setup.device == "cpu"


def scores(outcomes: list[float], first: int = 0) -> Scores:
    number = len(outcomes)
    seeds = first + np.arange(number)
    return Scores("x", seeds, np.array(outcomes), 2.0 * np.arange(number), 1 + np.arange(number))


def test_optimism_is_the_share_of_failures_that_succeed_in_the_dream():
    found = imagined_successes({"a": scores([1.0, 0, 0, 0]), "b": scores([1.0, 1.0])}, 9)
    assert (found["score"], found["n"], found["failures"]) == (0.5, 6, 9)
    assert found["policies"]["a"]["score"] == 0.25
    assert imagined_successes({}, 0) is None


def test_every_trial_is_a_row_with_its_place():
    rows = trial_rows({"a": scores([1.0, 0.0], 50)}, {"a": scores([0.0], 50)})
    assert rows[1] == {"policy": "a", "place": "dream", "seed": 51, "outcome": 0.0, "return": 2.0, "steps": 2}
    assert [(row["place"], row["outcome"]) for row in rows] == [("dream", 1.0), ("dream", 0.0), ("real", 0.0)]


def test_a_film_holds_its_last_frame():
    frames = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1, 1).repeat(3, -1)
    assert _held(frames, 5)[:, 0, 0, 0, 0].tolist() == [0, 1, 2, 2, 2]
