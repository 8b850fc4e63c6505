"""A policy behind a server, asked as openpi's client asks: metadata first, then actions for each observation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from policy_eval.policies.cloned import ClonedPolicy, PolicyConfig
from policy_eval.serving.policy_host import PolicyHost, copied
from worldmodel.wire.messages import pack, unpack
from worldmodel.wire.server import Door, serving


class Counting:
    """Remembers its seed, its task and how often it acted; adds the state."""

    def reset(self, seeds: Sequence[int]) -> None:
        self.seed, self.count, self.task = seeds[0], 0, ""

    def instruct(self, tasks: Sequence[str]) -> None:
        self.task = tasks[0]

    def act(self, observation):
        if self.task == "break":
            raise RuntimeError("a wire\nis loose")
        self.count += 1
        return observation["observation.state"] + torch.tensor([[100 * self.seed + self.count, len(self.task)]])


class Client:
    """What openpi's client does."""

    def __init__(self, url: str, **options):
        self.opened = connect(url, compression=None, max_size=None, close_timeout=0.2, **options)

    def __enter__(self) -> "Client":
        self.socket = self.opened.__enter__()
        self.metadata = unpack(self.socket.recv(60))
        return self

    def __exit__(self, *error: object) -> None:
        self.opened.__exit__(*error)

    def infer(self, observation: dict) -> dict:
        self.socket.send(pack(observation))
        reply = self.socket.recv(60)
        if isinstance(reply, str):
            raise RuntimeError(reply)
        return unpack(reply)


@contextmanager
def asked(policy, **options) -> Iterator[str]:
    with serving(PolicyHost(policy, {"policy": "p"}, **options), Door("127.0.0.1", 0, "key")) as url:
        yield url


KEY = {"additional_headers": {"Authorization": "Api-Key key"}}
STATE = np.zeros(2, np.float64)


def test_each_stream_of_each_connection_has_its_own_episode():
    with asked(Counting()) as url, Client(url, **KEY) as one, Client(url, **KEY) as two:
        assert one.metadata == {"policy": "p"}
        reply = one.infer({"observation/state": STATE, "prompt": "push"})
        assert reply["actions"].tolist() == [[1, 4]] and reply["actions"].dtype == np.float32
        assert reply["server_timing"]["infer_ms"] > 0
        again = one.infer({"observation.state": STATE + 0.5, "prompt": "push"})
        assert again["actions"].tolist() == [[2.5, 4.5]] and again["server_timing"]["prev_total_ms"] > 0
        assert two.infer({"observation.state": [0.0, 0.0]})["actions"].tolist() == [[1, 0]]
        other = {"observation.state": STATE, "stream": 1, "seed": 3, "reset": True, "prompt": "lift it"}
        assert one.infer(other)["actions"].tolist() == [[301, 7]]
        assert one.infer(other | {"reset": False, "prompt": "lay"})["actions"].tolist() == [[302, 3]]
        assert one.infer(other)["actions"].tolist() == [[301, 7]]
        assert one.infer({"observation.state": STATE, "prompt": "push"})["actions"].tolist() == [[3, 4]]


def small_clone(**options) -> ClonedPolicy:
    torch.manual_seed(0)
    return ClonedPolicy(PolicyConfig(views=("top",), size=(16, 16), action_dim=2, state_dim=2, **options)).eval()


def test_a_clone_gives_whole_plans_or_one_action_after_the_other():
    clone = small_clone(chunk=3)
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    observation = {"observation/image": picture, "observation/state": STATE}
    expected = clone.plan(
        {"observation.images.top": torch.from_numpy(picture)[None], "observation.state": torch.zeros(1, 2)}
    )
    keys = {"observation/image": "observation.images.top"}
    with asked(clone, plans=True, keys=keys) as url, Client(url, **KEY) as client:
        np.testing.assert_allclose(client.infer(observation)["actions"], expected[0], rtol=1e-5, atol=1e-6)
    with asked(clone, keys=keys) as url, Client(url, **KEY) as client:
        for step in range(3):
            actions = client.infer(observation)["actions"]
            np.testing.assert_allclose(actions, expected[0, step : step + 1], rtol=1e-5, atol=1e-6)


def test_copies_share_weights_and_nothing_else():
    clone = small_clone()
    clone.reset([0])
    copy = copied(clone)
    copy.reset([7])
    assert clone.seeds.tolist() == [0]
    assert all(mine is theirs for mine, theirs in zip(clone.parameters(), copy.parameters(), strict=True))

    class Wrapped(Counting):
        def __init__(self):
            self.model, self.queue = clone, [1]

    wrapped = Wrapped()
    assert copied(wrapped).model is not clone and copied(wrapped).queue is not wrapped.queue
    assert next(copied(wrapped).model.parameters()) is next(clone.parameters())


@dataclass(frozen=True)
class Needs:
    state_dim: int | None = 2
    task: bool = True
    views: dict | None = None


def test_what_a_policy_needs_is_in_the_metadata():
    policy = Counting()
    policy.needs = Needs()
    assert PolicyHost(policy, {"policy": "p"}).metadata == {"policy": "p", "needs": {"state_dim": 2, "task": True}}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ([1], "an observation is a map whose keys are texts, got a list of 1"),
        ({"prompt": "push"}, "an observation has keys such as .* got prompt"),
        ({"observation.state": "left"}, r"observation.state is an array, got str"),
        ({"observation.state": [np.nan, 0.0]}, "observation.state has finite numbers"),
        ({"observation.state": STATE, "stream": 64}, r"stream is a whole number within 0\.\.63, got 64"),
        ({"observation.state": STATE, "seed": -1}, "seed is a whole number within 0.* got -1"),
        ({"observation.state": STATE, "prompt": "break"}, "the policy failed: RuntimeError: a wire is loose"),
        ({"observation.images.top": STATE}, "the policy failed: KeyError: 'observation.state'"),
        ({"observation.state": np.zeros(3)}, "the policy failed: RuntimeError: The size of tensor"),
    ],
)
def test_an_error_is_a_text_and_ends_the_connection_alone(message, said):
    with asked(Counting()) as url, Client(url, **KEY) as other:
        with Client(url, **KEY) as client:
            with pytest.raises(RuntimeError, match=said):
                client.infer(message)
            with pytest.raises(ConnectionClosed, match="1011"):
                client.infer({"observation.state": STATE})
        assert other.infer({"observation.state": STATE})["actions"].tolist() == [[1, 0]]


class Wrong(Counting):
    def act(self, observation):
        return torch.zeros(3, 2)


def test_actions_of_a_wrong_shape_are_an_error():
    with (
        asked(Wrong()) as url,
        Client(url, **KEY) as client,
        pytest.raises(RuntimeError, match=r"a policy returns a torch.Tensor of the shape \(n, a\), .* got \(3, 2\)"),
    ):
        client.infer({"observation.state": STATE})


def test_plans_of_a_policy_that_makes_none():
    with pytest.raises(ValueError, match="--plans: Counting has no method plan"):
        PolicyHost(Counting(), {}, plans=True)
