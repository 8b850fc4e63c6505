"""A changed HDF5 set opens right or is refused in one line; 1,000 are tried by `benchmarks/mutated_folders.py`."""

import random
import shutil

import h5py
import numpy as np
import pytest
from hdf5_sets import ACTIONS, damage_hdf5_set, hdf5_faults, write_hdf5_set

from worldmodel.data.formats import open_set
from worldmodel.data.options import Request


@pytest.fixture(scope="module", params=["robomimic", "ALOHA"])
def whole(request, tmp_path_factory):
    return write_hdf5_set(tmp_path_factory.mktemp("sets") / request.param, request.param)


def opened(folder, done="", **options):
    source = open_set(folder, Request(**options))
    assert hdf5_faults(source, done) == [], done
    return source


def test_whole_sets_open(whole):
    assert (opened(whole).action_dim, opened(whole).views) == (4, ("top", "wrist"))


@pytest.mark.slow
def test_changed_sets_open_right_or_are_refused(whole, tmp_path):
    ends, changes = [], set()
    for seed in range(40):
        folder = shutil.copytree(whole, tmp_path / str(seed))
        done = damage_hdf5_set(random.Random(seed), folder, whole.name)
        changes.add(done.partition(":")[0])
        for skip_broken in (False, True):
            try:
                opened(folder, done, skip_broken=skip_broken)
                ends.append("right")
            except ValueError as error:
                assert str(error).startswith(str(folder)) and "\n" not in str(error), done
                ends.append("refused")
        shutil.rmtree(folder)
    assert len(changes) > 7
    assert 10 < ends.count("right") < 70


def test_a_shift_by_a_row_is_found(whole, tmp_path):
    """The check itself fails where actions are shifted."""
    folder = shutil.copytree(whole, tmp_path / "set")
    file, group = (
        (folder / "demos.hdf5", "data/demo_1/") if whole.name == "robomimic" else (folder / "episode_1.hdf5", "")
    )
    with h5py.File(file, "r+") as content:
        values = content[group + ACTIONS[whole.name]]
        values[...] = np.roll(values[()], 1, 0)
    assert hdf5_faults(open_set(folder, Request())) == ["episode 1: the actions are others"]
