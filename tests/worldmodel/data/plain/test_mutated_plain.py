"""A changed plain folder opens right or is refused in one line; 1,000 are tried by `benchmarks/mutated_folders.py`."""

import re

import numpy as np
import pytest
from plain_folders import LENGTHS, actions, assert_true, csv_text
from plain_mutations import FORMS, MUTATIONS, plain_faults, try_mutated_folder, width_of, write_form

from worldmodel.data import open_episodes
from worldmodel.data.formats import open_set
from worldmodel.data.options import Request

pytestmark = pytest.mark.filterwarnings("ignore::worldmodel.data.formats.DataWarning")


@pytest.mark.parametrize("form", FORMS)
def test_whole_folders_open(tmp_path, form):
    folder = write_form(tmp_path / "set", form)
    if FORMS[form]:
        assert_true(open_episodes(folder), width=width_of(form))
    else:
        with pytest.raises(ValueError, match="blank"):
            open_episodes(folder)


@pytest.mark.slow
def test_mutated_folders_open_right_or_are_refused(tmp_path):
    results = [try_mutated_folder(np.random.default_rng(seed), tmp_path / str(seed)) for seed in range(40)]
    outcomes = [result for _, result in results]
    assert len({change.partition(": ")[2] for change, _ in results}) > 20
    assert 5 < outcomes.count("right") < 35
    refusals = [result for result in outcomes if result not in ("right", "unlabelled")]
    assert (
        len({re.sub(r"\d+", "", refusal.partition(str(tmp_path))[2]) for refusal in refusals}) > 5
    )  # for many reasons


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_every_mutation_changes_the_folder(tmp_path, name):
    """A mutation that changed nothing would prove nothing."""
    changed = 0
    for form in ("pandas", "time"):
        for seed in range(3):
            folder = write_form(tmp_path / f"{form} {seed}", form)
            before = contents(folder)
            MUTATIONS[name](np.random.default_rng(seed), folder)
            changed += contents(folder) != before
    assert changed > 3


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_shift_by_a_row_is_found(tmp_path):
    """The check itself fails where actions are shifted, are another column or are missing without a word."""
    folder = write_form(tmp_path / "set", "pandas")
    assert plain_faults(open_set(folder, Request()), "pandas") == []
    for change in (lambda v: np.roll(v, 1, 0), lambda v: v[:, [1, 0, 2, 3]]):
        (folder / "episode_1/actions.csv").write_text(csv_text(change(actions(1, LENGTHS[1]))))
        assert plain_faults(open_set(folder, Request()), "pandas")
    for file in folder.rglob("actions.csv"):
        file.unlink()
    assert plain_faults(open_set(folder, Request()), "pandas")
