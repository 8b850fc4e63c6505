"""An adaptation in words, and as a self-contained page."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policy_eval.statistics.resampling import wilson_interval
from worldmodel.data import EpisodeSource
from worldmodel.data.video.write import write_video
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals
from worldmodel.display.words import sign_of, span
from worldmodel.dreams.film import side_by_side

COLUMNS = ("round", "rollouts so far", "success of its rollouts", "loss after it")


def meaning(report: Mapping[str, Any]) -> list[str]:
    """What was done, and what the trials say.

    Args:
        report: The contents of `adaptation.json`.
    """
    rounds, trials = report["rounds"], report["trials"]
    said = [f"{rounds[-1]['episodes']} real rollouts in {len(rounds)} rounds, {report['seconds']:.0f} s in all."]
    if trials is None:
        return [*said, "Whether the adapted policy is better was not measured: pass --trials."]
    interval = trials["low"], trials["high"]
    sign = sign_of(interval)
    verdict = {
        1: "The adapted policy is better",
        -1: "The adapted policy is worse",
        0: "It cannot be told which is better",
    }
    said.append(
        f"{verdict[sign]}: of {trials['n']} real trials {trials['clone']:.0%} succeed before and "
        f"{trials['adapted']:.0%} after (95% interval of the difference {span(interval, '{:+.2f}')})."
    )
    if report["kept"] == "clone":
        said.append("It does not succeed more often, so the old policy is kept.")
    return said


def write_page(report: Mapping[str, Any], rollouts: EpisodeSource, file: Path) -> None:
    """Write the page of a report, see `meaning`, with films of the first and of the last of its rollouts."""
    page = Report("An adapted policy")
    page.text(f"{report['policy']}, adapted by its own rollouts; the frames that they reached were taken as goals.")
    page.meaning(meaning(report))
    if report["trials"] is not None:
        page.plots(
            {"Real trials before and after, with 95% intervals": draw_intervals(rates(report["trials"]), "success")}
        )
    page.heading("Films")
    with tempfile.TemporaryDirectory() as folder:
        for name, episode in (("first", 0), ("last", len(rollouts) - 1)):
            film = Path(folder) / f"{name}.mp4"
            frames = rollouts.read(episode, 0, rollouts.lengths[episode]).frames
            write_video(film, side_by_side({name: frames}, rollouts.views), rollouts.fps)
            page.video(film, f"The {name} real rollout, of round {1 if episode == 0 else len(report['rounds'])}")
    page.heading("Rounds")
    page.text("The rollouts of a round are made before it learns, so those of round 1 show the old policy.")
    page.table(COLUMNS, [row(number, each) for number, each in enumerate(report["rounds"], 1)])
    page.write(file)


def rates(trials: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Success of both policies in the trials, with Wilson's intervals."""
    found = {}
    for name in ("clone", "adapted"):
        low, high = wilson_interval(trials[name], trials["n"])
        found[name] = [Row("success", trials[name], low, high)]
    return found


def row(number: int, found: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the table of rounds."""
    solved = "-" if found["success"] is None else f"{found['success']:.0%}"
    return str(number), str(found["episodes"]), solved, f"{found['loss']:.3f}"
