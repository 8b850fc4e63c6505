"""Who is let in, and what happens to visitors who break the rules."""

import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from drawn_episodes import never
from served import Wire, served
from waiting import wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from worldmodel.dreams.verdict import Verdict
from worldmodel.streaming.state import Observation
from worldmodel.wire.limits import Limits
from worldmodel.wire.messages import pack
from worldmodel.wire.server import Door


def status(url: str, **options) -> int:
    """The HTTP status with which a connection is refused; 101 if it is not."""
    try:
        with Wire(url, **options):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_a_token_is_asked_for_in_either_form_of_the_header():
    with served(token="secret word") as url:
        sent = {
            None: 401,
            "Bearer secret word": 101,
            "bearer  secret word": 101,
            "Api-Key secret word": 101,
            "Basic secret word": 401,
            "Bearer secret wor": 401,
            "Bearer secret words": 401,
            "Bearer": 401,
            "secret word": 401,
        }
        found = {v: status(url, additional_headers={} if v is None else {"Authorization": v}) for v in sent}
        assert found == sent
        twice = [("Authorization", "Bearer secret word"), ("Authorization", "Bearer x")]
        assert status(url, additional_headers=twice) == 401


def test_pages_of_other_origins_are_refused():
    with served(origins=("https://lab.example",)) as url:
        assert status(url) == 101
        assert status(url, origin="https://lab.example") == 101
        assert status(url, origin="https://evil.example") == 403
        assert status(url, origin="null") == 403
    with served() as url:
        assert status(url, origin="http://127.0.0.1") == 403


def test_the_health_of_a_server_is_asked_without_a_token():
    with served(token="x") as url, urllib.request.urlopen(url.replace("ws:", "http:") + "/healthz") as reply:
        assert (reply.status, reply.read()) == (200, b"OK\n")


def test_connections_have_a_limit_and_make_room_for_others():
    with served(limits=Limits(connections=2)) as url:
        with Wire(url), Wire(url):
            assert status(url) == 503
        wait_until(lambda: status(url) == 101, "a connection that was closed no longer counts: it")


def test_a_message_that_is_too_large_ends_the_connection_and_no_other():
    with served(message_bytes=1000) as url, Wire(url) as other:
        with Wire(url) as wire:
            wire.socket.send(b"\x00" * 1001)
            with pytest.raises(ConnectionClosed, match="1009"):
                wire.receive()
        assert other("create", starts=[0])["type"] == "create"


def test_who_is_silent_is_shown_out_and_the_session_is_freed():
    with served(limits=Limits(idle_seconds=0.2)) as url:
        with Wire(url) as wire:
            wire("create", starts=[0])
            with pytest.raises(ConnectionClosed, match=r"idle for 0\.2 s"):
                wire.receive()
        with Wire(url) as wire:
            assert wire("info")["rows"] == 0


def test_a_session_that_nobody_uses_is_freed_and_another_goes_on():
    with served(limits=Limits(idle_seconds=2.0)) as url, Wire(url) as wire:
        forgotten, used = (wire("create", starts=[0])["session"] for _ in range(2))

        def is_freed() -> bool:
            assert wire("info", session=used)["frame"] == [0]
            return wire("info")["sessions"] < 2

        wait_until(is_freed)
        assert wire("info", session=used)["frame"] == [0]
        assert "there is no session" in wire("info", session=forgotten)["error"]


def test_who_does_not_read_holds_up_nobody_else():
    with served() as url, Wire(url) as slow, Wire(url) as wire:
        session = slow("create", starts=[0])["session"]
        for _ in range(30):
            slow.socket.send(pack({"type": "info", "session": session}))
        mine = wire("create", starts=[1])["session"]
        assert wire("step", session=mine, action=[[0.0, 0.0]])["type"] == "step"
        assert all(slow.receive()["type"] == "info" for _ in range(30))  # and nothing is lost


def test_who_leaves_frees_everything_even_without_goodbye():
    with served() as url, Wire(url) as watcher:
        wire = Wire(url)
        wire("create", starts=[0])
        assert watcher("info")["rows"] == 2
        wire.socket.socket.close()
        wait_until(lambda: watcher("info")["rows"] == 0, "the end of a broken connection")


def test_nothing_more_is_computed_for_who_has_left():
    calls = []

    def count(observation: Observation) -> Verdict:
        calls.append(len(observation.frames))
        return never(observation)

    with served(judge=count, limits=Limits(actions=5000)) as url, Wire(url) as watcher:
        with Wire(url) as wire:
            session = wire("create", starts=[0])["session"]
            chunk = np.zeros((1, 5000, 2), np.float32)  # more than ten seconds
            wire.socket.send(pack({"type": "step", "session": session, "actions": chunk, "frames": "none"}))
            wait_until(lambda: calls)
        wait_until(lambda: watcher("info")["rows"] == 0, "the end of a visitor who has left")
        time.sleep(0.1)  # the step that is being computed
        made = len(calls)
        time.sleep(0.1)
        assert 0 < made == len(calls)


def test_half_a_handshake_does_no_harm():
    with served() as url, Wire(url) as wire:
        for _ in range(5):
            open_socket = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
            open_socket.send(b"GET / HTTP/1.1\r\nHost")
            open_socket.close()
        assert wire("info")["type"] == "info"


def test_sessions_of_several_connections_share_a_forward():
    calls = []

    def count(observation: Observation) -> Verdict:
        calls.append(len(observation.frames))
        return never(observation)

    with served(judge=count, batch=4, limits=Limits(gather_ms=200.0)) as url:
        wires = [Wire(url) for _ in range(4)]
        sessions = [wire("create", starts=[i])["session"] for i, wire in enumerate(wires)]
        with ThreadPoolExecutor(4) as threads:

            def drive(i: int) -> None:
                for _ in range(5):
                    assert wires[i]("step", session=sessions[i], action=[[0.5, 0.5]])["type"] == "step"

            list(threads.map(drive, range(4)))
        assert 5 <= len(calls) <= 9  # the first steps may not meet
        assert set(calls) == {4}
        for wire in wires:
            wire.__exit__()


def test_nobody_waits_for_who_has_left():
    with served(batch=4, limits=Limits(gather_ms=60_000.0)) as url, Wire(url) as leaver, Wire(url) as wire:
        sessions = {each: each("create", starts=[0])["session"] for each in (leaver, wire)}
        leaver("step", session=sessions[leaver], action=[[0.0, 0.0]])
        leaver("close", session=sessions[leaver])
        assert wire("step", session=sessions[wire], action=[[0.0, 0.0]])["type"] == "step"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 70000}, r"--port is within 0\.\.65535, got 70000"),
        ({"token": ""}, "--token is a text of printable ASCII"),
        ({"token": "a\nb"}, "--token is a text of printable ASCII"),
    ],
)
def test_what_a_door_refuses(options, said):
    with pytest.raises(ValueError, match=said):
        Door(**{"host": "127.0.0.1", "port": 0, **options})


def test_a_server_for_others_without_a_token_is_open_to_all():
    assert Door("0.0.0.0", 0).open_to_all and Door("robot.example", 0).open_to_all
    assert not Door("0.0.0.0", 0, token="x").open_to_all
    assert not any(Door(host, 0).open_to_all for host in ("127.0.0.1", "::1", "localhost"))


def test_a_port_that_is_taken_is_an_error():
    with served() as url, pytest.raises(OSError), served(port=int(url.rpartition(":")[2])):
        pass


def test_connections_that_only_listen_get_the_first_message():
    with served() as url, connect(url, close_timeout=0.2) as opened:
        assert b"protocol" in opened.recv(60)
