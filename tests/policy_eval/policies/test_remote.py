import re
import socket
import threading
import time

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from policy_server import by_policy, serving
from square_world import SquareEnv, write_episodes
from tiny import tiny_world
from waiting import wait_until

from policy_eval.evaluation import evaluate
from policy_eval.policies.find import find_policies, load_policy, policy_fingerprint
from policy_eval.policies.needs import Needs
from policy_eval.policies.remote import RemotePolicy, Unreachable
from policy_eval.real_envs import RealEnvs
from worldmodel.data import open_episodes
from worldmodel.dreams.env import DreamEnv
from worldmodel.dreams.starts import Starts
from worldmodel.dreams.verdict import Verdict


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> Starts:
    return Starts(open_episodes(write_episodes(tmp_path_factory.mktemp("square") / "data", 5)))


class Wander:
    """Remembers how it has moved, and draws where it goes from the seed of each episode."""

    def reset(self, seeds):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.way = torch.zeros(len(seeds), 2)

    def act(self, observation):
        drawn = torch.stack([torch.randn(2, generator=each) for each in self.generators])
        self.way = 0.5 * self.way + drawn + torch.tensor([0.7, 0.0])
        return observation["observation.state"] + self.way


def middle(observation):
    """Success where the state of the dream has gone far to the right."""
    x = observation.states[:, 0]
    return Verdict(x, x > 3.5)


def seen(streams: int = 2, x: float = 1.0) -> dict[str, torch.Tensor]:
    pictures = torch.arange(streams, dtype=torch.uint8)[:, None, None, None].expand(streams, 4, 6, 3)
    return {"observation.images.top": pictures, "observation.state": torch.full((streams, 2), x)}


def counting(rows: int = 1, batch: int | None = None):
    """Answers with its number of calls and the row of the chunk."""
    calls = []

    def infer(observation):
        calls.append(observation)
        plan = np.stack([[len(calls), row] for row in range(rows)]).astype(np.float64)
        return {"actions": plan if batch is None else np.stack([plan + 10 * i for i in range(batch)])}

    return infer


@pytest.mark.parametrize("place", ["real", pytest.param("dream", marks=pytest.mark.slow)])
def test_a_policy_behind_a_server_has_the_outcomes_of_the_same_policy_in_this_process(starts, place):
    """Of 5 starts in batches of 2, the last of which is padded: stream by stream, with memory and random numbers."""
    envs = RealEnvs(SquareEnv, starts, num_envs=2)
    if place == "dream":
        envs = DreamEnv(
            tiny_world(size=(16, 16)),
            starts,
            middle,
            num_envs=2,
            horizon=8,
            num_steps=1,
            like=envs.envs[0],
            autoreset_mode=AutoresetMode.DISABLED,
        )
    here = evaluate(Wander(), envs, horizon=8)
    with serving(by_policy(Wander)) as (url, _):
        there = evaluate(load_policy(url), envs, horizon=8)
    assert 0 < here.mean < 1
    assert there.to_json() == here.to_json()


def test_what_the_server_gets():
    with serving(counting()) as (url, server):
        policy = RemotePolicy(url, keys={"observation.images.top": "observation/image", "prompt": "task"})
        policy.reset([7, 9])
        policy.instruct(["push", "lift"])
        policy.act(seen())
        policy.act(seen(x=2.0))
        policy.reset([8, 8])
        policy.act(seen())
    assert [[each[name] for name in ("stream", "seed", "reset", "task")] for each in server.seen] == [
        [0, 7, True, "push"],
        [1, 9, True, "lift"],
        [0, 7, False, "push"],
        [1, 9, False, "lift"],
        [0, 8, True, ""],
        [1, 8, True, ""],
    ]
    picture, state = server.seen[3]["observation/image"], server.seen[3]["observation.state"]
    assert (picture.dtype, picture.shape, int(picture.max())) == (np.uint8, (4, 6, 3), 1)
    assert (state.dtype, state.tolist()) == (np.float32, [2.0, 2.0])
    assert "observation.images.top" not in server.seen[0]


