import runpy

import pytest
from places import BENCHMARKS

NUMBER = 28  # seven of each layout


@pytest.mark.slow
def test_damaged_folders_open_right_or_are_refused():
    counts = runpy.run_path(str(BENCHMARKS / "mutated_folders.py"))["run"](NUMBER, seed=5)
    assert len(counts) >= 4
    total = sum(counts.values(), type(next(iter(counts.values())))())
    assert total["FAULT"] == total["skip-broken FAULT"] == 0
    ends = ("opened", "opened with notes", "refused")
    assert sum(total[end] for end in ends) == sum(total[f"skip-broken {end}"] for end in ends) == NUMBER
    assert min(total[end] for end in ends) > 0 and total["skip-broken refused"] < total["refused"]


@pytest.mark.slow
def test_a_reader_that_shifts_actions_is_a_fault(monkeypatch):
    script = runpy.run_path(str(BENCHMARKS / "mutated_folders.py"))
    opened = script["open_set"]

    def shifted(folder, request):
        source = opened(folder, request)
        for rows in source.rows:
            rows.actions[:-1] = rows.actions[1:]
        return source

    monkeypatch.setitem(script["run"].__globals__, "open_set", shifted)
    total = sum(script["run"](8, seed=5).values(), type(next(iter(script["run"](0, seed=5).values())))())
    assert total["FAULT"] > 0 and total["opened"] == 0
