"""A changed plain folder opens right or is refused in one line; 1,000 are tried by `benchmarks/mutated_folders.py`."""

import numpy as np
import pytest
from plain_folders import assert_true
from plain_mutations import FORMS, MUTATIONS, try_mutated_folder, write_form

from worldmodel.data import open_episodes

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")


@pytest.mark.parametrize("form", FORMS)
def test_whole_folders_open(tmp_path, form):
    assert_true(open_episodes(write_form(tmp_path / "set", form)))


def test_mutated_folders_open_right_or_are_refused(tmp_path):
    results = [try_mutated_folder(np.random.default_rng(seed), tmp_path / str(seed)) for seed in range(25)]
    outcomes = [result for _, result in results]
    assert len({change for change, _ in results}) > 15
    assert 3 < outcomes.count("right") < 22
    assert set(MUTATIONS) >= {change.partition(": ")[2] for change, _ in results}
