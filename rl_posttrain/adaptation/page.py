"""An adaptation in words, and as a self-contained page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodel.display.html import Report
from worldmodel.display.words import sign_of, span

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


def write_page(report: Mapping[str, Any], file: Path) -> None:
    """Write the page of a report, see `meaning`."""
    page = Report("An adapted policy")
    page.text(f"{report['policy']}, adapted by its own rollouts; the frames that they reached were taken as goals.")
    page.meaning(meaning(report))
    page.heading("Rounds")
    page.text("The rollouts of a round are made before it learns, so those of round 1 show the old policy.")
    page.table(COLUMNS, [row(number, each) for number, each in enumerate(report["rounds"], 1)])
    page.write(file)


def row(number: int, found: Mapping[str, Any]) -> tuple[str, ...]:
    """A line of the table of rounds."""
    solved = "-" if found["success"] is None else f"{found['success']:.0%}"
    return str(number), str(found["episodes"]), solved, f"{found['loss']:.3f}"