def test_a_function_makes_the_map_of_the_server():
    with serving(counting()) as (url, server):
        policy = RemotePolicy(
            url, keys=lambda row: {"images": {"high": row["observation.images.top"].transpose(2, 0, 1)}}
        )
        policy.reset([0])
        policy.act(seen(1))
    assert server.seen[0]["images"]["high"].shape == (3, 4, 6)


@pytest.mark.parametrize(("execute", "told"), [(None, [1, 1, 1, 3, 3]), (2, [1, 1, 3, 3, 5])])
def test_a_chunk_is_carried_out_by_each_stream_before_the_server_is_asked_again(execute, told):
    """Two streams ask in turn, so the first one gets the odd answers."""
    with serving(counting(rows=3)) as (url, _):
        policy = RemotePolicy(url, execute=execute)
        policy.reset([0, 1])
        actions = torch.stack([policy.act(seen()) for _ in range(5)])
    length = 3 if execute is None else execute
    assert actions[:, 0].tolist() == [[call, step % length] for step, call in enumerate(told)]
    assert actions[:, 1, 0].tolist() == [call + 1 for call in told]


def test_a_server_that_takes_batches_gets_them():
    with serving(counting(rows=2, batch=3), {"batched": True}) as (url, server):
        policy = RemotePolicy(url, keys=lambda row: row | {"images": {"high": row["observation.images.top"]}})
        policy.reset([4, 5, 6])
        policy.instruct(["a", "b", "c"])
        actions = [policy.act(seen(3)) for _ in range(3)]
    assert [each[:, 0].tolist() for each in actions] == [[1, 11, 21], [1, 11, 21], [2, 12, 22]]
    first, second = server.seen
    assert first["observation.images.top"].shape == first["images"]["high"].shape == (3, 4, 6, 3)
    assert (first["prompt"], first["seed"].tolist(), first["stream"].tolist()) == (
        ["a", "b", "c"],
        [4, 5, 6],
        [0, 1, 2],
    )
    assert (first["reset"].tolist(), second["reset"].tolist()) == ([True] * 3, [False] * 3)


def test_the_server_is_not_asked_about_streams_that_ended():
    """The second of three ends in the middle of a plan; the third keeps its plan, its number, its seed and its task."""
    with serving(counting(rows=2)) as (url, server):
        policy = RemotePolicy(url)
        policy.reset([4, 5, 6])
        policy.instruct(["a", "b", "c"])
        policy.act(seen(3))
        policy.keep([0, 2])
        assert [actions.tolist() for actions in policy.ahead()] == [[[1, 1], [3, 1]]]
        assert policy.act(seen(2)).tolist() == [[1, 1], [3, 1]]
        assert policy.ahead() == []
        assert policy.act(seen(2)).tolist() == [[4, 0], [5, 0]]
    told = [(each["stream"], each["seed"], each["prompt"], each["reset"]) for each in server.seen]
    assert told[:3] == [(0, 4, "a", True), (1, 5, "b", True), (2, 6, "c", True)]
    assert told[3:] == [(0, 4, "a", False), (2, 6, "c", False)]


def test_a_connection_ends_with_its_policy():
    with serving(counting()) as (url, server):
        policies = [RemotePolicy(url) for _ in range(3)]
        policies[0].close()
        del policies
        wait_until(lambda: not server.running)
        assert (server.connections, server.running) == (3, 0)


def test_a_connection_that_ended_is_made_anew_once():
    with serving(counting()) as (url, server):
        policy = RemotePolicy(url)
        policy.reset([0])
        server.closing = 1
        assert policy.act(seen(1)).tolist() == [[1.0, 0.0]]
        assert server.connections == 2
        server.closing = 2
        with pytest.raises(Unreachable, match="the server ended the connection, and the next one, too"):
            policy.act(seen(1))
        assert policy.act(seen(1)).tolist() == [[2.0, 0.0]]


def test_an_error_of_the_server_is_one_line_and_the_next_call_goes_on():
    calls = iter([False, True])

    def infer(observation):
        if next(calls):
            return {"actions": np.zeros((1, 2))}
        raise KeyError("observation/image")

    with serving(infer) as (url, _):
        policy = RemotePolicy(url)
        policy.reset([0])
        with pytest.raises(
            ValueError, match=f"^policy {url}: the server reports an error: KeyError: 'observation/image'$"
        ):
            policy.act(seen(1))
        assert policy.act(seen(1)).tolist() == [[0.0, 0.0]]


