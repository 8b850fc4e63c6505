"""The one thread that computes."""

import torch

from worldmodel.wire.turns import Turns


def test_the_thread_that_dreams_has_its_own_number_of_helpers():
    here = torch.get_num_threads()
    try:
        turns = Turns(0.0, threads=here + 1)
        assert turns.thread.submit(torch.get_num_threads).result() == here + 1
        turns.thread.shutdown()
        assert Turns(0.0).thread.submit(torch.get_num_threads).result() == torch.get_num_threads()
    finally:
        torch.set_num_threads(here)
