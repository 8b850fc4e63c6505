"""Calls on a Ray cluster of this machine; a cluster of two is in tests/policy_eval/ranking/test_cluster.py."""

import os
import subprocess
import sys

import pytest

ON_A_CLUSTER = """
import os
import ray
from worldmodel.processes import work_through
from worldmodel.processes.workers import read_workers

options = {"include_dashboard": False, "object_store_memory": 80_000_000, "log_to_driver": False}
ray.init(address="local", num_cpus=3, num_gpus=1, **options)
workers = read_workers("ray", 0.5)
print(sorted(work_through(os.getenv, ["CUDA_VISIBLE_DEVICES"] * 3, workers=workers, start=bool)))
print(len({pid for _, pid in work_through(eval, ["__import__('os').getpid()"] * 9, workers=workers, start=bool)}))
for begin in ({"start": bool}, {"start": int, "start_with": ("no start",)}):
    try:
        list(work_through(int, ["1", "no number"], workers=workers, **begin))
    except ValueError as error:
        print(error)
try:
    list(work_through(eval, ["__import__('os')._exit(1)"], workers=workers, start=bool))
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_workers_share_a_gpu_and_errors_are_those_of_the_calls():
    """Two workers for half a GPU each; a call that always kills its worker ends the work."""
    pytest.importorskip("ray")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", ON_A_CLUSTER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    gpus, processes, number, start, *said = done.stdout.splitlines()
    assert gpus == "[(0, '0'), (1, '0'), (2, '0')]" and int(processes) <= 2
    assert number.endswith("'no number'") and start.endswith("'no start'")
    lost = "a worker of the Ray cluster was lost for good (ActorDiedError), after 3 restarts"
    assert any(line.startswith(lost) for line in said)  # Ray's own lines come before or after it