def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_said():
    done = threading.Event()
    with serving(lambda observation: done.wait(60) and {}) as (url, _):
        policy = RemotePolicy(url, timeout=0.1)
        policy.reset([0])
        begin = time.monotonic()
        with pytest.raises(Unreachable, match=f"^policy {url}: no answer within 0.1 s$"):
            policy.act(seen(1))
        assert time.monotonic() - begin < 30
        done.set()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"action": np.zeros((1, 2))}, r"the server answers without an array `actions`, with \['action'\]"),
        ({"actions": [[0.0, 0.0]]}, "without an array `actions`"),
        (7, "without an array `actions`, with int"),
        ({"actions": np.zeros(2)}, r"actions have the shape \(2,\), expected h a"),
        ({"actions": np.zeros((0, 2))}, r"actions have the shape \(0, 2\), expected h a"),
        ({"actions": np.zeros((1, 1, 2))}, r"actions have the shape \(1, 1, 2\), expected h a"),
    ],
)
def test_answers_without_actions_are_named(reply, message):
    with serving(lambda observation: reply) as (url, _):
        policy = RemotePolicy(url)
        policy.reset([0])
        with pytest.raises(ValueError, match=message):
            policy.act(seen(1))


def test_a_batch_of_another_size_is_named():
    with serving(counting(batch=3), {"batched": True}) as (url, _):
        policy = RemotePolicy(url)
        policy.reset([0, 1])
        with pytest.raises(ValueError, match=r"actions have the shape \(3, 1, 2\), expected n h a with n = 2"):
            policy.act(seen())


def test_keys_that_are_not_there_or_meet_are_named():
    with serving(counting()) as (url, _):
        for keys, message in (
            (
                {"observation.images.front": "image"},
                "keys name 'observation.images.front', a policy behind a server gets ",
            ),
            ({"observation.state": "prompt"}, "keys give two values the same name: prompt"),
        ):
            policy = RemotePolicy(url, keys=keys)
            policy.reset([0])
            with pytest.raises(ValueError, match=message):
                policy.act(seen(1))


def test_where_no_policy_is_served():
    with socket.create_server(("localhost", 0)) as silent:
        url = f"ws://localhost:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"^policy {url}: no answer within 0.1 s$"):
            RemotePolicy(url, wait=0.1)
    with pytest.raises(Unreachable, match=f"^policy {url}: nothing answers .*refused"):
        find_policies([url])
    with pytest.raises(ValueError, match=r"^policy ws://: expected ws://HOST:PORT or wss://HOST:PORT"):
        RemotePolicy("ws://")
    with pytest.raises(ValueError, match="execute is at least 1, got 0"):
        RemotePolicy(url, execute=0)
    for metadata, message in (
        ([1], r"the server begins with \[1\], expected a map of metadata"),
        ("hello", "a message consists of bytes, got a text of 5 characters"),
        ({"needs": {"camera": 1}}, "needs in the metadata: unknown field 'camera'"),
        ({"needs": {"action_dim": "two"}}, 'needs in the metadata.action_dim is "two", expected int'),
    ):
        with serving(counting(), metadata) as (url, _), pytest.raises(ValueError, match=message):
            RemotePolicy(url)


def test_what_a_server_says_about_itself():
    metadata = {"needs": {"views": {"top": [4, 6]}, "action_dim": 2, "action_low": [0, 0], "action_high": [1, 1.5]}}
    with serving(counting(), metadata) as (url, server):
        policy = load_policy(url)
        assert policy.metadata == metadata
        assert policy.needs == Needs(views={"top": (4, 6)}, action_dim=2, action_low=(0.0, 0.0), action_high=(1.0, 1.5))
        port = url.rpartition(":")[2]
        assert find_policies([url, f"{url}/second/"]) == {
            f"localhost-{port}": url,
            f"localhost-{port}-second": f"{url}/second/",
        }
        first = policy_fingerprint(url)
        connections = server.connections
        assert policy_fingerprint(url) == first and server.connections == connections
        assert re.fullmatch("[0-9a-f]{16}", first)
    with serving(counting(), metadata | {"step": 2}) as (url, _):
        assert policy_fingerprint(url) != first
