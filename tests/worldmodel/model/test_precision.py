"""One rule for the device of every command."""

import os

import pytest
import torch
from fresh_python import python

from worldmodel.model.precision import choose_device, describe


def test_auto_is_cuda_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:7", "", "meta"])
def test_what_is_not_there_is_named_beside_what_is(name):
    with pytest.raises(ValueError, match=r"choose auto or cpu(, cuda:\d)*(, mps)?$") as caught:
        choose_device(name)
    assert str(caught.value).startswith(f"device {name!r}")


def test_a_device_is_described_with_its_threads_and_number_format(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert describe(torch.device("cpu")) in ("cpu (1 thread, fp32)", "cpu (1 thread, bf16)")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe(torch.device("cpu")) in ("cpu (2 threads, fp32)", "cpu (2 threads, bf16)")


@pytest.mark.slow
def test_commands_within_a_command_say_the_device_once():
    code = "from worldmodel.model.precision import command_device as d; d('auto'); d('cpu'); d('cpu')"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = python("-c", code, env=environment)
    assert done.stdout.count("\n") == 1 and done.stdout.startswith("device: cpu ("), done
