"""Visitors who break every rule, and a server that has to survive them: `python benchmarks/serve.py abuse`.

Malformed messages of many kinds from a fixed seed, more connections than are allowed, slow readers, huge frames, wrong
tokens, and sessions of others; in between and afterwards an honest visitor checks that the dream is still the same.
The server's resident memory is measured before and after, when the first honest visitors have been there.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
from serve import Served, server
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect as open_websocket

from worldmodel import connect
from worldmodel.model.card import table
from worldmodel.wire.client import RemoteSession
from worldmodel.wire.messages import pack, unpack

TOKEN = "a token"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Abuse(Served):
    """How many visitors break which rule."""

    messages: int = 10_000
    """Malformed messages."""
    connections: int = 200
    """Connections at a time, more than are allowed."""
    seed: int = 0
    """Seed of the malformed messages."""


def open_raw(url: str, **options: object) -> contextlib.AbstractContextManager:
    """A connection of nothing but websockets."""
    return open_websocket(
        url, additional_headers=HEADERS, compression=None, max_size=None, close_timeout=0.2, **options
    )


def resident_mb(process: int) -> float:
    """Resident memory of a process in MB, as Linux counts it."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def malformed(rng: np.random.Generator, session: str) -> bytes | str:
    """One malformed message of a random kind."""
    array = {b"__ndarray__": True, b"data": b"\x00" * 16, b"dtype": "<f4", b"shape": [2, 2]}
    good = {"type": "step", "session": session, "action": array}

    def flipped() -> bytes:
        data = bytearray(msgpack.packb(good))
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        return bytes(data)

    def cut() -> bytes:
        data = msgpack.packb(good)
        return data[: rng.integers(len(data))]

    def fields() -> bytes:
        values = [None, True, -1, 1 << 62, 1.5, float("nan"), "x" * 300, b"\xff", [], {}, [[]], [[1e300]], array]
        names = ["type", "session", "action", "actions", "starts", "seeds", "observation", "batch", "k", "id", "frames"]
        kinds = ["create", "step", "reset", "branch", "snapshot", "restore", "forget", "close", "info", "jump"]
        chosen = {str(name): values[rng.integers(len(values))] for name in rng.choice(names, rng.integers(1, 6))}
        return msgpack.packb({**chosen, "type": kinds[rng.integers(len(kinds))], "nonsense": 1})

    kinds: list[Callable[[], bytes | str]] = [
        lambda: rng.bytes(int(rng.integers(200))),
        flipped,
        cut,
        fields,
        lambda: "a text " * int(rng.integers(50)),
        lambda: b"\x91" * int(rng.integers(13, 2000)) + b"\x00",
        lambda: b"\xdd" + struct.pack(">I", int(rng.integers(1 << 32))) * int(rng.integers(1, 50)),
        lambda: b"\xdd\x00\x02\x00\x00" + b"\x00" * 131072,
        lambda: msgpack.packb({**good, "action": {**array, b"dtype": "|O"}}),
        lambda: msgpack.packb({**good, "action": {**array, b"shape": [int(n) for n in rng.integers(-9, 1 << 40, 3)]}}),
        lambda: msgpack.packb({**good, "action": msgpack.ExtType(int(rng.integers(100)), b"pickle")}),
    ]
    return kinds[rng.integers(len(kinds))]()


def send_malformed(url: str, config: Abuse) -> dict[str, int]:
    """All malformed messages over one connection after the other; counts the replies."""
    rng, counts = np.random.default_rng(config.seed), {"errors": 0, "answered": 0, "closed": 0}
    sent = 0
    while sent < config.messages:
        with contextlib.suppress(ConnectionClosed), open_raw(url) as opened:
            opened.recv(10)
            opened.send(pack({"type": "create", "starts": [0], "batch": 1}))
            session = unpack(opened.recv(30)).get("session", "none")
            for _ in range(min(500, config.messages - sent)):
                sent += 1
                opened.send(malformed(rng, session))
                try:
                    reply = unpack(opened.recv(30))
                except ConnectionClosed:
                    counts["closed"] += 1
                    raise
                counts["errors" if reply["type"] == "error" else "answered"] += 1
    return counts


def crowd(url: str, config: Abuse) -> dict[str, int]:
    """Many connections at a time: how many were let in, and how many were refused."""
    with contextlib.ExitStack() as stack:
        refused = 0
        for _ in range(config.connections):
            try:
                stack.enter_context(open_raw(url))
            except InvalidHandshake:
                refused += 1
        return {"let_in": config.connections - refused, "refused": refused}


def slow_readers(url: str, number: int = 20) -> None:
    """Visitors who ask for many frames, never read, and leave without goodbye."""
    sockets = []
    for _ in range(number):
        opened = open_raw(url).__enter__()
        opened.recv(10)
        opened.send(pack({"type": "create", "starts": [0], "batch": 1}))
        reply = unpack(opened.recv(60))
        if "session" in reply:
            actions = np.zeros((1, 60, len(unpack_about(opened)["action_low"])), np.float32)
            for _ in range(5):
                opened.send(pack({"type": "step", "session": reply["session"], "actions": actions}))
        sockets.append(opened)
    time.sleep(2)
    for opened in sockets:
        opened.socket.shutdown(socket.SHUT_RDWR)
        opened.socket.close()


