"""Of several launched processes only the first one speaks."""

import pytest

from worldmodel.cli import SPREADS, main
from worldmodel.display.launched import check_launched, first_speaks


def test_only_training_runs_in_several_processes(monkeypatch, capsys):
    check_launched("rank", SPREADS)
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launched("clone", SPREADS)
    assert main(["info", "data"]) == 2
    said = "worldmodel info: runs in 1 process, 2 were launched; pretrain, posttrain, imagine, clone, judge"
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize(("index", "said"), [("0", "once\n"), ("1", "")])
def test_other_processes_print_nothing(index, said, monkeypatch, capsys):
    monkeypatch.setenv("RANK", index)
    with first_speaks():
        print("once")
    assert capsys.readouterr().out == said


def test_the_first_process_tells_of_a_mistake_first(monkeypatch):
    """The others wait for a moment, in which the launcher ends them."""
    waited = []
    monkeypatch.setattr("worldmodel.display.launched.time.sleep", waited.append)
    for index, expected in (("0", []), ("1", [5.0])):
        monkeypatch.setenv("RANK", index)
        with pytest.raises(ValueError, match="no such file"), first_speaks():
            raise ValueError("no such file")
        assert waited == expected
