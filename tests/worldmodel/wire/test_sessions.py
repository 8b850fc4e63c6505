"""Every message, over a real websocket: what it does, and what is said where it does not fit."""

import io
import re

import numpy as np
import pytest
import torch
from drawn_episodes import never
from PIL import Image
from served import Wire, served, small_world, starts

from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.noise import mix_seed
from worldmodel.wire.limits import Limits
from worldmodel.wire.messages import pack

ZERO = [[0.0, 0.0]]
SEEN = {
    "observation.images.top": np.zeros((1, 16, 16, 3), np.uint8),
    "observation.images.wrist": np.zeros((1, 16, 16, 3), np.uint8),
    "observation.state": ZERO,
}


@pytest.fixture(scope="module")
def url():
    with served() as address:
        yield address


@pytest.fixture
def wire(url):
    with Wire(url) as client:
        yield client


def top(reply: dict) -> np.ndarray:
    return reply["observation"]["observation.images.top"]


def test_the_first_message_and_info_say_what_the_world_needs(wire):
    about = wire.about
    assert about["type"] == "info" and about["protocol"] == 1 and about["world"] == "tiny"
    assert (about["views"], about["size"]) == (["top", "wrist"], [16, 16])
    assert (about["action_dim"], about["state_dim"], about["starts"], about["judge"]) == (2, 2, 4, True)
    np.testing.assert_allclose(about["action_high"], [3.6, 3.6])
    session = wire("create", starts=[1])["session"]
    assert wire("info")["sessions"] == 1
    wire("step", session=session, action=ZERO)
    told = wire("info", session=session)
    assert (told["batch"], told["num_steps"], told["frame"]) == (2, 2, [1])


def test_create_from_starts_gives_their_frames_states_and_tasks(wire):
    reply = wire("create", starts=[3, 1])
    assert top(reply)[:, 0, 0, 0].tolist() == [190, 90]
    assert reply["observation"]["observation.state"].tolist() == [[0, 3], [0, 1]]
    assert (reply["frame"], reply["task"], reply["batch"]) == ([0, 0], ["", ""], 2)


def test_a_step_is_that_of_the_world_model_with_the_noise_of_the_start(wire):
    for noise in (0, 5):
        session = wire("create", starts=[2, 0], noise=noise)["session"]
        reply = wire("step", session=session, action=[[0.5, 1.0], [2.0, 0.25]])
        stream = small_world().stream(starts().clip([2, 0]), seeds=[mix_seed(noise, 72), mix_seed(noise, 70)])
        seen = stream.step(torch.tensor([[0.5, 1.0], [2.0, 0.25]]))
        np.testing.assert_array_equal(top(reply), seen.frames[:, 0])
        np.testing.assert_array_equal(reply["observation"]["observation.state"], seen.states)
        np.testing.assert_array_equal(reply["reward"], never(seen).rewards.double())
        assert reply["success"].tolist() == [False, False] and "unsure" not in reply
        assert reply["timing"]["model_ms"] > 0 <= reply["timing"]["wait_ms"]


def test_create_from_pictures_of_the_visitor(wire):
    observation = {
        "observation.images.top": np.full((1, 16, 16, 3), 7, np.uint8),
        "observation.images.wrist": np.full((1, 16, 16, 3), 9, np.uint8),
        "observation.state": [[1, 2]],
        "task": "push",
    }
    reply = wire("create", observation=observation)
    assert (top(reply) == 7).all() and (reply["observation"]["observation.images.wrist"] == 9).all()
    assert reply["observation"]["observation.state"].tolist() == [[1, 2]] and reply["task"] == ["push"]


