"""Call a function in several processes that `accelerate` has joined by gloo, as under `accelerate launch`."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from worldmodel.model.precision import full_precision


def in_processes(function: Callable[[], Any], number: int = 2) -> Sequence[Any]:
    """What `function` returns in each of `number` new processes, in fp32; it may be a closure: they are forked.

    Raises:
        AssertionError: It raised something in one of them; the message has the traceback.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe() for _ in range(number)]
    children = [
        context.Process(target=_child, args=(function, index, number, port, mine))
        for index, (_, mine) in enumerate(ends)
    ]
    for child in children:
        child.start()
    found = []
    for end, child in zip(ends, children, strict=True):
        while not end[0].poll(0.05):
            assert child.is_alive() or end[0].poll(0.1), f"a process ended with status {child.exitcode}"
        found.append(pickle.loads(end[0].recv_bytes()))
    for child in children:
        child.join(10)
        child.kill()
    failed = [said for worked, said in found if not worked]
    assert not failed, "\n".join(failed)
    return [result for _, result in found]


def _child(function: Callable[[], Any], index: int, number: int, port: int, end: Connection) -> None:
    numbers = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": number, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in numbers.items()}, MASTER_ADDR="localhost")
    for state in (AcceleratorState, PartialState, GradientState):
        state._shared_state.clear()
    torch.set_num_threads(1)  # makes PyTorch's threads anew, which two threads of a fork must not do at once
    try:
        with full_precision():
            PartialState(cpu=True)
            found = True, function()
    except BaseException:
        found = False, traceback.format_exc()
    end.send_bytes(pickle.dumps(found))  # plain: the tensors of a process that ends cannot be shared
    os._exit(0)
