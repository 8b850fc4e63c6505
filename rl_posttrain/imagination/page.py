"""An imagination run as a self-contained page: words, films, and the change with its interval."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from worldmodel.data.video.write import write_video
from worldmodel.display.html import Report
from worldmodel.display.plots import Row, draw_intervals, panel, png
from worldmodel.display.words import sign_of, span
from worldmodel.dreams.film import side_by_side
from worldmodel.fidelity.intervals import TOO_FEW, bootstrap_interval
from worldmodel.world_model import WorldModel

MEASURES = ("return", "success")
WARNING = (
    "These are dreams, and the policy was chosen by them, so the change is too hopeful. Measure it in real trials with "
    "worldmodel rank."
)


@dataclass(frozen=True)
class Dreamed:
    """Dreams of a policy from the held-out starts, without exploration.

    Attributes:
        returns: Imagined return of every start.
        solved: 1 where the judge saw a success.
        frames: The first start's dream, first frame recorded.
    """

    returns: Float64[np.ndarray, "n"]
    solved: Float64[np.ndarray, "n"]
    frames: UInt8[Tensor, "t v H W 3"]

    def values(self, measure: str) -> Float64[np.ndarray, "n"]:
        """The numbers of one of `MEASURES`."""
        return self.returns if measure == "return" else self.solved


def change(
    before: Dreamed, after: Dreamed, episodes: Int64[np.ndarray, "n"], measure: str
) -> tuple[float, tuple[float, float] | None]:
    """Mean change over the same starts and its 95% interval, from a bootstrap over episodes."""
    gained = after.values(measure) - before.values(measure)
    return float(gained.mean()), bootstrap_interval(gained, episodes)


def meaning(before: Dreamed, after: Dreamed, episodes: Int64[np.ndarray, "n"], kept: int) -> list[str]:
    """Whether the policy got better in dreams of held-out starts; the return decides.

    Args:
        before: Dreams of the cloned policy.
        after: Dreams of the kept policy from the same starts.
        episodes: The episode of each start.
        kept: The update of the kept policy.
    """
    if kept == 0:
        return ["Nothing better than the cloned policy was found in dreams of held-out starts, so the clone is kept."]
    _, interval = change(before, after, episodes, "return")
    measured = f"the return went from {before.returns.mean():.3f} to {after.returns.mean():.3f}"
    success = f"success from {before.solved.mean():.0%} to {after.solved.mean():.0%}"
    if interval is None or sign_of(interval) == 0:
        why = TOO_FEW if interval is None else f"its interval, {span(interval)}, includes 0"
        return [
            f"It cannot be told whether the policy got better in dreams of held-out starts: {measured} and {success}, "
            f"but {why}.",
            WARNING,
        ]
    verdict = "better" if sign_of(interval) > 0 else "worse"
    return [
        f"In dreams of held-out starts the policy got {verdict}: {measured} (95% interval of the change "
        f"{span(interval)}) and {success}.",
        WARNING,
    ]


def write_page(
    before: Dreamed,
    after: Dreamed,
    episodes: Int64[np.ndarray, "n"],
    report: Mapping[str, object],
    world: WorldModel,
    videos: Sequence[Path],
    out: Path,
) -> list[str]:
    """Write `report.html`, and return its sentences.

    Args:
        before: Dreams of the cloned policy.
        after: Dreams of the kept policy from the same starts.
        episodes: The episode of each start.
        report: What `improve` returns.
        world: The world model that dreamed.
        videos: Films of real trials, before and after.
        out: Folder of the run, with its `validation.jsonl`.
    """
    page = Report("A policy improved in imagination")
    page.text(
        f"{report['updates']} updates in {report['seconds'] / 60:.1f} minutes; the kept policy is that of update "
        f"{report['kept']}. It acted in dreams from {len(before.returns)} held-out starts."
    )
    sentences = meaning(before, after, episodes, report["kept"])
    page.meaning(sentences)
    page.heading("Films")
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        rows = {"before": before.frames, "after": after.frames}
        write_video(film, side_by_side(rows, world.views), world.fps / world.stride)
        page.video(film, "Dreams from the first held-out start: the cloned policy above, the kept policy below")
    for video in videos:
        page.video(video, f"Real trials before and after, {video.stem.replace('_', ' ')}")
    page.heading("Before and after")
    page.plots(
        {
            "Held-out starts, means with 95% intervals": draw_means(before, after, episodes),
            "Return on held-out starts over updates": draw_course(out / "validation.jsonl"),
        }
    )
    page.table(("measure", "before", "after", "95% interval of the change"), table(before, after, episodes))
    page.write(out / "report.html")
    return sentences


def table(before: Dreamed, after: Dreamed, episodes: Int64[np.ndarray, "n"]) -> list[tuple[str, ...]]:
    """One row per measure."""
    rows = []
    for name in MEASURES:
        _, interval = change(before, after, episodes, name)
        means = (f"{dreamed.values(name).mean():.3f}" for dreamed in (before, after))
        rows.append((name, *means, "-" if interval is None else span(interval, "{:.3f}")))
    return rows


def draw_means(before: Dreamed, after: Dreamed, episodes: Int64[np.ndarray, "n"]) -> bytes:
    """Return and success before and after with their intervals, as a PNG."""
    places = {}
    for place, dreamed in (("before", before), ("after", after)):
        places[place] = []
        for name in MEASURES:
            values = dreamed.values(name)
            mean = float(values.mean())
            places[place].append(Row(name, mean, *(bootstrap_interval(values, episodes) or (mean, mean))))
    return draw_intervals(places, "mean over held-out starts")


def draw_course(table: Path) -> bytes:
    """The mean return of every measurement of a run, as a PNG."""
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    figure, axes = panel()
    axes.plot([row["step"] for row in rows], [row["return"] for row in rows], "o-", ms=3)
    axes.set(xlabel="updates", ylabel="mean return")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    return png(figure)
