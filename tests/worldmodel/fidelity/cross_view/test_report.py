"""The agreement of cameras in the fidelity report: table, plot, words, and the command."""

import json

import pytest
from drawn_episodes import DrawnEpisodes, tiny_world
from matching import CrossedWorld, grey_episodes, twin_matcher
from places import DATA
from rich.console import Console

from worldmodel.cli import main
from worldmodel.fidelity.meaning import meaning
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.fidelity.page import plots
from worldmodel.fidelity.report import CROSS_VIEW, print_fidelity
from worldmodel.fidelity.shifted import shifted_table

SETTINGS = {"horizon": 1, "num_steps": 1, "starts": 1, "alterations": (), "matcher": twin_matcher()}
SOURCE = grey_episodes()


@pytest.fixture(scope="module")
def copied():
    """The report on a fresh world, which copies the last frame, so that its cameras agree."""
    return measure_fidelity(tiny_world(), SOURCE, **SETTINGS)


def test_dreams_and_recordings_are_scored(copied):
    assert copied["cross_view"] == {"dream": {"share": {"1": 1.0}}, "recording": {"share": {"1": 1.0}}}
    assert copied["n"]["cross_view"]["dream"]["share"]["1"] == 6
    assert copied["metadata"]["cross_view"][0]["fingerprint"] == "other"
    crossed = measure_fidelity(CrossedWorld(tiny_world().config).eval(), SOURCE, **SETTINGS)
    share = crossed["cross_view"]["dream"]["share"]["1"]
    assert share < 0.7 and crossed["cross_view"]["recording"]["share"]["1"] == 1.0
    low, high = crossed["intervals"]["cross_view"]["dream"]["share"]["1"]
    assert low <= share <= high


def test_windows_are_compared_over_all_batches(copied):
    assert measure_fidelity(tiny_world(), SOURCE, batch=4, **SETTINGS)["cross_view"] == copied["cross_view"]
    alone = measure_fidelity(tiny_world(), DrawnEpisodes([9]), **SETTINGS)
    assert alone["cross_view"]["dream"]["share"] == {"1": None}
    assert "cross_view" not in measure_fidelity(tiny_world(), DrawnEpisodes([9]), **{**SETTINGS, "matcher": None})


def test_a_matcher_that_knows_the_episodes_is_refused():
    with pytest.raises(ValueError, match=r"cross-view matcher: episodes 0 of other are to be measured"):
        measure_fidelity(tiny_world(), grey_episodes(name="other"), **SETTINGS)
    with pytest.raises(ValueError, match="views is"):
        source = DrawnEpisodes([14, 14], views=("top", "side"))
        measure_fidelity(tiny_world(views=("top", "side")), source, **SETTINGS)


def test_it_is_shown_in_table_and_plot(copied):
    console = Console(record=True, width=140)
    print_fidelity(copied, console)
    rows = console.export_text().splitlines()
    shown = next(number for number, row in enumerate(rows) if CROSS_VIEW in row)
    assert rows[shown].split()[-3:] == ["noticed", "dream", "1.000"]
    assert rows[shown + 1].split() == ["recording", "1.000"]
    assert plots(copied)[CROSS_VIEW].startswith(b"\x89PNG")
    console.print(shifted_table({**copied, "shifted": {"camera": copied}}))
    assert CROSS_VIEW in console.export_text()


def cross_view(dream, recording=(0.9, 0.96)):
    """A report with these intervals at 10 frames."""
    base = {"cameras": {}, "copy_last": {}, "intervals": {"cameras": {}, "copy_last": {}}}
    ends = {"dream": dream, "recording": recording}
    base["cross_view"] = {k: {"share": {"10": None if v is None else sum(v) / 2}} for k, v in ends.items()}
    base["intervals"]["cross_view"] = {k: {"share": {"10": v}} for k, v in ends.items()}
    return base


@pytest.mark.parametrize(
    ("dream", "words"),
    [
        ((0.88, 0.94), "The cameras tell one story: 10 frames ahead, 91% of the swaps"),
        ((0.7, 0.8), "The cameras tell one story, but less well than recorded ones: 10 frames ahead, 75% of"),
        ((0.4, 0.6), "It cannot be told whether the cameras tell one story: 10 frames"),
        ((0.2, 0.4), "The cameras do not tell one story: 10 frames ahead, 30% of"),
        (None, "It was not measured whether the cameras tell one story"),
    ],
)
def test_it_is_said_in_words(dream, words):
    said = meaning(cross_view(dream))[-1]
    assert said.startswith(words)
    if dream is not None:
        assert said.endswith("in the recordings it is 93%, by chance it would be 50%.")


def test_one_episode_has_no_interval_in_words():
    report = cross_view((0.8, 0.9))
    report["intervals"]["cross_view"]["dream"]["share"]["10"] = None
    assert "too few for an interval" in meaning(report)[-1]


@pytest.mark.slow
def test_the_command_trains_saves_and_loads(tmp_path, capsys):
    tiny_world(size=(64, 64)).save(tmp_path / "world")
    measured, others = DATA / "lerobot_v30_pusht", DATA / "lerobot_v21_pusht"
    out = tmp_path / "first" / "fidelity.json"
    common = ["fidelity", "--world", str(tmp_path / "world"), "--data", str(measured), "--starts", "1"]
    common += ["--horizon", "1", "--alterations", "hold", "--device", "cpu"]
    trained = [*common, "--cross-view", str(others), "--cross-view-steps", "2", "--out", str(out)]
    assert main(trained) == 0
    first = json.loads(out.read_text())["cross_view"]
    assert (out.parent / "cross-view" / "matcher.json").is_file()
    assert main(trained) == 2
    again = tmp_path / "second" / "fidelity.json"
    assert main([*common, "--cross-view", str(out.parent / "cross-view"), "--out", str(again)]) == 0
    assert json.loads(again.read_text())["cross_view"] == first
    assert not (again.parent / "cross-view").exists()
    assert main([*common, "--cross-view", str(measured)]) == 2
    assert "are to be measured" in capsys.readouterr().err