def test_a_chunk_of_actions_is_the_steps_one_after_the_other(wire):
    actions = np.random.default_rng(0).uniform(0, 3, (2, 3, 2)).astype(np.float32)
    session = wire("create", starts=[0, 1])["session"]
    single = [wire("step", session=session, action=actions[:, i]) for i in range(3)]
    wire("reset", session=session, starts=[0, 1])
    chunk = wire("step", session=session, actions=actions)
    assert top(chunk).shape == (2, 3, 16, 16, 3) and chunk["reward"].shape == (2, 3)
    for index, step in enumerate(single):
        np.testing.assert_array_equal(top(chunk)[:, index], top(step))
        np.testing.assert_array_equal(chunk["reward"][:, index], step["reward"])
    wire("reset", session=session, starts=[0, 1])
    last = wire("step", session=session, actions=actions, frames="last")
    np.testing.assert_array_equal(top(last)[:, 0], top(single[-1]))
    assert last["observation"]["observation.state"].shape == (2, 3, 2)
    assert set(wire("step", session=session, actions=actions, frames="none")["observation"]) == {"observation.state"}


def test_actions_are_clipped_to_the_range_of_the_data(wire):
    session = wire("create", starts=[0])["session"]
    far = wire("step", session=session, action=[[99.0, -99.0]])
    wire("reset", session=session, starts=[0])
    near = wire("step", session=session, action=[[3.6, 0.0]])
    np.testing.assert_array_equal(far["observation"]["observation.state"], near["observation"]["observation.state"])


def test_reset_of_one_stream_leaves_the_other(wire):
    session = wire("create", starts=[0, 1])["session"]
    stepped = wire("step", session=session, action=ZERO * 2)
    reply = wire("reset", session=session, starts=[3], streams=[1])
    assert (top(reply)[1] == 190).all() and reply["frame"] == [1, 0]
    np.testing.assert_array_equal(top(reply)[0], top(stepped)[0])


def test_a_snapshot_can_be_restored_any_number_of_times_until_it_is_forgotten(wire):
    session = wire("create", starts=[0])["session"]
    before = wire("step", session=session, action=[[1.0, 2.0]])
    name = wire("snapshot", session=session)["snapshot"]
    after = wire("step", session=session, action=[[3.0, 0.0]])
    for _ in range(2):
        back = wire("restore", session=session, snapshot=name)
        np.testing.assert_array_equal(top(back), top(before))
        assert back["frame"] == [1]
        np.testing.assert_array_equal(top(wire("step", session=session, action=[[3.0, 0.0]])), top(after))
    assert wire("info", session=session)["snapshots"] == [name]
    assert wire("forget", session=session, snapshot=name)["type"] == "forget"
    assert "there is no snapshot" in wire("restore", session=session, snapshot=name)["error"]


def test_branches_go_on_from_the_running_session_which_stays(wire):
    session = wire("create", starts=[0])["session"]
    before = wire("step", session=session, action=[[1.0, 2.0]])
    branch = wire("branch", session=session, k=2)
    np.testing.assert_array_equal(top(branch), np.repeat(top(before), 2, axis=0))
    both = wire("step", session=branch["session"], action=[[3.0, 0.0], [0.0, 3.0]])
    mine = wire("step", session=session, action=[[3.0, 0.0]])
    assert (top(mine)[0].astype(int) - top(both)[0]).max() <= 2
    assert not np.array_equal(top(both)[0], top(both)[1])
    seeded = wire("branch", session=session, seeds=[8])["session"]
    assert not np.array_equal(
        top(wire("step", session=seeded, action=ZERO)), top(wire("step", session=session, action=ZERO))
    )


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_frames_can_be_sent_as_files(wire, form):
    session = wire("create", starts=[1, 2], pictures=form, quality=80)["session"]
    reply = wire("step", session=session, actions=np.zeros((2, 2, 2), np.float32))
    files = top(reply)
    assert [len(stream) for stream in files] == [2, 2]
    with Image.open(io.BytesIO(files[1][0])) as picture:
        assert (picture.format, picture.size) == (form.upper(), (16, 16))
        shown = np.asarray(picture).astype(int)
    wire("reset", session=session, starts=[1, 2])
    raw = wire("create", starts=[1, 2])["session"]
    exact = top(wire("step", session=raw, actions=np.zeros((2, 2, 2), np.float32)))[1, 0]
    assert np.abs(shown - exact).mean() <= (0 if form == "png" else 20)


