"""The tab with figures: how faithful the world model is, and what post-training changed."""

import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from worldmodel.display.html import data_uri
from worldmodel.display.plots import empty_figure
from worldmodel.fidelity.meaning import meaning
from worldmodel.files import read_object

Line = Mapping[str, float | None]
"""Horizon in frames -> value."""
MAX_VIDEOS = 3
MAX_VIDEO_BYTES = 3_000_000
TITLES = {
    "psnr": ("PSNR, dB (higher is better)", "{:.1f}"),
    "lpips": ("LPIPS (lower is better)", "{:.3f}"),
    "ssim": ("SSIM (higher is better)", "{:.3f}"),
    "error_px": ("distance from the truth, px of 64", "{:.1f}"),
    "missing": ("share of frames without it", "{:.0%}"),
    "psnr_gap": ("loss of PSNR under other actions, dB", "{:.1f}"),
}
NONE = "There is no report for this world yet. Make one with"


def read_report(folder: Path) -> dict[str, Any] | None:
    """The fidelity report beside a world model, `fidelity.json`; `None` where there is none.

    Raises:
        ValueError: The file is not a fidelity report.
    """
    file = folder / "fidelity.json"
    if not file.is_file():
        return None
    try:
        report = read_object(file)
        for name in ("cameras", "copy_last", "intervals", "metadata"):
            report[name]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not a fidelity report: {error!r}") from error
    return report


def panels(reports: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, Line]]:
    """What to draw: (subject, metric) -> line by name.

    Args:
        reports: One report called `dream`, or `before` and `after`.
    """
    first = next(iter(reports.values()))
    found: dict[tuple[str, str], dict[str, Line]] = {}
    for view in first["cameras"]:
        for metric in ("psnr", "lpips", "ssim"):
            lines = {name: report["cameras"][view][metric] for name, report in reports.items()}
            lines["copy last frame"] = first["copy_last"][view][metric]
            found[f"camera {view}", metric] = lines
    for thing in first.get("objects", {}):
        for metric in ("error_px", "missing"):
            lines = {name: report["objects"][thing][metric] for name, report in reports.items()}
            lines["copy last frame"] = first["copy_last"]["objects"][thing][metric]
            found[thing, metric] = lines
    kinds = first.get("action_following", {})
    if kinds:
        lines = {
            kind if len(reports) == 1 else f"{kind}, {name}": values["psnr_gap"]
            for name, report in reports.items()
            for kind, values in report["action_following"].items()
        }
        found["action following", "psnr_gap"] = lines
    return {key: lines for key, lines in found.items() if any(map(_known, lines.values()))}


def _known(line: Line) -> dict[int, float]:
    return {int(horizon): value for horizon, value in line.items() if value is not None}


def plot(lines: Mapping[str, Line], metric: str) -> str:
    """Lines against the horizon as a data URI of an SVG picture."""
    figure = empty_figure(3.4, 2.4)
    axes = figure.add_subplot()
    for name, line in lines.items():
        known = _known(line)
        style = {"ls": ":", "color": "0.5"} if name == "copy last frame" else {}
        axes.plot(list(known), list(known.values()), marker="o", ms=3, label=name, **style)
    axes.set_xlabel("frames ahead", fontsize=8)
    axes.set_xticks(sorted({h for line in lines.values() for h in _known(line)}))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if metric in ("error_px", "missing"):
        axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return data_uri("image/svg+xml", buffer.getvalue())


def table(lines: Mapping[str, Line], pattern: str) -> str:
    """The same figures as a table, for those who cannot see the plot."""
    horizons = sorted({h for line in lines.values() for h in _known(line)})
    head = "".join(f"<th>{horizon}</th>" for horizon in horizons)
    rows = []
    for name, line in lines.items():
        known = _known(line)
        cells = "".join(f"<td>{pattern.format(known[h]) if h in known else '&ndash;'}</td>" for h in horizons)
        rows.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    return (
        "<details><summary>figures</summary><div class='scroll'><table><thead><tr>"
        f"<th>frames ahead</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "</details>"
    )


def draw_reports(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Every panel with its plot and its figures, and the data of the measurement."""
    about = next(iter(reports.values()))["metadata"]
    parts = []
    for (subject, metric), lines in panels(reports).items():
        title, pattern = TITLES[metric]
        label = html.escape(f"{subject}: {title}")
        parts.append(
            f'<section><h3>{html.escape(subject)}</h3><p>{title}</p><img alt="{label}" '
            f'src="{plot(lines, metric)}">{table(lines, pattern)}</section>'
        )
    measured = (
        f"{about['windows']} windows of {about['episodes']} held-out episodes of "
        f"{about['data']}, {about['num_steps']} denoising steps per frame"
    )
    return f'<p>{html.escape(measured)}</p><div class="plots">{"".join(parts)}</div>'


def films(folder: Path) -> str:
    """The videos that post-training left, truth, before and after below each other."""
    figures = []
    for file in sorted((folder / "videos").glob("*.mp4"))[:MAX_VIDEOS]:
        if file.stat().st_size > MAX_VIDEO_BYTES:
            continue
        source = data_uri("video/mp4", file.read_bytes())
        name = html.escape(file.stem.replace("_", " "))
        figures.append(
            f"<figure><video controls muted loop playsinline preload='metadata' "
            f"aria-label='{name}: truth, before and after' src='{source}'>"
            f"</video><figcaption>{name}</figcaption></figure>"
        )
    return f'<div class="futures">{"".join(figures)}</div>' if figures else ""


def quality(world: Path, posttrained: Path) -> str:
    """The contents of the tab.

    Args:
        world: Folder of the world model.
        posttrained: Folder of the same world model after post-training; need not exist.
    """
    command = f"worldmodel fidelity --world {world} --data HELD_OUT --out {world}/fidelity.json"
    before, after = read_report(world), read_report(posttrained)
    parts = ["<h2>Fidelity</h2>"]
    if before is None:
        parts.append(f"<p>{NONE} <code>{html.escape(command)}</code></p>")
    else:
        parts += [f"<p>{html.escape(sentence)}</p>" for sentence in meaning(before)]
        parts.append(draw_reports({"dream": before}))
    if posttrained.is_dir():
        parts.append("<h2>Post-training: before and after</h2>")
        if before is not None and after is not None:
            parts.append(draw_reports({"before": before, "after": after}))
        parts.append(films(posttrained))
    return f'<div class="quality">{"".join(parts)}</div>'


def quality_tab(world: Path, posttrained: Path) -> None:
    """Lay out the tab."""
    try:
        gr.HTML(quality(world, posttrained), padding=False, elem_id="quality")
    except ValueError as error:
        gr.Markdown(str(error))
