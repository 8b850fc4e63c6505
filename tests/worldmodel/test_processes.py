"""Several processes, one thread each, that begin together."""

import os
import threading
import time

import pytest
import torch

from worldmodel import processes
from worldmodel.processes import run_in_processes, wait_for_the_others


def meet(number: int, delay: float) -> tuple[int, int, int, float, float]:
    """Arrive `delay` seconds late; when this process arrived and when it went on."""
    time.sleep(delay)
    arrived = time.monotonic()
    wait_for_the_others()
    return number, os.getpid(), torch.get_num_threads(), arrived, time.monotonic()


def fail(message: str) -> None:
    """Fail before the meeting."""
    raise ValueError(message)


def test_all_processes_go_on_when_the_last_one_is_there():
    rows = run_in_processes(meet, [(7, 0.0), (8, 0.3)])
    numbers, pids, threads, arrived, left = zip(*rows, strict=True)
    assert numbers == (7, 8)
    assert threads == (1, 1)
    assert len({*pids, os.getpid()}) == 3
    assert min(left) >= max(arrived)


def test_nobody_waits_for_a_process_that_failed(monkeypatch):
    monkeypatch.setattr(processes, "_barrier", threading.Barrier(2))
    with pytest.raises(ValueError, match="no world here"):
        processes._call(fail, ("no world here",))
    with pytest.raises(threading.BrokenBarrierError):
        wait_for_the_others()


def test_a_process_alone_does_not_wait():
    wait_for_the_others()