def test_a_closed_session_is_gone_and_its_rows_are_free(url):
    with Wire(url) as wire:
        sessions = [wire("create", starts=[0])["session"] for _ in range(3)]
        rows = wire("info")["rows"]
        for session in sessions:
            assert wire("close", session=session) == {"type": "close"}
        assert wire("info")["rows"] < rows
        assert "there is no session" in wire("step", session=sessions[0], action=ZERO)["error"]


def test_a_session_belongs_to_the_connection_that_made_it(url):
    with Wire(url) as mine, Wire(url) as theirs:
        session = mine("create", starts=[0])["session"]
        assert len(session) >= 20
        for kind in ("step", "reset", "branch", "snapshot", "restore", "forget", "close", "info"):
            assert "there is no session" in theirs(kind, session=session)["error"], kind
        assert mine("step", session=session, action=ZERO)["type"] == "step"


def test_a_reply_repeats_the_id(wire):
    assert wire("info", id=7)["id"] == 7
    assert wire("info", id="seven")["id"] == "seven"
    assert wire("nonsense", id=8)["id"] == 8
    assert "id is a whole number or a text" in wire("info", id=[1])["error"]


MESSAGES = {
    "no map": ([1], "a message is a map whose keys are texts, got a list of 1"),
    "no type": ({"session": "x"}, "type is one of info, create, .* got None"),
    "type": ({"type": "jump"}, "type is one of info, create, .* got 'jump'"),
    "unknown field": ({"type": "create", "starts": [0], "start": 1}, "create has no field 'start'; it has"),
    "no start": ({"type": "create"}, "create needs one of starts, seeds and observation"),
    "two starts": (
        {"type": "create", "starts": [0], "seeds": [1]},
        "has one of starts, seeds, observation, got starts and",
    ),
    "no such start": ({"type": "create", "starts": [4]}, r"starts is a whole number within 0\.\.3, got 4"),
    "no list": ({"type": "create", "starts": 1}, "starts is a list of 1..16 whole numbers, got 1"),
    "many starts": ({"type": "create", "starts": [0] * 17}, "starts is a list of 1..16 whole numbers, got 17 of them"),
    "seed": ({"type": "create", "seeds": [-1]}, "seeds is a whole number within 0.* got -1"),
    "batch": ({"type": "create", "starts": [0], "batch": 3}, "batch is one of 1, 2, 4, 8, 16, got 3"),
    "many streams": ({"type": "create", "starts": [0, 1], "batch": 1}, "a batch of 1 holds at most 1 streams, got 2"),
    "num_steps": ({"type": "create", "starts": [0], "num_steps": True}, "num_steps is one of 1, 2, 4, got True"),
    "pictures": ({"type": "create", "starts": [0], "pictures": "gif"}, "pictures is one of raw, jpeg, png, got 'gif'"),
    "quality": ({"type": "create", "starts": [0], "quality": 99}, r"quality is a whole number within 1\.\.95, got 99"),
    "observation": ({"type": "create", "observation": 3}, "observation is a map whose keys are texts, got 3"),
    "no picture": ({"type": "create", "observation": {}}, "observation needs the field observation.images.top, got ''"),
    "picture": (
        {"type": "create", "observation": {"observation.images.top": np.zeros((1, 8, 8, 3), np.uint8)}},
        r"uint8 and the shape \(any, 16, 16, 3\), got the dtype uint8 and the shape \(1, 8, 8, 3\)",
    ),
    "task": (
        {"type": "create", "observation": SEEN | {"task": ["push", "lift"]}},
        "task is 1 texts of at most 2000 characters, got 2 of them",
    ),
    "long task": ({"type": "create", "observation": SEEN | {"task": "x" * 2001}}, "task is 1 texts of at most 2000"),
    "state": (
        {"type": "create", "observation": SEEN | {"observation.state": [[1.0]]}},
        r"observation.state has numbers of the shape \(1, 2\), got lists of the shape \(1, 1\)",
    ),
    "no session": ({"type": "step", "action": ZERO}, "step needs the field session, got 'type, action'"),
    "session": ({"type": "step", "session": "abc"}, "there is no session 'abc' on this connection; it has 1"),
    "branch": ({"type": "branch", "session": None}, "branch needs the field session"),
}
OF_A_SESSION = {
    "no action": ({"type": "step"}, "step needs the field action, got"),
    "both": ({"type": "step", "action": ZERO, "actions": [ZERO]}, "has one of action, actions, got action and actions"),
    "shape": (
        {"type": "step", "action": [0.0, 1.0]},
        r"numbers of the shape \(1, any\), got lists of the shape \(2,\)",
    ),
    "ragged": ({"type": "step", "action": [[0.0], [1.0, 2.0]]}, "got lists of several lengths"),
    "width": ({"type": "step", "action": [[0.0] * 3]}, "action has 2 numbers for each action, got 3"),
    "nan": ({"type": "step", "action": [[np.nan, 0.0]]}, "action has finite numbers"),
    "huge": ({"type": "step", "action": [[1e300, 0.0]]}, "action has finite numbers"),
    "text": ({"type": "step", "action": "left"}, r"action has numbers of the shape \(1, any\), got 'left'"),
    "truth values": ({"type": "step", "action": [[True, False]]}, "action has numbers of the shape"),
    "none": ({"type": "step", "actions": np.zeros((1, 0, 2), np.float32)}, r"actions has 1\.\.256 .* got 0"),
    "many": ({"type": "step", "actions": np.zeros((1, 257, 2), np.float32)}, r"actions has 1\.\.256 .* got 257"),
    "frames": ({"type": "step", "action": ZERO, "frames": "some"}, "frames is one of all, last, none, got 'some'"),
    "k": ({"type": "branch", "k": 0}, r"k is a whole number within 1\.\.16, got 0"),
    "k streams": ({"type": "branch", "k": 2, "seeds": [1]}, "seeds is a list of 2 whole numbers, got 1 of them"),
    "snapshot": ({"type": "restore", "snapshot": "x"}, "there is no snapshot 'x' of this session; it has 0"),
    "streams": ({"type": "reset", "starts": [0], "streams": [1]}, r"streams is a whole number within 0\.\.0, got 1"),
    "twice": ({"type": "reset", "starts": [0, 0], "streams": [0, 0]}, r"streams are different numbers, got \[0, 0\]"),
}


