"""`worldmodel serve`."""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import LEROBOT_V30, ROOT
from tiny import tiny_world
from websockets.sync.client import connect as open_websocket

from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.serving.command import ServeConfig, _until_interrupted, open_host
from worldmodel import connect
from worldmodel.processes import terminate_as_interrupt
from worldmodel.wire.messages import pack, unpack
from worldmodel.wire.server import Server, serving

PUSHT, JUDGE = ROOT / "checkpoints" / "pusht", ROOT / "checkpoints" / "judges" / "pusht-position"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of --world and --policy, got None and None"),
        ({"world": "w", "policy": "p"}, "give one of --world and --policy, got w and p"),
        ({"policy": "p", "judge": "j"}, "--judge and --data go with --world, got them with --policy p"),
        ({"world": "w", "plans": True}, "--plans and --keys go with --policy, got them with --world w"),
        ({"policy": "p", "keys": ("a=b",)}, "--keys a=b: expected THEIRS=OURS"),
        ({"world": "w", "port": -1}, r"--port is within 0\.\.65535, got -1"),
        ({"world": PUSHT, "batch": 5}, r"--batch is one of \(1, 2, 4, 8, 16\), got 5"),
        ({"world": PUSHT, "num_steps": 3}, r"--num-steps is one of \(1, 2, 4\), got 3"),
        ({"world": PUSHT, "judge": ROOT / "checkpoints" / "judges" / "metaworld-push-v3"}, "judge .*: looks at"),
    ],
)
def test_options_that_do_not_fit(options, said):
    with pytest.raises(ValueError, match=said):
        open_host(ServeConfig(device="cpu", **options))


def test_a_policy_of_a_folder_is_served_with_its_fingerprint(tmp_path):
    ClonedPolicy(PolicyConfig(views=("top",), size=(16, 16), action_dim=2, state_dim=0)).save(tmp_path / "clone")
    config = ServeConfig(policy=tmp_path / "clone", port=0, device="cpu")
    host, door = open_host(config)
    with serving(host, door) as url, open_websocket(url, close_timeout=0.2) as socket:
        metadata = unpack(socket.recv(60))
        assert metadata["policy"] == "clone" and len(metadata["fingerprint"]) >= 16
        socket.send(pack({"observation.images.top": np.zeros((16, 16, 3), np.uint8)}))
        assert unpack(socket.recv(60))["actions"].shape == (1, 2)


@pytest.mark.slow
def test_a_shipped_world_is_served_as_a_process(tmp_path):
    options = [
        "--world",
        PUSHT,
        "--judge",
        JUDGE,
        "--data",
        LEROBOT_V30,
        "--episodes",
        "2",
        "--port",
        "0",
        "--token",
        "t",
    ]
    command = [sys.executable, "-m", "worldmodel.cli", "serve", "--device", "cpu", "--limits.sessions", "1", *options]
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        lines = iter(process.stdout.readline, "")
        url = next(line for line in lines if " is served at " in line).split()[-1]
        env = connect(url, token="t", batch=1)
        assert env.about["world"] == "pusht" and env.about["starts"] == 2
        env.reset(options={"start": 1})
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert np.isfinite(reward) and not terminated and not truncated
        with pytest.raises(ValueError, match="at most 1 sessions"):
            env.branch()
        taken = replace(ServeConfig(world=PUSHT, device="cpu"), port=int(url.rpartition(":")[2]))
        assert (
            subprocess.run([*map(str, command[:4]), "--world", PUSHT, "--port", str(taken.port)], **QUIET).returncode
            == 2
        )
    finally:
        process.terminate()
        process.wait(300)
    assert process.returncode == 130 and "interrupted" in process.stderr.read()


QUIET = {"capture_output": True, "cwd": Path(ROOT)}


def test_a_signal_waits_for_the_step_of_the_loop(tmp_path):
    """Raised in the middle of a step, an interrupt could leave a connection half closed, and be waited for for ever."""
    tiny_world(size=(16, 16)).save(tmp_path)
    host, door = open_host(ServeConfig(world=tmp_path, device="cpu", port=0))
    went_on = []

    def started(url):
        os.kill(os.getpid(), signal.SIGTERM)
        went_on.append(url)

    with terminate_as_interrupt(), pytest.raises((asyncio.CancelledError, KeyboardInterrupt)):
        asyncio.run(_until_interrupted(Server(host, door), started))
    assert len(went_on) == 1