def unpack_about(opened: object) -> dict:
    """What the server says about its world."""
    opened.send(pack({"type": "info"}))
    return unpack(opened.recv(30))


def huge_frames(url: str) -> int:
    """Messages over the limit, by their content and by what their head claims; how many connections were ended."""
    ended = 0
    for size in (1 << 22, 1 << 24, 1 << 26):
        with open_raw(url) as opened:
            opened.recv(10)
            try:
                opened.send(b"\x00" * size)
                opened.recv(30)
            except (ConnectionClosed, OSError):
                ended += 1
    with open_raw(url) as opened:
        opened.recv(10)
        opened.socket.sendall(b"\x82\xff" + struct.pack(">Q", 1 << 60) + b"\x00" * 100)
        try:
            opened.recv(30)
        except ConnectionClosed:
            ended += 1
    return ended


def wrong_tokens(url: str, number: int = 200) -> int:
    """How many wrong tokens were refused."""
    refused = 0
    for index in range(number):
        token = None if not index else {"Authorization": f"Bearer {TOKEN[: index % len(TOKEN)]}{'x' * (index % 7)}"}
        try:
            with open_websocket(url, additional_headers=token, compression=None, close_timeout=0.2):
                pass
        except InvalidHandshake:
            refused += 1
    return refused


def sessions_of_others(url: str, session: str, rng: np.random.Generator, number: int = 500) -> int:
    """How many attempts on the session of somebody else, or on a guessed one, were answered without an error."""
    served = 0
    with open_raw(url) as opened:
        opened.recv(10)
        for _ in range(number):
            kind = ["step", "reset", "branch", "snapshot", "restore", "forget", "close", "info"][rng.integers(8)]
            name = session if rng.random() < 0.5 else rng.bytes(12).hex()
            opened.send(pack({"type": kind, "session": name, "action": [[0.0, 0.0]], "starts": [0], "snapshot": name}))
            served += unpack(opened.recv(30))["type"] != "error"
    return served


def wait_for_rest(url: str) -> float:
    """Seconds until the server has finished what the visitors wanted who have left."""
    began = time.monotonic()
    with open_raw(url) as opened:
        opened.recv(10)
        while unpack_about(opened)["rows"] and time.monotonic() - began < 120:
            time.sleep(0.5)
    return round(time.monotonic() - began, 1)


def film(url: str, steps: int = 8) -> np.ndarray:
    """The frames of an honest visitor: always the same."""
    env, rng = connect(url, token=TOKEN), np.random.default_rng(1)
    first, _ = env.reset(options={"start": 0})
    name = next(name for name in first if name.startswith("observation.images."))
    box = env.action_space
    frames = [env.step(rng.uniform(box.low, box.high))[0][name] for _ in range(steps)]
    env.close()
    return np.stack(frames)


def abuse(config: Abuse) -> dict:
    """Everything, with honest visitors in between; prints and returns the figures."""
    options = ("--token", TOKEN, "--batch", "1", "--limits.rows", "32")
    with server(config, *options) as (url, process):
        honest = film(url)
        crowd(url, config)  # buffers and threads that the first visitors make are not counted
        sane = [np.array_equal(film(url), honest)]
        before = resident_mb(process)
        grown = {}

        def note(what: str) -> None:
            grown[what] = round(resident_mb(process) - before, 1)

        victim = connect(url, token=TOKEN)
        victim.reset(options={"start": 0})
        figures: dict = {"messages": send_malformed(url, config)}
        sane.append(np.array_equal(film(url), honest))
        note("malformed messages")
        figures |= {"crowd": crowd(url, config)}
        note("crowd")
        slow_readers(url)
        note("slow readers")
        figures |= {"huge_frames_ended": huge_frames(url), "wrong_tokens_refused": wrong_tokens(url)}
        note("huge frames, wrong tokens")
        held: RemoteSession = victim.dreams.session
        figures["served_to_others"] = sessions_of_others(url, held.name, np.random.default_rng(config.seed))
        sane.append(np.array_equal(film(url), honest))
        figures["victim_frame"] = held.ask("info")["frame"]  # nobody has stepped it
        victim.close()
        figures["rest_seconds"] = wait_for_rest(url)
        sane.append(np.array_equal(film(url), honest))
        note("end")
        figures |= {"alive": True, "dreams_unchanged": all(sane), "before_mb": before, "grown_mb": grown}
    print(markdown(figures))
    return figures


def markdown(figures: dict) -> str:
    """The table that is printed."""
    sent = figures["messages"]
    rows = [
        ["malformed messages answered with an error", f"{sent['errors']} of {sum(sent.values())}"],
        ["connections let in, refused", f"{figures['crowd']['let_in']}, {figures['crowd']['refused']}"],
        ["huge frames that ended their connection", f"{figures['huge_frames_ended']} of 4"],
        ["wrong tokens refused", f"{figures['wrong_tokens_refused']} of 200"],
        ["attempts on sessions of others that were served", f"{figures['served_to_others']} of 500"],
        ["honest dreams unchanged in between", "yes" if figures["dreams_unchanged"] else "NO"],
        *([f"memory above before: {when}, MB", f"{grown:.1f}"] for when, grown in figures["grown_mb"].items()),
    ]
    return table(["figure", "measured"], rows)