@pytest.mark.parametrize("name", [*MESSAGES, *OF_A_SESSION])
def test_a_bad_message_is_one_line_and_changes_nothing(url, name):
    with Wire(url) as wire:
        session = wire("create", starts=[0])["session"]
        message, said = MESSAGES.get(name) or OF_A_SESSION[name]
        if name in OF_A_SESSION:
            message = message | {"session": session}
        wire.socket.send(pack(message))
        reply = wire.receive()
        assert reply["type"] == "error"
        assert "\n" not in reply["error"]
        assert re.search(said, reply["error"]), reply["error"]
        assert wire("info", session=session)["frame"] == [0]


def test_bytes_that_are_no_message_are_one_line_too(wire):
    for data in (b"", b"\xc1", b"\x91" * 50, "text"):
        wire.socket.send(data)
        assert wire.receive()["type"] == "error"
    assert wire("info")["type"] == "info"


def test_without_data_and_without_a_judge():
    with served(small_world(), None) as url, Wire(url) as wire:
        assert (wire.about["starts"], wire.about["judge"]) == (0, False)
        assert "no data to start from" in wire("create", starts=[0])["error"]
        observation = {f"observation.images.{view}": np.zeros((1, 16, 16, 3), np.uint8) for view in ("top", "wrist")}
        session = wire("create", observation=observation | {"observation.state": ZERO})["session"]
        reply = wire("step", session=session, action=[[500.0, 0.0]])
        assert "reward" not in reply and top(reply).shape == (1, 16, 16, 3)


