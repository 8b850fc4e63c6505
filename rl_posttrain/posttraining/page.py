"""A post-training run as a self-contained page: words, films, curves, and every change with its interval."""

from collections.abc import Sequence
from pathlib import Path

from rl_posttrain.posttraining.changes import Change
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals
from worldmodel.display.words import span

COLUMNS = ("measure", "before", "after", "95% interval of the change", "verdict")
VERDICTS = {1: "better", -1: "worse", 0: "cannot be told"}


def write_page(
    introduction: str, sentences: Sequence[str], found: Sequence[Change], videos: Sequence[Path], out: Path
) -> None:
    """Write `report.html`.

    Args:
        introduction: What was done.
        sentences: What it means.
        found: The changes on held-out episodes.
        videos: Films of held-out episodes: truth, before and after.
        out: Folder of the run, with its `curve.png`.
    """
    page = Report("Post-training of a world model")
    page.text(introduction)
    page.meaning(sentences)
    page.heading("Films")
    page.text("From above: the recording, the dream before, the dream after.")
    for number, video in enumerate(videos):
        page.video(video, f"Held-out window {number}: truth, before and after")
    page.heading("Changes on held-out episodes")
    measured = [change for change in found if change.interval is not None and change.before]
    if measured:
        caption = "Change of each measure in percent of its value before, with 95% intervals"
        page.plots({caption: draw_intervals({"change": [_relative(change) for change in measured]}, "%", zero=True)})
    page.table(COLUMNS, [_row(change) for change in found])
    page.heading("Course of the run")
    caption = "Rewards (if there are any) above, measures on held-out episodes below, over updates"
    page.picture(out / "curve.png", caption, wide=True)
    page.write(out / "report.html")


def _relative(change: Change) -> Row:
    scale = 100 / abs(change.before)
    low, high = change.interval
    return Row(change.label.split(",")[0], (change.after - change.before) * scale, low * scale, high * scale)


def _row(change: Change) -> tuple[str, ...]:
    interval = "-" if change.interval is None else span(change.interval, "{:.3f}")
    return change.label, f"{change.before:.3f}", f"{change.after:.3f}", interval, VERDICTS[change.verdict]
