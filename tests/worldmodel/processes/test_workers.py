"""What `--workers` means, and what a Ray cluster has room for."""

import os
import socket
import sys

import pytest

from worldmodel.processes.cluster import Worker, check_address, join, places
from worldmodel.processes.workers import ALONE, Workers, read_workers

pytest.importorskip("ray")


@pytest.mark.parametrize(
    ("option", "gpus", "device", "workers"),
    [
        (1, None, "cpu", ALONE),
        ("3", None, "cuda", Workers(3)),
        (0, None, "cpu", Workers(os.cpu_count() or 1)),
        ("ray", None, "cpu", Workers(0, "ray")),
        ("ray", None, "cuda", Workers(0, "ray", 1.0)),
        ("ray", 0.25, "cuda:1", Workers(0, "ray", 0.25)),
        ("ray", 0.0, "cuda", Workers(0, "ray", 0.0)),
        ("ray://head:10001", 2.0, "cpu", Workers(0, "ray://head:10001", 2.0)),
    ],
)
def test_workers_are_processes_or_a_cluster(option, gpus, device, workers):
    assert read_workers(option, gpus, device) == workers


@pytest.mark.parametrize(
    ("option", "gpus", "said"),
    [
        ("many", None, "--workers is a number of processes, ray, or ray://HOST:PORT, got 'many'"),
        ("ray://head", None, "ray, or ray://HOST:PORT, got 'ray://head'"),
        (-1, None, "--workers is at least 0, got -1"),
        (2, 0.5, "--gpus-per-worker goes with --workers ray, got --workers 2"),
        ("ray", -0.5, r"--gpus-per-worker is within 0\.\.1, or a whole number, got -0\.5"),
        ("ray", -1.0, r"--gpus-per-worker is within 0\.\.1, or a whole number, got -1\.0"),
        ("ray", 1.5, r"--gpus-per-worker is within 0\.\.1, or a whole number, got 1\.5"),
    ],
)
def test_other_workers_are_refused(option, gpus, said):
    with pytest.raises(ValueError, match=said):
        read_workers(option, gpus)


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert read_workers(2) == Workers(2)
    said = r"--workers ray needs the Python package ray, which is not installed: pip install 'worldmodel\[ray\]'"
    with pytest.raises(ValueError, match=said):
        read_workers("ray")


def test_a_worker_of_a_cluster_has_its_own_gpus():
    assert Workers(2).device("cuda:1") == "cuda:1"
    assert Workers(0, "ray", 0.5).device("cuda:1") == Workers(0, "ray", 0.5).device("cpu") == "cuda"
    assert Workers(0, "ray").device("cuda") == "cpu"


def test_one_process_alone_and_nothing_else_works_here():
    assert [each.alone for each in (Workers(1), Workers(2), Workers(0, "ray"))] == [True, False, False]


@pytest.mark.parametrize(
    ("resources", "gpus", "room"),
    [({"CPU": 6.0}, 0.0, 6), ({"CPU": 6.0, "GPU": 1.0}, 0.2, 5), ({"CPU": 2.0, "GPU": 8.0}, 1.0, 2)],
)
def test_a_cluster_has_room_for_as_many_workers_as_cpus_and_gpus_allow(resources, gpus, room):
    assert places(resources, Workers(0, "ray", gpus)) == room


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"GPU": 4.0}, "--workers ray: the Ray cluster has no CPU for a worker"),
        ({"CPU": 4.0}, "--gpus-per-worker 0.5: the Ray cluster has 0 GPUs"),
    ],
)
def test_a_cluster_without_room_is_refused(resources, said):
    with pytest.raises(ValueError, match=said):
        places(resources, Workers(0, "ray", 0.5))


def test_an_address_that_does_not_answer_is_named_at_once(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_address(Workers(0, f"ray://127.0.0.1:{port}"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_address(Workers(0, "ray"))
    with pytest.raises(ValueError, match=f"--workers ray://127.0.0.1:{port}: no Ray cluster answers at ray://127"):
        check_address(Workers(0, f"ray://127.0.0.1:{port}"))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(ValueError, match=f"--workers ray: no Ray cluster answers at RAY_ADDRESS=127.0.0.1:{port}"):
        check_address(Workers(0, "ray"))


def refuse(argument: object) -> None:
    """Raise the error of a user."""
    raise ValueError(f"no folder {argument}")


def begun(*seen: object) -> None:
    """Note where a worker was set up."""
    PLACES.append((os.getcwd(), *seen))


PLACES: list[tuple] = []


def test_a_worker_goes_to_the_folder_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inside").mkdir()
    worker = Worker(begun, (3,), str(tmp_path / "inside"))
    assert not PLACES  # errors of the set-up are those of a call
    assert worker.numbered(7, len, "four") == (7, 4)
    assert worker.numbered(8, len, "five!") == (8, 5)
    (where,) = PLACES
    assert PLACES.pop() == where == (str(tmp_path / "inside"), 3)
    with pytest.raises(ValueError, match=r"^no folder data$"):
        worker.call(refuse, "data")


def test_a_worker_without_that_folder_says_so_in_its_errors(tmp_path):
    before, missing = os.getcwd(), str(tmp_path / "missing")
    worker = Worker(begun, (), missing)
    assert worker.call(len, "") == 0 and PLACES.pop() == (before,)
    with pytest.raises(
        ValueError, match=rf"no folder data \(the node {socket.gethostname()} .* has no folder {missing}"
    ):
        worker.call(refuse, "data")


@pytest.mark.parametrize(("named", "asked"), [(None, ["auto", "local"]), ("local", ["local"])])
def test_a_cluster_that_does_not_start_is_told_in_one_line(monkeypatch, named, asked):
    """A running cluster is looked for first, unless a new one is asked for."""
    ray = pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if named:
        monkeypatch.setenv("RAY_ADDRESS", named)
    addresses = []

    def init(address: str, **options: object) -> None:
        addresses.append(address)
        raise ConnectionError("nothing runs") if address == "auto" else Exception("timed out\n  during startup")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        ValueError, match=r"^--workers ray: Ray did not start on this machine: timed out during startup$"
    ):
        join(Workers(0, "ray"))
    assert addresses == asked
