"""Keeping freed memory: one new start, the same process and arguments."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, sys
from worldmodel.training.malloc import keep_freed_memory
keep_freed_memory()
import torch
torch.set_num_threads(1)
torch.ones(10_000_000).add(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(10_000_000).add(1)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(os.getpid(), sys.argv[1], faults)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_freed_tensors_are_used_again():
    def faults(environment):
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "word"], stdout=subprocess.PIPE, text=True, env=environment
        )
        process, word, found = program.communicate()[0].split()
        assert (int(process), word) == (program.pid, "word")
        return int(found)

    usual = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    given_back = faults({**usual, "GLIBC_TUNABLES": ""})  # set already, so nothing happens
    assert faults(usual) < 0.1 * given_back
