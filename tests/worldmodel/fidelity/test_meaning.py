"""The sentences about a fidelity report, one for each verdict."""

import base64
import re

import pytest
from drawn_episodes import DrawnEpisodes, tiny_world

from worldmodel.fidelity.meaning import meaning
from worldmodel.fidelity.measure import measure_fidelity
from worldmodel.fidelity.page import plots, table, write_page


def report(dream=(27.0, 28.0), copy=(22.0, 23.0), gaps=None):
    """A report of one camera at the horizons 1 and 50, with these intervals at 50."""

    def line(interval):
        return {"1": 40.0, "50": sum(interval) / 2}, {"1": [39.0, 41.0], "50": list(interval)}

    dreams, copies = line(dream), line(copy)
    gaps = {"shuffled": (4.0, 6.0)} if gaps is None else gaps
    measured = {kind: line(interval) for kind, interval in gaps.items()}
    return {
        "cameras": {"top": {"psnr": dreams[0]}},
        "copy_last": {"top": {"psnr": copies[0]}},
        "action_following": {kind: {"psnr_gap": values} for kind, (values, _) in measured.items()},
        "intervals": {
            "cameras": {"top": {"psnr": dreams[1]}},
            "copy_last": {"top": {"psnr": copies[1]}},
            "action_following": {kind: {"psnr_gap": ends} for kind, (_, ends) in measured.items()},
        },
    }


@pytest.mark.parametrize(
    ("dream", "words"),
    [
        ((27.0, 28.0), "50 frames ahead, the dreams of camera top are closer to the truth than a copy of the last"),
        ((20.0, 21.0), "50 frames ahead, the dreams of camera top are worse than a copy of the last frame"),
        ((21.0, 24.0), "it cannot be told whether the dreams of camera top are better than a copy"),
    ],
)
def test_dreams_are_compared_with_copies(dream, words):
    pictures, _ = meaning(report(dream))
    assert words in pictures
    assert f"(PSNR {sum(dream) / 2:.1f} dB; the copy has 22.5 dB)" in pictures
    assert ("the 95% intervals overlap" in pictures) == ("cannot be told" in pictures)


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (
            {"shuffled": (4.0, 6.0)},
            "The dreams follow the actions: 50 frames ahead, shuffled actions cost 5.0 dB of PSNR (95% interval 4.0 to",
        ),
        (
            {"shuffled": (4.0, 6.0), "hold": (1.0, 2.0)},
            "The dreams follow the actions: 50 frames ahead, other actions cost at least 1.5 dB",
        ),
        (
            {"shuffled": (4.0, 6.0), "hold": (-1.0, 2.0)},
            "It cannot be told whether the dreams follow the actions: 50 frames ahead, actions that hold still",
        ),
        (
            {"mirrored": (-3.0, -1.0)},
            "The dreams do not follow the actions: 50 frames ahead, mirrored actions bring them closer to the truth",
        ),
        ({}, "It was not measured whether the dreams follow the actions."),
    ],
)
def test_the_weakest_gap_says_whether_actions_are_followed(gaps, words):
    _, actions = meaning(report(gaps=gaps))
    assert actions.startswith(words)
    assert ("includes 0" in actions) == ("cannot be told" in actions)


def test_one_episode_proves_nothing():
    found = report()
    for tree in (found["intervals"]["cameras"]["top"], found["intervals"]["action_following"]["shuffled"]):
        for ends in tree.values():
            ends["50"] = None
    pictures, actions = meaning(found)
    assert "cannot be told" in pictures and "too few for an interval" in pictures
    assert "cannot be told" in actions and "too few for an interval" in actions


@pytest.mark.slow
def test_the_page_of_a_world_that_copies(tmp_path):
    source = DrawnEpisodes([14, 13])
    measured = measure_fidelity(tiny_world(), source, horizon=5, starts=1)
    write_page(measured, tiny_world(), source, 1, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "it cannot be told whether the dreams of cameras top and wrist are better than a copy" in page
    assert "the first measured episode, 1, 5 frames" in page
    film = re.search(r'data:video/mp4;base64,([^"]+)"', page)
    assert b"ftyp" in base64.b64decode(film[1])[:12]
    assert page.count("data:image/png;base64,") == len(plots(measured)) == 5  # PSNR and SSIM of 2 cameras, and the gap
    columns, rows = table(measured)
    assert columns == ["metric", "model", "1", "5", "codec"]
    assert [row[0] for row in rows[:2]] == ["top: PSNR, dB"] * 2


def test_a_world_without_actions_says_so():
    world = tiny_world(relative=False, action_dim=0, state_dim=0)
    measured = measure_fidelity(world, DrawnEpisodes([13, 13]), horizon=1, starts=1)
    assert meaning(measured)[-1] == "It was not measured whether the dreams follow the actions."