def test_a_stride_takes_one_action_held_or_all_of_them():
    world = small_world(stride=3)
    with served(world, None, starts()) as url, Wire(url) as wire:
        session = wire("create", starts=[0])["session"]
        held = wire("step", session=session, action=[[1.0, 2.0]])
        wire("reset", session=session, starts=[0])
        chunk = wire("step", session=session, action=[[1.0, 2.0] * 3])
        np.testing.assert_array_equal(top(held), top(chunk))
        assert "has 2 or 6 numbers for each action, got 4" in wire("step", session=session, action=[[0.0] * 4])["error"]
        assert wire.about["fps"] == pytest.approx(10 / 3)


def unsure(observation) -> Verdict:
    """Sure of success where the first state is small, unsure elsewhere; fails for a task called break."""
    if "break" in observation.task:
        raise RuntimeError("the judge\nbroke")
    sure = observation.states[:, 0] < 1e9
    return Verdict(torch.ones(len(sure)), sure & False, ~sure | True)


def test_a_judge_can_be_unsure_and_can_fail_without_harm():
    with served(small_world(), unsure, starts()) as url, Wire(url) as wire, Wire(url) as other:
        session = wire("create", starts=[0])["session"]
        assert wire("step", session=session, action=ZERO)["unsure"].tolist() == [True]
        observation = {f"observation.images.{view}": np.zeros((1, 16, 16, 3), np.uint8) for view in ("top", "wrist")}
        broken = other("create", observation=observation | {"observation.state": ZERO, "task": "break"}, batch=1)
        error = other("step", session=broken["session"], action=ZERO)["error"]
        assert error == "the server failed: RuntimeError: the judge broke"
        assert wire("step", session=session, action=ZERO)["type"] == "step"


def test_limits_are_named_and_what_is_given_back_can_be_used_again():
    limits = Limits(rows=4, sessions=3, snapshots=2, actions=4, reply_mb=1)
    with served(limits=limits) as url, Wire(url) as wire, Wire(url) as other:
        sessions = [wire("create", starts=[0])["session"] for _ in range(3)]
        assert "at most 3 sessions" in wire("create", starts=[0])["error"]
        assert "the server has 4 rows, 4 are taken, and a batch of 8" in other("create", starts=[0], batch=8)["error"]
        assert other("create", starts=[0])["type"] == "create"
        assert "4 are taken" in other("create", starts=[0])["error"]
        wire("close", session=sessions[0])
        assert other("create", starts=[0])["type"] == "create"
        for _ in range(2):
            assert wire("snapshot", session=sessions[1])["type"] == "snapshot"
        assert "at most 2 saved streams, it has 2 and this is of 1" in wire("snapshot", session=sessions[2])["error"]
        chunk = np.zeros((1, 5, 2), np.float32)
        assert "actions has 1..4" in wire("step", session=sessions[1], actions=chunk)["error"]
    with pytest.raises(ValueError, match=r"--limits\.rows is positive, got 0"):
        Limits(rows=0)


def test_a_reply_has_a_limit():
    with served(limits=Limits(reply_mb=1, actions=1000)) as url, Wire(url) as wire:
        session = wire("create", starts=[0])["session"]
        chunk = np.zeros((1, 700, 2), np.float32)
        assert (
            "a reply has at most 1 MB of frames, these would be 1 MB"
            in wire("step", session=session, actions=chunk)["error"]
        )
