import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from interrupting import go_on, interrupt_when

from worldmodel.cli import main
from worldmodel.data import open_episodes
from worldmodel.data.lerobot.write import staged_episodes, write_staged
from worldmodel.envs import make_env
from worldmodel.envs.record import RecordConfig, prepare, record, record_episode, recorded_elsewhere, simulate_episode

DEADLINE = 300.0  # seconds; generous, for a machine that is busy with other work


def rows(folder: Path) -> dict[str, np.ndarray]:
    """Columns of the only data file, episode after episode."""
    (file,) = folder.glob("data/*/*.parquet")
    table = pq.read_table(file).to_pydict()
    return {name: np.array(values) for name, values in table.items()}


def episode_table(folder: Path) -> dict[str, list]:
    (file,) = folder.glob("meta/episodes/*/*.parquet")
    return pq.read_table(file).to_pydict()


def videos(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.mp4"))}


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what} took more than {DEADLINE} s"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> RecordConfig:
    folder = tmp_path_factory.mktemp("recorded") / "set"
    return RecordConfig(env="pusht-position", out=folder, episodes=3, seed=4, behaviour="noisy", workers=1)


@pytest.fixture(scope="module")
def recorded(config) -> Path:
    return record(config)


def test_replaying_the_actions_gives_the_recorded_states(config):
    for name, behaviour in (("pusht", "play"), ("pusht-position", "noisy")):
        settings = dataclasses.replace(config, env=name, behaviour=behaviour)
        episode, _ = simulate_episode(settings, reset_seed=11)
        env = make_env(name)
        observation, _ = env.reset(seed=11)
        for row, action in enumerate(episode.actions):
            np.testing.assert_array_equal(observation["observation.state"], episode.states[row])
            for view, frames in episode.frames.items():
                np.testing.assert_array_equal(observation[f"observation.images.{view}"], frames[row])
            observation, reward, *_, info = env.step(action)
            assert np.float32(reward) == episode.rewards[row]
            assert info["success"] == episode.successes[row]


def test_pusht_goes_on_to_the_time_limit(config):
    episode, _ = simulate_episode(dataclasses.replace(config, env="pusht", behaviour="play"), 0)
    assert len(episode.actions) == len(episode.states) == len(episode.frames["wrist"]) == 120
    assert episode.actions.dtype == np.float32
    assert episode.actions.min() >= 0
    assert episode.actions.max() <= 512


def test_position_stops_three_steps_after_success(config):
    episode, _ = simulate_episode(dataclasses.replace(config, behaviour="expert"), 0)
    assert episode.successes.tolist() == [False] * (len(episode.actions) - 4) + [True] * 4
    assert len(episode.actions) < 60
    assert episode.rewards[-1] > 1 - 30 / 256


def test_recording_is_a_lerobot_data_set(config, recorded):
    source = open_episodes(recorded)
    assert len(source) == 3
    assert source.views == ("top", "wrist")
    assert (source.fps, source.size, source.robot_type) == (10, (64, 64), "pusht-position")
    assert (source.action_dim, source.state_dim) == (2, 2)
    assert [source.reset_seed(episode) for episode in range(3)] == [400000, 400001, 400002]
    assert source.task(0) == make_env("pusht-position").task
    table = episode_table(recorded)
    assert table["reset_seed"] == [400000, 400001, 400002]
    assert table["behaviour"] == ["noisy"] * 3


def test_an_episode_starts_where_its_reset_seed_says(recorded):
    source = open_episodes(recorded)
    env = make_env("pusht-position")
    for episode in range(3):
        observation, _ = env.reset(seed=source.reset_seed(episode))
        clip = source.read(episode, 0, 1)
        np.testing.assert_array_equal(clip.states[0], observation["observation.state"])
        for index, view in enumerate(source.views):
            shown = observation[f"observation.images.{view}"].astype(float)
            assert np.square(clip.frames[0, index].numpy() - shown).mean() < 3


def test_rewards_and_successes_are_those_of_the_environment(recorded):
    table = rows(recorded)
    solved = table["next.success"]
    assert solved.any()
    assert (table["next.reward"][solved] > 1 - 30 / 256 - 1e-6).all()
    assert (table["next.reward"][~solved] < 1 - 30 / 256 + 1e-6).all()


def test_a_complete_recording_is_left_alone(config, recorded, capsys):
    before = {file: file.stat().st_mtime_ns for file in recorded.rglob("*")}
    assert record(config) == recorded
    assert "is complete: 3 episodes of pusht-position" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in recorded.rglob("*")} == before


def test_other_settings_are_refused(config, recorded):
    with pytest.raises(ValueError, match="with episodes = 3, you asked for 4"):
        record(dataclasses.replace(config, episodes=4))
    with pytest.raises(ValueError, match="with behaviour = 'noisy', you asked for 'play'"):
        record(dataclasses.replace(config, behaviour="play"))


