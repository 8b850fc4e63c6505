"""Several processes, one thread each, that begin together."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing

import pytest
import torch

from worldmodel import processes
from worldmodel.processes import (
    SIGNALS,
    StopRequest,
    run_in_processes,
    terminate_as_interrupt,
    undisturbed,
    wait_briefly,
    wait_for_the_others,
    work_through,
)
from worldmodel.processes.workers import Workers


def meet(number: int, delay: float) -> tuple[int, int, int, float, float]:
    """Arrive `delay` seconds late; when this process arrived and when it went on."""
    time.sleep(delay)
    arrived = time.monotonic()
    wait_for_the_others()
    return number, os.getpid(), torch.get_num_threads(), arrived, time.monotonic()


def fail(message: str) -> None:
    """Fail before the meeting."""
    raise ValueError(message)


@pytest.mark.slow
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


def test_the_first_signal_sets_a_flag_and_the_second_one_stops():
    before = [signal.getsignal(each) for each in SIGNALS]
    for each in SIGNALS:
        with StopRequest() as stop:
            assert not stop.requested
            os.kill(os.getpid(), each)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), each)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_launcher_passes_on_the_signal_that_a_process_has_already(monkeypatch, capfd):
    """A launched process takes it for one request; the first one alone says that it stops."""
    for index, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", index)
        with StopRequest() as stop:
            try:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:  # pytest itself would stop
                pytest.fail("the second signal ends the run")
            assert stop.requested
            stop.since -= 3
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr().err.count("stopping after this step") == said


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_waits_for_the_end_of_what_belongs_together():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with undisturbed():
            os.kill(os.getpid(), signal.SIGINT)
            done.append(1)
        done.append(2)
    assert done == [1]
    with StopRequest() as stop:
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            assert not stop.requested
        assert stop.requested


def test_another_thread_takes_no_signal_over():
    seen = []

    def look() -> None:
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def test_sigterm_is_an_interrupt_inside():
    """Whoever had a handler before, as the measurement of coverage has, gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    for handler in (signal.SIG_DFL, lambda number, frame: None):
        signal.signal(signal.SIGTERM, handler)
        try:
            with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
                os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == handler
        finally:
            signal.signal(signal.SIGTERM, before)


def double(number: int) -> int:
    """Negative numbers kill this process, 99 is a long piece of work, at 5 Ctrl-C is pressed in the terminal."""
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 99:
        time.sleep(60)
    if number == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return 2 * number


def no_start() -> None:
    """Nothing to do first."""


def test_calls_are_shared_by_processes_which_ctrl_c_does_not_reach():
    assert sorted(work_through(double, [3, 4, 5], workers=Workers(2), start=no_start)) == [(0, 6), (1, 8), (2, 10)]


@pytest.mark.parametrize("workers", [Workers(2), Workers(0, "ray")])
def test_nothing_is_started_for_nothing(workers):
    assert list(work_through(double, [], workers=workers, start=no_start)) == []


def test_a_killed_process_is_one_line():
    with pytest.raises(ValueError, match="a worker process was killed, perhaps for lack of memory"):
        list(work_through(double, [-1], workers=Workers(1), start=no_start))


def test_processes_end_at_once_when_the_work_is_left(capfd):
    children = set(multiprocessing.active_children())
    with closing(work_through(double, [1, 99, 99], workers=Workers(2), start=no_start)) as work:
        assert next(work) == (0, 2)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert set(multiprocessing.active_children()) <= children
    said = [line for line in capfd.readouterr().err.splitlines() if "no-data-collected" not in line]  # by coverage
    assert said == []


def test_threads_wait_briefly_unless_it_is_said_how_long(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "10000"
