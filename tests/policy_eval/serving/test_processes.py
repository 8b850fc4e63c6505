"""Several processes behind one port: who gets a visitor, and what happens when one of them ends."""

import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from tiny import random_clip, tiny_world
from waiting import wait_until

from policy_eval.serving.command import ServeConfig, serve
from policy_eval.serving.processes import Processes
from worldmodel import connect
from worldmodel.cli import main
from worldmodel.wire.server import Door


def nobody(*arguments: object) -> None:
    """Serve nothing."""


@pytest.fixture
def processes():
    """Three that are ready, and the ends of their channels."""
    made, ends = Processes(nobody, 3, Door("127.0.0.1", 0)), []
    for place in range(3):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        made.shares[place] = SimpleNamespace(channel=ours)
        ends.append(theirs)
    made.ready = {0, 1, 2}
    yield made, ends
    for each in [*ends, *(share.channel for share in made.shares.values())]:
        each.close()


def handed(processes: Processes, ends: list[socket.socket]) -> int | None:
    """Which of them gets the next connection."""
    with socket.socket() as connection:
        processes._give(connection)
    for place, end in enumerate(ends):
        end.setblocking(False)
        try:
            _, found, _, _ = socket.recv_fds(end, 1, 1)
        except OSError:
            continue
        if found:
            os.close(found[0])
            return place
    return None


def test_the_process_with_the_fewest_connections_gets_the_next_one(processes):
    made, ends = processes
    made.visitors[:] = [2, 1, 3]
    assert handed(made, ends) == 1
    made.visitors[:] = [0, 1, 3]
    assert handed(made, ends) == 0


def test_of_several_it_is_the_one_that_waited_for_longest(processes):
    """Connections that come at once are not counted yet."""
    made, ends = processes
    assert [handed(made, ends) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_process_that_ended_or_is_not_ready_gets_none(processes):
    made, ends = processes
    ends[0].close()
    made.ready.remove(1)
    assert handed(made, ends[1:]) == 1  # the third one
    made.ready.clear()
    assert handed(made, ends[1:]) is None


@pytest.mark.parametrize(("number", "said"), [(0, "--processes is at least 1, got 0")])
def test_a_number_of_processes_that_is_none(number, said):
    with pytest.raises(ValueError, match=said):
        serve(ServeConfig(world="w", processes=number))


def step(env) -> str:
    """What a visitor of a dream sees."""
    try:
        env.step(env.action_space.sample())
    except ConnectionError as error:
        return str(error)
    return "dreams"


@pytest.mark.slow
def test_a_process_that_is_killed_costs_its_own_sessions(tmp_path):
    world = tiny_world(size=(16, 16))
    world.save(tmp_path)
    seen = random_clip(world, batch=1, frames=1)
    observation = {f"observation.images.{view}": seen.frames[0, 0, i].numpy() for i, view in enumerate(world.views)}
    observation["observation.state"] = seen.states[0, 0].numpy()
    options = ["--processes", "2", "--port", "0", "--token", "t", "--limits.connections", "4", "--limits.rows", "5"]
    command = [sys.executable, "-m", "worldmodel.cli", "serve", "--device", "cpu", "--world", str(tmp_path), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = next(line for line in process.stdout if " is served at " in line).split()[-1]
        workers = [each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())]
        assert len(workers) == 2
        envs = [connect(url, token="t", batch=1) for _ in range(4)]
        for env in envs:
            env.reset(options={"observation": observation})
        assert [env.dreams.session.link.ask("info")["rows"] for env in envs] == [4] * 4
        with pytest.raises(ValueError, match="the server has 5 rows, 4 are taken, and a batch of 2"):
            envs[0].dreams.session.branch(2, batch=2)
        with pytest.raises(ConnectionError, match="the server has 4 connections and takes no more"):
            connect(url, token="t")
        workers[0].kill()
        workers[0].wait()
        said = [step(env) for env in envs]
        assert said.count("dreams") == 2
        assert sum("it broke off, because the process that served it ended" in each for each in said) == 2
        wait_until(lambda: len(psutil.Process(process.pid).children()) == 3)  # with the resource tracker
        more = [connect(url, token="t", batch=1) for _ in range(2)]
        for env in more:
            env.reset(options={"observation": observation})
        assert [step(env) for env in more] == ["dreams", "dreams"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "ended with the status -9, and with it the sessions of 2 connections; it is started again" in errors
    assert not any(each.is_running() for each in workers)
    assert "going away" in step(envs[-1]) or "broke off" in step(envs[-1])


@pytest.mark.slow
def test_a_process_that_cannot_serve_says_why(tmp_path, capsys):
    assert main(["serve", "--world", str(tmp_path / "none"), "--processes", "2", "--port", "0"]) == 2
    assert "none" in capsys.readouterr().err