def test_a_folder_with_something_else_is_refused(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"exists and is not a recording"):
        record(dataclasses.replace(config, out=tmp_path))
    with pytest.raises(ValueError, match=r"exists and is not a recording"):
        record(dataclasses.replace(config, out=tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "push"}, "no environment 'push'; known are pusht, pusht-position, pusht-rope, pusht-sand"),
        ({"episodes": 0}, "--episodes is at least 1, got 0"),
        ({"episodes": 100001}, "--episodes is at most 100000, got 100001"),
        ({"seed": -1}, "seed is at least 0, got -1"),
        ({"workers": -2}, "--workers is at least 0, got -2"),
        ({"size": 8}, "16 to 256 pixels a side, got 8"),
    ],
)
def test_wrong_settings_are_refused(config, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        record(dataclasses.replace(config, out=tmp_path / "set", **change))


def test_a_folder_that_is_removed_meanwhile_is_not_made_again(config, tmp_path):
    gone = dataclasses.replace(config, out=tmp_path / "gone", horizon=2)
    with pytest.raises(ValueError, match="gone was removed while episode 1 was recorded"):
        record_episode(gone, 1)
    assert not gone.out.exists()


def test_size_is_that_of_both_cameras(config, tmp_path):
    small = dataclasses.replace(config, out=tmp_path / "set", size=32, episodes=1)
    assert open_episodes(record(small)).size == (32, 32)


def test_staged_episodes_are_kept_and_the_rest_added(config, recorded, tmp_path):
    resumed = dataclasses.replace(config, out=tmp_path / "set")
    resumed.out.mkdir()
    (resumed.out / "recording.json").write_text(json.dumps(resumed.content))
    record_episode(resumed, 1)
    staged = next(resumed.out.rglob("episode_000001"))
    before = staged.stat().st_ino
    assert staged_episodes(resumed.out) == {1}
    files = {file: file.read_bytes() for file in staged.rglob("*") if file.is_file()}
    (tmp_path / "other").mkdir()
    record_episode(dataclasses.replace(config, out=tmp_path / "other"), 1)
    again = next((tmp_path / "other").rglob("episode_000001"))
    for file, content in files.items():
        assert (again / file.relative_to(staged)).read_bytes() == content
    assert staged.stat().st_ino == before
    record(resumed)
    assert_same_data(resumed.out, recorded)


def staged_files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_an_episode_of_another_machine_is_the_same(config, tmp_path):
    """Nothing is written there; its files are staged here."""
    here, there = (dataclasses.replace(config, out=tmp_path / name) for name in ("here", "there"))
    frames, files = recorded_elsewhere(there, 1)
    assert not there.out.exists()
    write_staged(there.out, 1, files)
    here.out.mkdir()
    assert record_episode(here, 1) == frames and staged_episodes(there.out) == {1}
    assert staged_files(there.out) == staged_files(here.out) != {}


@pytest.mark.slow
def test_a_ray_cluster_records_the_episodes_that_are_missing(config, recorded, tmp_path):
    pytest.importorskip("ray")
    resumed = dataclasses.replace(config, out=tmp_path / "set")
    prepare(resumed)
    record_episode(resumed, 1)
    command = [sys.executable, "-m", "worldmodel.cli", "record", config.env, "--out", str(resumed.out)]
    command += ["--episodes", "3", "--seed", "4", "--behaviour", "noisy", "--workers", "ray"]
    own = {**os.environ, "RAY_ADDRESS": "local"}  # another test may have a cluster on this machine
    finished = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=own)
    assert finished.returncode == 0 and "Ray: " in finished.stdout, finished.stderr
    assert_same_data(resumed.out, recorded)


def assert_same_data(first: Path, second: Path) -> None:
    mine, other = rows(first), rows(second)
    assert mine.keys() == other.keys()
    for name, values in mine.items():
        np.testing.assert_array_equal(values, other[name])
    assert videos(first) == videos(second)
    assert episode_table(first)["reset_seed"] == episode_table(second)["reset_seed"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_keeps_what_is_finished_and_the_same_call_goes_on(
    config, recorded, sent, capsys, tmp_path
):
    out = tmp_path / "set"
    words = ["record", config.env, "--out", str(out), "--episodes", "3", "--seed", "4", "--behaviour", "noisy"]
    with interrupt_when(lambda: bool(staged_episodes(out)), sent):
        assert main([*words, "--workers", "1"]) == 130
    said = capsys.readouterr().err
    assert said.endswith(f"is kept, go on with: worldmodel {' '.join(words)} --workers 1\n")
    assert len(said.splitlines()) == 2 and staged_episodes(out)
    assert sorted(path.name for path in out.iterdir()) == [".staging", "recording.json"]
    assert not list(out.glob(".staging/part-*"))
    assert go_on(said) == 0
    assert_same_data(out, recorded)
    assert sorted(path.name for path in out.iterdir()) == ["data", "meta", "recording.json", "videos"]


@pytest.mark.slow
def test_a_recording_over_processes_ends_quietly_with_its_whole_group(tmp_path):
    """As Ctrl-C in a terminal, which every process of the group gets."""
    out = tmp_path / "set"
    command = [sys.executable, "-m", "worldmodel.cli", "record", "pusht-position", "--episodes", "12", "--workers", "2"]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: len(staged_episodes(out)) >= 2, "staging two episodes")
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=DEADLINE)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert "interrupted; what is finished is kept, go on with: worldmodel record" in said
    assert not psutil.wait_procs(workers, timeout=DEADLINE)[1]
    assert not list(out.glob(".staging/part-*"))


@pytest.mark.slow
def test_killed_recording_over_processes_continues(tmp_path):
    """SIGKILL leaves no process behind, and the data are those of an undisturbed recording."""
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "worldmodel.cli", "record", "pusht-position"]
    command += ["--episodes", "12", "--behaviour", "play", "--workers", "2"]
    command += ["--out", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(staged_episodes(killed)) >= 2, "staging two episodes")
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(workers) >= 2
    wait_until(lambda: not any(w.is_running() for w in workers), "the end of the workers")
    assert 2 <= len(staged_episodes(killed)) < 12
    assert not (killed / "meta").exists()
    plain = RecordConfig(env="pusht-position", out=tmp_path / "plain", episodes=12, behaviour="play", workers=1)
    resumed = record(dataclasses.replace(plain, out=killed))
    assert_same_data(resumed, record(plain))
